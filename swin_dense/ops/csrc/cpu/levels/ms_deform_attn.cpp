// Multi-scale deformable attention: what ../ms_deform_attn.cpp hands out, on one level of
// instructions.
//
// The forward takes a query and a head at a time: it places all samples side by side, then adds
// them up over channels in registers. The backward takes a map of a head at a time, so that what
// it adds to the positions of that map is its own, and in the order of the queries.
#include "../ms_deform_attn.h"

#include "bilinear.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

constexpr int kRun = 4;  // registers of channels that are added up side by side

template <class S>
SWIN_DENSE_INLINE void put_on(const MsDeformAttn& call, int64_t map, Samples<S>& samples,
                              int64_t s) {
  samples.height[s] = call.height[map];
  samples.width[s] = call.width[map];
  samples.start[s] = call.start[map];
}

// What the samples give to R registers of channels from `value` on; `some` of the last are there.
template <int R, bool whole, class T, class V>
SWIN_DENSE_INLINE void gather(const Samples<typename Wide<T>::Scalar>& samples, int64_t count,
                              const T* value, int64_t row, int64_t some, V* sum) {
  constexpr int lanes = Wide<T>::lanes;
  for (int64_t s = 0; s < count; ++s) {
#pragma GCC unroll 4
    for (int c = 0; c < kCorners; ++c) {
      if (samples.corner[c][s] < 0) continue;
      const T* from = value + samples.corner[c][s] * row;
      const V weight = all(samples.weight[c][s]);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const T* at = from + r * lanes;
        sum[r] += weight * (whole || r < R - 1 ? load(at) : load_some(at, some));
      }
    }
  }
}

