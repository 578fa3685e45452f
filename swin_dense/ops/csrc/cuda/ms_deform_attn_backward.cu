// Multi-scale deformable attention on CUDA, backward; the meaning is
// reference.ms_deform_attn_backward.
//
// What many queries add to the same value goes through atomics, in the type that sums are kept in:
// its last bits depend on the order of the threads. The gradients of a location and a weight are
// sums over the channels of a team and come out the same every time.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "ms_deform_attn.cuh"

namespace swin_dense {
namespace {

using torch::stable::Tensor;

// Four floats are what can be added at a time.
template <class T>
constexpr int kEach = 16 / sizeof(Sum<T>);

template <class T>
struct Inputs {
  const T *grad, *value;
  const Sum<T> *locations, *weights;
};

template <class A>
struct Results {
  A *value, *locations, *weights;
};

// Blocks of a multiprocessor at once, which is what hides how long a read takes.
template <bool wide>
constexpr int kAtOnce = wide ? 5 : 4;

template <class T, bool in_runs>
__global__ void __launch_bounds__(kBlock, kAtOnce<in_runs && kAddsFour>)
    backward(Call call, Inputs<T> in, Results<Sum<T>> results) {
  using A = Sum<T>;
  constexpr int V = kEach<T>;
  constexpr bool wide = in_runs && kAddsFour;
  extern __shared__ Map maps[];
  __shared__ Corners<A> slots[kBlock];
  const int count = call.maps * call.points, row = call.row();
  const int64_t positions = static_cast<int64_t>(call.images) * call.keys;
  if (!lay_maps(call, maps)) {
    const int64_t items = static_cast<int64_t>(call.images) * call.queries * call.heads;
    spoil(results.value, positions * row);
    spoil(results.locations, items * count * 2);
    spoil(results.weights, items * count);
    return;
  }
  const Team team(call.lanes);
  const Share<V, wide> share(team);
  const int at_once = team.lanes * V;
  for (unsigned number = blockIdx.x; number < call.jobs; number += gridDim.x) {
    const Job job(call, team, number);
    const int64_t base =
        static_cast<int64_t>(job.image) * call.keys * row + job.head * call.channels;
    const T* grad = in.grad + job.item * call.channels;
    Piece<T, V> given;
    share.read(grad, call.channels, true, given);
    for (int first = 0; first < count; first += team.lanes) {
      const int mine = first + team.mine();
      const Point<A> point(call, in.locations, in.weights, job.item, mine);
      Corners<A> corners;
      const Sample<A> sample = point.place_on(maps, corners);
      if (job.idle) corners.leave_out();
      __syncwarp();  // nobody reads the last ones any more
      slots[team.slot(team.mine())] = corners;
      __syncwarp();
      A products[kCorners];
      collect(team, count - first, products, [&](int four, A(&sums)[kFour][kCorners]) {
        for (int from = 0; from < call.channels; from += at_once) {
          const int left = call.channels - from;
          if (call.channels > at_once) share.read(grad + from, left, true, given);
#pragma unroll
          for (int s = 0; s < kFour; ++s) {
            const Corners<A> of_sample = slots[team.slot(four + s)];
            share.take_back(of_sample, in.value + base + from, results.value + base + from, row,
                            left, given, sums[s]);
          }
        }
      });
      if (job.idle || point.map < 0) continue;
      const Map& map = maps[point.map];
      const int64_t to = job.item * count + mine;
      results.locations[2 * to] = sample.by_x(products) * point.weight * A(map.width);
      results.locations[2 * to + 1] = sample.by_y(products) * point.weight * A(map.height);
      results.weights[to] = sample.by_factor(products);
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(const Tensor grad_, const Tensor value_,
                                                           const Tensor shapes_,
                                                           const Tensor locations_,
                                                           const Tensor weights_) {
  Call call = describe(value_, shapes_, locations_, weights_);
  STD_TORCH_CHECK(grad_.dim() == 3 && grad_.size(0) == call.images &&
                      grad_.size(1) == call.queries && grad_.size(2) == call.row() &&
                      grad_.scalar_type() == value_.scalar_type() &&
                      grad_.get_device_index() == value_.get_device_index(),
                  "ms_deform_attn_backward: grad must be (B, Q, heads * channels), of value's "
                  "dtype.");
  const torch::stable::accelerator::DeviceGuard guard(value_.get_device_index());
  const auto exact = summed_as(value_);
  Tensor by_value = torch::stable::new_zeros(value_, value_.sizes(), exact);
  Tensor by_locations = torch::stable::new_empty(locations_, locations_.sizes());
  Tensor by_weights = torch::stable::new_empty(weights_, weights_.sizes());
  if (by_value.numel() > 0 || by_weights.numel() > 0) {
    const Tensor grad = torch::stable::contiguous(grad_);
    const Tensor value = torch::stable::contiguous(value_);
    const Tensor shapes = torch::stable::contiguous(shapes_);
    const Tensor locations = torch::stable::contiguous(locations_);
    const Tensor weights = torch::stable::contiguous(weights_);
    call.sizes = static_cast<const int64_t*>(shapes.const_data_ptr());
    const cudaStream_t stream = current_stream(value);
    by_dtype(value, [&](auto zero) {
      using T = decltype(zero);
      using A = Sum<T>;
      call.share_out(kEach<T>, kFour, false);
      const Inputs<T> in{static_cast<const T*>(grad.const_data_ptr()),
                         static_cast<const T*>(value.const_data_ptr()),
                         static_cast<const A*>(locations.const_data_ptr()),
                         static_cast<const A*>(weights.const_data_ptr())};
      const Results<A> results{static_cast<A*>(by_value.mutable_data_ptr()),
                               static_cast<A*>(by_locations.mutable_data_ptr()),
                               static_cast<A*>(by_weights.mutable_data_ptr())};
      const unsigned blocks = call.blocks();
      const size_t shared = call.shared();
      if constexpr (std::is_same_v<A, float>) {
        if (in_runs(call.channels, kEach<T>, in.grad, in.value, results.value)) {
          backward<T, true><<<blocks, kBlock, shared, stream>>>(call, in, results);
          STD_CUDA_KERNEL_LAUNCH_CHECK();
          return;
        }
      }
      backward<T, false><<<blocks, kBlock, shared, stream>>>(call, in, results);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  if (exact != value_.scalar_type()) by_value = torch::stable::to(by_value, value_.scalar_type());
  return {by_value, by_locations, by_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("ms_deform_attn_backward", TORCH_BOX(&ms_deform_attn_backward));
}

}  // namespace swin_dense
