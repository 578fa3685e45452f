// The columns of a deformable convolution: what ../deform_columns.cpp hands out, on one level of
// instructions.
//
// For a deformable group and a position of the kernel, the samples of neighbouring outputs are
// placed side by side; each is then a mix of at most four rows of channels.
#include "../deform_columns.h"

#include "bilinear.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

// A stretch of outputs of one image, and the samples of one group and kernel position for them.
template <class T>
struct Stretch {
  typedef typename Wide<T>::Scalar S;
  const DeformColumns& call;
  int64_t row, count;         // first of the columns, how many
  int64_t image, output;      // of which image, first of its outputs
  Samples<S> samples{};
  S factor[kSamples];

  explicit Stretch(const DeformColumns& of) : call(of) {}

  // From `begin` on, as far as there is place and the image goes. Returns where it ends.
  int64_t start_at(int64_t begin, int64_t end) {
    const int64_t size = call.out_height * call.out_width;
    row = begin, image = (call.first + begin) / size, output = (call.first + begin) % size;
    count = end - begin < kSamples ? end - begin : kSamples;
    count = size - output < count ? size - output : count;
    for (int64_t s = 0; s < count; ++s) {
      samples.height[s] = static_cast<int32_t>(call.height);
      samples.width[s] = static_cast<int32_t>(call.width);
      samples.start[s] = 0;
    }
    return begin + count;
  }

  // Where an axis (0: y, 1: x) of the offset, or the mask, begins for these outputs.
  int64_t of_offset(int64_t group, int64_t tap, int64_t axis) const {
    const int64_t plane = ((image * call.groups + group) * call.kernel + tap) * 2 + axis;
    return plane * call.out_height * call.out_width + output;
  }
  int64_t of_mask(int64_t group, int64_t tap) const {
    const int64_t plane = (image * call.groups + group) * call.kernel + tap;
    return plane * call.out_height * call.out_width + output;
  }

  void place(int64_t group, int64_t tap) {
    const S* offset = static_cast<const S*>(call.offset);
    const S *down = offset + of_offset(group, tap, 0), *right = offset + of_offset(group, tap, 1);
    const int64_t y = tap / call.kernel_width * call.dilation[0] - call.padding[0];
    const int64_t x = tap % call.kernel_width * call.dilation[1] - call.padding[1];
    int64_t y_out = output / call.out_width, x_out = output % call.out_width;
    for (int64_t s = 0; s < count; ++s) {
      samples.y[s] = static_cast<S>(y_out * call.stride[0] + y) + down[s];
      samples.x[s] = static_cast<S>(x_out * call.stride[1] + x) + right[s];
      if (++x_out == call.out_width) ++y_out, x_out = 0;
    }
    samples.place(count);
    const S* mask = static_cast<const S*>(call.mask);
    for (int64_t s = 0; s < count; ++s) factor[s] = mask ? mask[of_mask(group, tap) + s] : S(1);
  }
};

// The rows of channels that a sample mixes, and how.
template <class T>
struct Mix {
  const T* from[kCorners];
  typename Wide<T>::Scalar weight[kCorners];
  int count = 0;
};

template <class T>
SWIN_DENSE_INLINE Mix<T> mix_of(const Stretch<T>& stretch, int64_t s, const T* channels) {
  Mix<T> mix;
#pragma GCC unroll 4
  for (int c = 0; c < kCorners; ++c) {
    const int32_t position = stretch.samples.corner[c][s];
    if (position < 0) continue;
    mix.from[mix.count] = channels + position * stretch.call.channels;
    mix.weight[mix.count++] = stretch.samples.weight[c][s];
  }
  return mix;
}

template <int count, class T>
SWIN_DENSE_INLINE void write(const Mix<T>& mix, typename Wide<T>::Scalar factor, int64_t channels,
                             T* out) {
  typedef typename Wide<T>::Register V;
  V weight[count + 1];
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) weight[i] = all(mix.weight[i] * factor);
  int64_t c = 0;
  for (; c + Wide<T>::lanes <= channels; c += Wide<T>::lanes) {
    V sum{};
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) sum += weight[i] * load(mix.from[i] + c);
    store(out + c, sum);
  }
  if (c < channels) {
    V sum{};
    for (int i = 0; i < count; ++i) sum += weight[i] * load_some(mix.from[i] + c, channels - c);
    store_some(out + c, sum, channels - c);
  }
}