// One query of one head: R registers of its channels, from channel `from` on.
template <int R, bool whole, class T>
void attend(const MsDeformAttn& call, const T* value, const typename Wide<T>::Scalar* locations,
            const typename Wide<T>::Scalar* weights, Samples<typename Wide<T>::Scalar>& samples,
            bool placed, int64_t some, T* out) {
  typedef typename Wide<T>::Register V;
  constexpr int lanes = Wide<T>::lanes;
  const int64_t all_samples = call.maps * call.points, row = call.heads * call.channels;
  V sum[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sum[r] = V{};
  int64_t map = 0, point = 0;
  for (int64_t first = 0; first < all_samples; first += kSamples) {
    const int64_t count = all_samples - first < kSamples ? all_samples - first : kSamples;
    if (!placed) {
      for (int64_t s = 0; s < count; ++s) {
        put_on(call, map, samples, s);
        if (++point == call.points) ++map, point = 0;
      }
      const auto* at = locations + 2 * first;
      for (int64_t s = 0; s < count; ++s) {
        samples.x[s] = at[2 * s] * samples.width[s] - typename Wide<T>::Scalar(0.5);
        samples.y[s] = at[2 * s + 1] * samples.height[s] - typename Wide<T>::Scalar(0.5);
      }
      samples.place(count);
      for (int c = 0; c < kCorners; ++c) {
        for (int64_t s = 0; s < count; ++s) samples.weight[c][s] *= weights[first + s];
      }
    }
    gather<R, whole>(samples, count, value, row, some, sum);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    store_some(out + r * lanes, sum[r], whole || r < R - 1 ? lanes : some);
  }
}

template <class T>
void forward_of(const MsDeformAttn& call, int64_t first, int64_t last) {
  typedef typename Wide<T>::Scalar S;
  constexpr int64_t lanes = Wide<T>::lanes;
  const int64_t count = call.maps * call.points, row = call.heads * call.channels;
  Samples<S> samples{};
  for (int64_t query = first; query < last; ++query) {
    for (int64_t head = 0; head < call.heads; ++head) {
      const int64_t item = query * call.heads + head;
      const T* value = static_cast<const T*>(call.value) + query / call.queries * call.keys * row;
      const S* locations = static_cast<const S*>(call.locations) + item * count * 2;
      const S* weights = static_cast<const S*>(call.weights) + item * count;
      T* out = static_cast<T*>(call.out) + item * call.channels;
      value += head * call.channels;
      for (int64_t c = 0; c < call.channels; c += kRun * lanes) {
        const bool placed = c > 0 && count <= kSamples;
        const int64_t left = call.channels - c, some = (left - 1) % lanes + 1;
#define SWIN_DENSE_ATTEND(R, whole) \
  attend<R, whole>(call, value + c, locations, weights, samples, placed, some, out + c)
#define SWIN_DENSE_EITHER(R) \
  if (some == lanes) SWIN_DENSE_ATTEND(R, true); else SWIN_DENSE_ATTEND(R, false)
        switch (left >= kRun * lanes ? kRun : (left + lanes - 1) / lanes) {
          case 1: SWIN_DENSE_EITHER(1); break;
          case 2: SWIN_DENSE_EITHER(2); break;
          case 3: SWIN_DENSE_EITHER(3); break;
          default:
            if (left >= kRun * lanes || some == lanes) SWIN_DENSE_ATTEND(4, true);
            else SWIN_DENSE_ATTEND(4, false);
        }
#undef SWIN_DENSE_EITHER
#undef SWIN_DENSE_ATTEND
      }
    }
  }
}

// The four products of the corners with the gradient; each corner's share is added to its place.
// Rows of `sums` lie `stride` apart.
template <class T>
SWIN_DENSE_INLINE void spread(const Samples<typename Wide<T>::Scalar>& samples, int64_t s,
                              int32_t start, typename Wide<T>::Scalar weight, const T* value,
                              int64_t row, int64_t channels,
                              const typename Wide<T>::Scalar* grad,
                              typename Wide<T>::Scalar* sums, int64_t stride,
                              typename Wide<T>::Scalar* products) {
  typedef typename Wide<T>::Register V;
  constexpr int lanes = Wide<T>::lanes;
#pragma GCC unroll 4
  for (int c = 0; c < kCorners; ++c) {
    products[c] = 0;
    const int32_t position = samples.corner[c][s];
    if (position < 0) continue;
    const T* from = value + position * row;
    auto* to = sums + (position - start) * stride;
    const V share = all(samples.weight[c][s] * weight);
    V product{};
    for (int64_t r = 0; r < channels; r += lanes) {
      const V by = load(grad + r);
      product += by * load_some(from + r, channels - r);
      store(to + r, load(to + r) + by * share);
    }
    products[c] = sum_of(product)[0];
  }
}

template <class T>
void backward_of(const MsDeformAttn& call, int64_t first, int64_t last, void* scratch) {
  typedef typename Wide<T>::Scalar S;
  constexpr int lanes = Wide<T>::lanes;
  const int64_t channels = call.channels, wide = padded<T>(channels);
  const int64_t row = call.heads * channels, points = call.points;
  S* grad = static_cast<S*>(scratch);  // of one query
  Samples<S> samples{};
  S weights[kSamples];
  for (int64_t task = first; task < last; ++task) {
    const int64_t map = task % call.maps, head = task / call.maps % call.heads;
    const int64_t image = task / call.maps / call.heads;
    const int32_t start = call.start[map];
    const int64_t positions = static_cast<int64_t>(call.height[map]) * call.width[map];
    const int64_t offset = image * call.keys * row + head * channels;
    const T* value = static_cast<const T*>(call.value) + offset;
    T* to = static_cast<T*>(call.grad_value) + offset + start * row;
    // Sums are made in rows side by side, which fit a cache. Few of them are made where they
    // belong: going over all positions once more would cost more than the samples do.
    const bool few = call.queries * points < positions;
    const bool there = sizeof(S) == sizeof(T) && channels == wide && few;
    S* sums = there ? reinterpret_cast<S*>(to) : grad + wide;
    const int64_t stride = there ? row : wide;
    for (int64_t i = 0; i < positions; ++i) {
      for (int64_t c = 0; c < wide; c += lanes) {
        store(sums + i * stride + c, typename Wide<T>::Register{});
      }
    }
    for (int64_t s = 0; s < kSamples; ++s) put_on(call, map, samples, s);

    const int64_t total = call.queries * points;
    for (int64_t begin = 0; begin < total; begin += kSamples) {
      const int64_t count = total - begin < kSamples ? total - begin : kSamples;
      const auto place_of = [&](int64_t sample) {  // in locations and weights
        const int64_t query = image * call.queries + sample / points;
        return ((query * call.heads + head) * call.maps + map) * points + sample % points;
      };
      for (int64_t s = 0; s < count; ++s) {
        const int64_t place = place_of(begin + s);
        weights[s] = static_cast<const S*>(call.weights)[place];
        samples.x[s] = static_cast<const S*>(call.locations)[2 * place];
        samples.y[s] = static_cast<const S*>(call.locations)[2 * place + 1];
      }
      for (int64_t s = 0; s < count; ++s) {
        samples.x[s] = samples.x[s] * call.width[map] - S(0.5);
        samples.y[s] = samples.y[s] * call.height[map] - S(0.5);
      }
      samples.place(count);
      for (int64_t s = 0; s < count; ++s) {
        if (s == 0 || (begin + s) % points == 0) {
          const int64_t query = image * call.queries + (begin + s) / points;
          const T* from = static_cast<const T*>(call.grad) + query * row + head * channels;
          for (int64_t c = 0; c < channels; c += lanes) {
            store(grad + c, load_some(from + c, channels - c));
          }
        }
        S p[kCorners];
        spread(samples, s, start, weights[s], value, row, channels, grad, sums, stride, p);
        const S y = samples.y[s], x = samples.x[s];
        const S by_x = (1 - y) * (p[1] - p[0]) + y * (p[3] - p[2]);
        const S by_y = (1 - x) * (p[2] - p[0]) + x * (p[3] - p[1]);
        const int64_t place = place_of(begin + s);
        S* by_location = static_cast<S*>(call.grad_locations) + 2 * place;
        by_location[0] = by_x * weights[s] * call.width[map];
        by_location[1] = by_y * weights[s] * call.height[map];
        static_cast<S*>(call.grad_weights)[place] =
            samples.weight[0][s] * p[0] + samples.weight[1][s] * p[1] +
            samples.weight[2][s] * p[2] + samples.weight[3][s] * p[3];
      }
    }

    for (int64_t i = 0; i < positions && !there; ++i) {
      for (int64_t c = 0; c < channels; c += lanes) {
        store_some(to + i * row + c, load(sums + i * wide + c), channels - c);
      }
    }
  }
}

void forward(const MsDeformAttn& call, int64_t first, int64_t last) {
  SWIN_DENSE_BY_STORED(forward_of, call, first, last)
}

int64_t scratch(const MsDeformAttn& call, int64_t positions) {
  const int64_t wide = call.stored == Stored::float64 ? padded<double>(call.channels) * 8
                                                      : padded<float>(call.channels) * 4;
  return (positions + 1) * wide;
}

void backward(const MsDeformAttn& call, int64_t first, int64_t last, void* scratch) {
  SWIN_DENSE_BY_STORED(backward_of, call, first, last, scratch)
}

}  // namespace

extern const MsDeformAttnLevel ms_deform_attn;
const MsDeformAttnLevel ms_deform_attn = {forward, scratch, backward};

}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
