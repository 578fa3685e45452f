// RoIAlign on CUDA, both directions; the meaning is reference.roi_align.
//
// One thread per output element. Only samples inside the map are visited, so that a box far
// larger than the map costs no more than one of its size. The backward adds with atomics, in the
// type that sums are kept in: its last bits depend on the order of the threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <limits>
#include <tuple>
#include <vector>

#include "launch.cuh"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr double kMostSamples = 65536;  // along one side of one bin
constexpr int kNowhere = -2;            // argmax of a bin whose maximum lies at no sample

struct Plan {
  int64_t images, channels, height, width, pooled_height, pooled_width, rois;
  double scale;
  int64_t sampling_ratio;
  bool aligned;
  int64_t outputs = rois * channels * pooled_height * pooled_width;
};

template <class A>
struct Sample {
  int64_t low, high;
  A fraction;
};

template <class A>
__device__ Sample<A> locate(A coordinate, int64_t size) {
  const A clamped = coordinate > A(0) ? coordinate : A(0);
  int64_t low = static_cast<int64_t>(clamped);
  if (low > size - 1) low = size - 1;
  const int64_t high = low + 1 < size ? low + 1 : low;
  return {low, high, high > low ? clamped - A(low) : A(0)};
}

// In the type of the coordinate: float64 is slow on most cards.
template <class A>
__device__ bool inside(A coordinate, int64_t size) {
  return size > 0 && coordinate >= A(-1) && coordinate <= A(size);
}

// One bin along one axis: sample s lies at origin + (s + 0.5) * bin / grid.
template <class A>
struct Axis {
  A origin, bin;
  int64_t grid, begin, end;  // [begin, end) holds every sample that lies inside the map
  __device__ A at(int64_t sample) const { return origin + (A(sample) + A(0.5)) * bin / A(grid); }
};

template <class A>
__device__ Axis<A> lay_axis(A start, A length, int64_t index, int64_t bins, int64_t size,
                            int64_t sampling_ratio) {
  Axis<A> axis;
  axis.bin = length / A(bins);
  axis.origin = start + A(index) * axis.bin;
  const A most = axis.bin < A(kMostSamples) ? axis.bin : A(kMostSamples);
  axis.grid = sampling_ratio > 0 ? sampling_ratio : static_cast<int64_t>(ceil(most));
  axis.begin = 0, axis.end = axis.grid;
  const A step = axis.bin / A(axis.grid > 0 ? axis.grid : 1);
  if (step > A(0)) {  // two samples of slack on either side, for rounding
    const A first = (A(-1) - axis.origin) / step - A(2.5);
    const A last = (A(size) - axis.origin) / step + A(2.5);
    if (first > A(0)) axis.begin = first < A(axis.grid) ? static_cast<int64_t>(first) : axis.grid;
    if (last < A(axis.grid)) axis.end = last > A(0) ? static_cast<int64_t>(last) : 0;
  }
  return axis;
}

template <class A>
struct Bin {
  int64_t roi, channel, image;
  bool finite;  // the box is a box and its image exists
  Axis<A> y, x;
};

template <class A>
__device__ Bin<A> lay_bin(const A* rois, int64_t index, const Plan& plan) {
  Bin<A> bin;
  const int64_t column = index % plan.pooled_width;
  const int64_t row = index / plan.pooled_width % plan.pooled_height;
  bin.channel = index / (plan.pooled_width * plan.pooled_height) % plan.channels;
  bin.roi = index / (plan.pooled_width * plan.pooled_height * plan.channels);
  const A* roi = rois + bin.roi * 5;
  const A image = roi[0], shift = plan.aligned ? A(0.5) : A(0), scale = A(plan.scale);
  const A x1 = roi[1] * scale - shift, y1 = roi[2] * scale - shift;
  A width = roi[3] * scale - shift - x1, height = roi[4] * scale - shift - y1;
  bin.finite = image > A(-1) && image < A(plan.images) && isfinite(x1) && isfinite(y1) &&
               isfinite(width) && isfinite(height);
  if (!bin.finite) return bin;
  bin.image = static_cast<int64_t>(image);
  const A least = plan.aligned ? A(0) : A(1);
  width = width > least ? width : least, height = height > least ? height : least;
  bin.y = lay_axis(y1, height, row, plan.pooled_height, plan.height, plan.sampling_ratio);
  bin.x = lay_axis(x1, width, column, plan.pooled_width, plan.width, plan.sampling_ratio);
  return bin;
}

