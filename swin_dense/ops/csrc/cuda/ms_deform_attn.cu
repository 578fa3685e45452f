// Multi-scale deformable attention on CUDA, forward; the meaning is reference.ms_deform_attn.
//
// A thread reads 16 bytes of each corner and keeps its sums in registers.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "ms_deform_attn.cuh"

namespace swin_dense {
namespace {

using torch::stable::Tensor;

template <class T>
constexpr int kEach = 16 / sizeof(T);

// Blocks of a multiprocessor at once, which is what hides how long a read takes.
template <class T, bool wide>
constexpr int kAtOnce = !wide ? 4 : std::is_same_v<T, float> ? 10 : 8;

template <class T, bool wide>
__global__ void __launch_bounds__(kBlock, kAtOnce<T, wide>)
    forward(Call call, const T* value, const Sum<T>* locations, const Sum<T>* weights, T* out) {
  using A = Sum<T>;
  constexpr int V = kEach<T>;
  extern __shared__ Map maps[];
  __shared__ Corners<A> slots[kBlock];
  if (!lay_maps(call, maps)) {
    return spoil(out, static_cast<int64_t>(call.images) * call.queries * call.row());
  }
  const Team team(call.lanes);
  const Share<V, wide> share(team);
  const int count = call.maps * call.points, row = call.row();
  for (unsigned number = blockIdx.x; number < call.jobs; number += gridDim.x) {
    const Job job(call, team, number);
    const int from = job.part * team.lanes * V, left = call.channels - from;
    const T* base = value + static_cast<int64_t>(job.image) * call.keys * row +
                    job.head * call.channels + from;
    A sum[V] = {};
    Point<A> next(call, locations, weights, job.item, team.lane);
    for (int first = 0; first < count; first += team.lanes) {
      Corners<A> corners;
      next.place_on(maps, corners);
      __syncwarp();  // nobody reads the last ones any more
      slots[team.slot(team.lane)] = corners;
      __syncwarp();
      // Under way while these are added up.
      next = Point<A>(call, locations, weights, job.item, first + team.lanes + team.lane);
      const int some = count - first < team.lanes ? count - first : team.lanes;
#pragma unroll 2
      for (int s = 0; s < some; ++s) {
        const Corners<A> of_sample = slots[team.slot(s)];
        share.add_sample(of_sample, base, row, left, sum);
      }
    }
    if (!job.idle) share.write(out + job.item * call.channels + from, left, sum);
  }
}

Tensor ms_deform_attn(const Tensor value_, const Tensor shapes_, const Tensor locations_,
                      const Tensor weights_) {
  Call call = describe(value_, shapes_, locations_, weights_);
  const torch::stable::accelerator::DeviceGuard guard(value_.get_device_index());
  const std::vector<int64_t> shape{value_.size(0), weights_.size(1), call.row()};
  Tensor out = torch::stable::new_empty(value_, shape);
  if (out.numel() == 0) return out;
  const Tensor value = torch::stable::contiguous(value_);
  const Tensor shapes = torch::stable::contiguous(shapes_);
  const Tensor locations = torch::stable::contiguous(locations_);
  const Tensor weights = torch::stable::contiguous(weights_);
  call.sizes = static_cast<const int64_t*>(shapes.const_data_ptr());
  const cudaStream_t stream = current_stream(value);
  by_dtype(value, [&](auto zero) {
    using T = decltype(zero);
    using A = Sum<T>;
    call.share_out(kEach<T>, 1, true);
    const auto* from = static_cast<const T*>(value.const_data_ptr());
    const auto* at = static_cast<const A*>(locations.const_data_ptr());
    const auto* by = static_cast<const A*>(weights.const_data_ptr());
    auto* to = static_cast<T*>(out.mutable_data_ptr());
    const unsigned blocks = call.blocks();
    const size_t shared = call.shared();
    if (in_runs(call.channels, kEach<T>, from, to)) {
      forward<T, true><<<blocks, kBlock, shared, stream>>>(call, from, at, by, to);
    } else {
      forward<T, false><<<blocks, kBlock, shared, stream>>>(call, from, at, by, to);
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&ms_deform_attn));
}

}  // namespace swin_dense