template <class T>
void forward_of(const DeformColumns& call, int64_t begin, int64_t end) {
  const int64_t share = call.channels / call.groups;
  Stretch<T> stretch(call);
  while (begin < end) {
    begin = stretch.start_at(begin, end);
    const T* image = static_cast<const T*>(call.input) +
                     stretch.image * call.height * call.width * call.channels;
    for (int64_t group = 0; group < call.groups; ++group) {
      for (int64_t tap = 0; tap < call.kernel; ++tap) {
        stretch.place(group, tap);
        T* out = static_cast<T*>(call.out) +
                 (stretch.row * call.kernel + tap) * call.channels + group * share;
        for (int64_t s = 0; s < stretch.count; ++s, out += call.kernel * call.channels) {
          const Mix<T> mix = mix_of(stretch, s, image + group * share);
          const auto factor = stretch.factor[s];
          if (mix.count == 4) write<4>(mix, factor, share, out);
          else if (mix.count == 2) write<2>(mix, factor, share, out);
          else if (mix.count == 1) write<1>(mix, factor, share, out);
          else write<0>(mix, factor, share, out);
        }
      }
    }
  }
}

template <class T>
void backward_places_of(const DeformColumns& call, int64_t begin, int64_t end) {
  typedef typename Wide<T>::Scalar S;
  typedef typename Wide<T>::Register V;
  const int64_t share = call.channels / call.groups;
  Stretch<T> stretch(call);
  const auto& samples = stretch.samples;
  while (begin < end) {
    begin = stretch.start_at(begin, end);
    const T* image = static_cast<const T*>(call.input) +
                     stretch.image * call.height * call.width * call.channels;
    for (int64_t group = 0; group < call.groups; ++group) {
      for (int64_t tap = 0; tap < call.kernel; ++tap) {
        stretch.place(group, tap);
        const T* grad = static_cast<const T*>(call.grad) +
                        (stretch.row * call.kernel + tap) * call.channels + group * share;
        S* down = static_cast<S*>(call.grad_offset) + stretch.of_offset(group, tap, 0);
        S* right = static_cast<S*>(call.grad_offset) + stretch.of_offset(group, tap, 1);
        S* mask = static_cast<S*>(call.grad_mask);
        if (mask) mask += stretch.of_mask(group, tap);
        for (int64_t s = 0; s < stretch.count; ++s, grad += call.kernel * call.channels) {
          S p[kCorners];
#pragma GCC unroll 4
          for (int c = 0; c < kCorners; ++c) {
            const int32_t position = samples.corner[c][s];
            p[c] = 0;
            if (position < 0) continue;
            const T* from = image + position * call.channels + group * share;
            V product{};
            for (int64_t r = 0; r < share; r += Wide<T>::lanes) {
              product += load_some(grad + r, share - r) * load_some(from + r, share - r);
            }
            p[c] = sum_of(product)[0];
          }
          const S y = samples.y[s], x = samples.x[s], factor = stretch.factor[s];
          down[s] = ((1 - x) * (p[2] - p[0]) + x * (p[3] - p[1])) * factor;
          right[s] = ((1 - y) * (p[1] - p[0]) + y * (p[3] - p[2])) * factor;
          if (!mask) continue;
          mask[s] = samples.weight[0][s] * p[0] + samples.weight[1][s] * p[1] +
                    samples.weight[2][s] * p[2] + samples.weight[3][s] * p[3];
        }
      }
    }
  }
}

template <class T>
void backward_input_of(const DeformColumns& call, int64_t first, int64_t last) {
  typedef typename Wide<T>::Scalar S;
  const int64_t share = call.channels / call.groups, group = first / share;
  Stretch<T> stretch(call);
  for (int64_t begin = 0; begin < call.positions;) {
    begin = stretch.start_at(begin, call.positions);
    S* image = static_cast<S*>(call.grad_input) +
               stretch.image * call.height * call.width * call.channels;
    for (int64_t tap = 0; tap < call.kernel; ++tap) {
      stretch.place(group, tap);
      const T* grad = static_cast<const T*>(call.grad) +
                      (stretch.row * call.kernel + tap) * call.channels;
      for (int64_t s = 0; s < stretch.count; ++s, grad += call.kernel * call.channels) {
#pragma GCC unroll 4
        for (int c = 0; c < kCorners; ++c) {
          const int32_t position = stretch.samples.corner[c][s];
          if (position < 0) continue;
          S* to = image + position * call.channels;
          const auto weight = all(stretch.samples.weight[c][s] * stretch.factor[s]);
          for (int64_t r = first; r < last; r += Wide<T>::lanes) {
            const int64_t some = last - r;
            store_some(to + r, load_some(to + r, some) + weight * load_some(grad + r, some), some);
          }
        }
      }
    }
  }
}

void forward(const DeformColumns& call, int64_t begin, int64_t end) {
  SWIN_DENSE_BY_STORED(forward_of, call, begin, end)
}
void backward_places(const DeformColumns& call, int64_t begin, int64_t end) {
  SWIN_DENSE_BY_STORED(backward_places_of, call, begin, end)
}
void backward_input(const DeformColumns& call, int64_t begin, int64_t end) {
  SWIN_DENSE_BY_STORED(backward_input_of, call, begin, end)
}

}  // namespace

extern const DeformColumnsLevel deform_columns;
const DeformColumnsLevel deform_columns = {forward, backward_places, backward_input};

}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