template <class T, class A, bool take_max>
__global__ void forward(const T* features, const A* rois, Plan plan, T* out, A* argmax_y,
                        A* argmax_x) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < plan.outputs; i += stride) {
    const Bin<A> bin = lay_bin(rois, i, plan);
    if (!bin.finite) {
      out[i] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
      if (take_max) argmax_y[i] = A(kNowhere), argmax_x[i] = A(kNowhere);
      continue;
    }
    const T* plane =
        features + (bin.image * plan.channels + bin.channel) * plan.height * plan.width;
    A sum = A(0), best = -std::numeric_limits<A>::infinity();
    A best_y = A(kNowhere), best_x = A(kNowhere);
    int64_t seen = 0;
    for (int64_t s = bin.y.begin; s < bin.y.end; ++s) {
      const A y = bin.y.at(s);
      if (!inside(y, plan.height)) continue;
      const Sample<A> v = locate(y, plan.height);
      const T* upper = plane + v.low * plan.width;
      const T* lower = plane + v.high * plan.width;
      for (int64_t t = bin.x.begin; t < bin.x.end; ++t) {
        const A x = bin.x.at(t);
        if (!inside(x, plan.width)) continue;
        const Sample<A> h = locate(x, plan.width);
        const A value = (A(1) - v.fraction) * ((A(1) - h.fraction) * static_cast<A>(upper[h.low]) +
                                               h.fraction * static_cast<A>(upper[h.high])) +
                        v.fraction * ((A(1) - h.fraction) * static_cast<A>(lower[h.low]) +
                                      h.fraction * static_cast<A>(lower[h.high]));
        if (take_max) {
          ++seen;
          if (value > best || (value != value && best == best) ||
              (best_y == A(kNowhere) && value == best)) {
            best = value, best_y = y, best_x = x;
          }
        } else {
          sum += value;
        }
      }
    }
    if (take_max) {
      const bool others = seen < bin.y.grid * bin.x.grid || seen == 0;
      if (others && best < A(0)) best = A(0), best_y = A(kNowhere), best_x = A(kNowhere);
      out[i] = static_cast<T>(best);
      argmax_y[i] = best_y, argmax_x[i] = best_x;
    } else {
      const A samples = A(bin.y.grid) * A(bin.x.grid);
      out[i] = static_cast<T>(sum / (samples > A(0) ? samples : A(1)));
    }
  }
}

template <class A>
__device__ void spread(A* plane, const Sample<A>& v, const Sample<A>& h, int64_t width, A grad) {
  atomicAdd(plane + v.low * width + h.low, (A(1) - v.fraction) * (A(1) - h.fraction) * grad);
  atomicAdd(plane + v.low * width + h.high, (A(1) - v.fraction) * h.fraction * grad);
  atomicAdd(plane + v.high * width + h.low, v.fraction * (A(1) - h.fraction) * grad);
  atomicAdd(plane + v.high * width + h.high, v.fraction * h.fraction * grad);
}

template <class T, class A, bool take_max>
__global__ void backward(const T* grad, const A* rois, const A* argmax_y, const A* argmax_x,
                         Plan plan, A* out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < plan.outputs; i += stride) {
    const Bin<A> bin = lay_bin(rois, i, plan);
    if (!bin.finite) continue;
    A* plane = out + (bin.image * plan.channels + bin.channel) * plan.height * plan.width;
    const A given = static_cast<A>(grad[i]);
    if (take_max) {
      const A y = argmax_y[i], x = argmax_x[i];
      if (!inside(y, plan.height) || !inside(x, plan.width)) continue;
      spread(plane, locate(y, plan.height), locate(x, plan.width), plan.width, given);
      continue;
    }
    const A share = given / (A(bin.y.grid) * A(bin.x.grid));
    for (int64_t s = bin.y.begin; s < bin.y.end; ++s) {
      const A y = bin.y.at(s);
      if (!inside(y, plan.height)) continue;
      const Sample<A> v = locate(y, plan.height);
      for (int64_t t = bin.x.begin; t < bin.x.end; ++t) {
        const A x = bin.x.at(t);
        if (inside(x, plan.width)) spread(plane, v, locate(x, plan.width), plan.width, share);
      }
    }
  }
}

// Calls body with a zero of the features' type and one of the type that sums are kept in.
template <class Body>
void by_dtype(ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Double:
      return body(double(0), double(0));
    case ScalarType::Float:
      return body(float(0), float(0));
    case ScalarType::Half:
      return body(c10::Half(0.f), float(0));
    case ScalarType::BFloat16:
      return body(c10::BFloat16(0.f), float(0));
    default:
      STD_TORCH_CHECK(false,
                      "roi_align: features must be float64, float32, float16 or bfloat16.");
  }
}

void check_rois(const Tensor& rois, ScalarType sums) {
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5 && rois.scalar_type() == sums,
                  "roi_align: rois must be (K, 5), float64 for float64 features, else float32.");
}

std::tuple<Tensor, Tensor, Tensor> roi_align(const Tensor features, const Tensor rois,
                                             int64_t pooled_height, int64_t pooled_width,
                                             double spatial_scale, int64_t sampling_ratio,
                                             bool take_max, bool aligned) {
  STD_TORCH_CHECK(features.dim() == 4, "roi_align: features must be (B, C, H, W).");
  const torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
  const Plan plan{features.size(0), features.size(1), features.size(2), features.size(3),
                  pooled_height, pooled_width, rois.size(0), spatial_scale, sampling_ratio,
                  aligned};
  const ScalarType sums =
      features.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check_rois(rois, sums);
  const std::vector<int64_t> shape{rois.size(0), plan.channels, pooled_height, pooled_width};
  const std::vector<int64_t> none{0};
  Tensor out = torch::stable::new_empty(features, shape);
  Tensor argmax_y = torch::stable::new_empty(features, take_max ? shape : none, sums);
  Tensor argmax_x = torch::stable::new_empty(features, take_max ? shape : none, sums);
  if (out.numel() == 0) return {out, argmax_y, argmax_x};
  const Tensor map = torch::stable::contiguous(features), boxes = torch::stable::contiguous(rois);
  const cudaStream_t stream = current_stream(features);
  const unsigned blocks = blocks_for(plan.outputs);
  by_dtype(features.scalar_type(), [&](auto zero, auto sum) {
    using T = decltype(zero);
    using A = decltype(sum);
    const auto* from = static_cast<const T*>(map.const_data_ptr());
    const auto* at = static_cast<const A*>(boxes.const_data_ptr());
    auto* to = static_cast<T*>(out.mutable_data_ptr());
    auto* ys = static_cast<A*>(argmax_y.mutable_data_ptr());
    auto* xs = static_cast<A*>(argmax_x.mutable_data_ptr());
    if (take_max) {
      forward<T, A, true><<<blocks, kThreads, 0, stream>>>(from, at, plan, to, ys, xs);
    } else {
      forward<T, A, false><<<blocks, kThreads, 0, stream>>>(from, at, plan, to, ys, xs);
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out, argmax_y, argmax_x};
}

Tensor roi_align_backward(const Tensor grad, const Tensor rois, const Tensor argmax_y,
                          const Tensor argmax_x, int64_t images, int64_t channels, int64_t height,
                          int64_t width, double spatial_scale, int64_t sampling_ratio,
                          bool take_max, bool aligned) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const Plan plan{images, channels, height, width, grad.size(2), grad.size(3), rois.size(0),
                  spatial_scale, sampling_ratio, aligned};
  const ScalarType sums =
      grad.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check_rois(rois, sums);
  STD_TORCH_CHECK(grad.size(0) == rois.size(0) && grad.size(1) == channels,
                  "roi_align_backward: grad must be (K, C, pooled height, pooled width).");
  STD_TORCH_CHECK(!take_max || (argmax_y.numel() == grad.numel() &&
                                argmax_x.numel() == grad.numel() &&
                                argmax_y.scalar_type() == sums && argmax_x.scalar_type() == sums),
                  "roi_align_backward: the argmax tensors must be those of the forward.");
  const std::vector<int64_t> shape{images, channels, height, width};
  Tensor total = torch::stable::new_zeros(grad, shape, sums);
  if (total.numel() > 0 && grad.numel() > 0) {
    const Tensor dense = torch::stable::contiguous(grad), boxes = torch::stable::contiguous(rois);
    const Tensor ys = torch::stable::contiguous(argmax_y);
    const Tensor xs = torch::stable::contiguous(argmax_x);
    const cudaStream_t stream = current_stream(grad);
    const unsigned blocks = blocks_for(plan.outputs);
    by_dtype(grad.scalar_type(), [&](auto zero, auto sum) {
      using T = decltype(zero);
      using A = decltype(sum);
      const auto* from = static_cast<const T*>(dense.const_data_ptr());
      const auto* at = static_cast<const A*>(boxes.const_data_ptr());
      const auto* y = static_cast<const A*>(ys.const_data_ptr());
      const auto* x = static_cast<const A*>(xs.const_data_ptr());
      auto* to = static_cast<A*>(total.mutable_data_ptr());
      if (take_max) {
        backward<T, A, true><<<blocks, kThreads, 0, stream>>>(from, at, y, x, plan, to);
      } else {
        backward<T, A, false><<<blocks, kThreads, 0, stream>>>(from, at, y, x, plan, to);
      }
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  if (sums == grad.scalar_type()) return total;
  return torch::stable::to(total, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}

}  // namespace swin_dense
