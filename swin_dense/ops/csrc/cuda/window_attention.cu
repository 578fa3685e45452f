// Window attention on CUDA, forward; the meaning is reference.window_attention.
//
// A block takes one head, one tile of 64 queries (all, if a window has no more tokens) and some
// windows one after the other, so that it reads its piece of the bias once. Where a window's
// tokens lie on the map, which are outside of it and which see one another is worked out in place:
// q, k and v are read once and nothing but the result is written. Logits, softmax and sums are
// float32; 16-bit types are multiplied by tensor cores.
#include <torch/csrc/stable/library.h>

#include "window_logits.cuh"

namespace swin_dense {
namespace {

using torch::stable::Tensor;

constexpr int kBlocks = 2048;  // a few times what a device runs at once

// Blocks of a multiprocessor at once, which is what keeps its memory busy; the compiler makes do
// with the registers that leaves.
template <class T, int D>
constexpr int kAtOnce = (sizeof(T) == 2 ? 5 : 3) - (D > 32);

template <class T, int D>
__global__ void __launch_bounds__(kBlock, kAtOnce<T, D>)
    forward(Plan plan, Inputs<T> in, T* out) {
  extern __shared__ uint4 memory[];
  auto& shared = *reinterpret_cast<Memory<T, D>*>(memory);
  const Job job(plan);
  const Lane at;
  const float scale = in.scale[job.head];
  for (int number = job.begin; number < job.end; ++number) {
    const Window window(plan, number);
    Strip<D / 8> sum = {};
    Softmax softmax[2];
    for (int tile = 0; tile < plan.tiles; ++tile) {
      const bool bias = plan.tiles > 1 || number == job.begin;
      const Wanted wanted{tile == 0, true, bias, job.tile, tile};
      load<T, D>(shared, nullptr, plan, in, job.head, window, wanted);
      Strip<kEights> weights;
      product(weights, shared.q, shared.k);
      to_logits(weights, scale, shared.queries, shared.keys, shared.bias, plan, window.torn);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        softmax[half].see<T>(weights, half);
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
          sum[n][half * 2] *= softmax[half].fade, sum[n][half * 2 + 1] *= softmax[half].fade;
        }
      }
      add_weighted(sum, weights, shared.v);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float share = 1.f / sum_of_four(softmax[half].total);
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        sum[n][half * 2] *= share, sum[n][half * 2 + 1] *= share;
      }
      const int place = shared.queries.place[at.row + half * 8];
      const int64_t row = (window.image + place) * plan.heads + job.head;
      write_row<T, D>(sum, half, place < 0 ? nullptr : out + row * plan.dim, plan);
    }
  }
}

Tensor window_attention(const Tensor qkv, const Tensor bias, const Tensor pad_qkv,
                        const Tensor scale, int64_t window, int64_t shift, bool cosine) {
  Plan plan = plan_call(qkv, bias, pad_qkv, scale, window, shift, cosine, kBlocks);
  const torch::stable::accelerator::DeviceGuard guard(qkv.get_device_index());
  Tensor out = torch::stable::new_empty(
      qkv, {qkv.size(0), qkv.size(1), qkv.size(2), qkv.size(4) * qkv.size(5)});
  if (plan.windows == 0) return out;
  const Tensor map = torch::stable::contiguous(qkv), added = torch::stable::contiguous(bias);
  const Tensor pad = torch::stable::contiguous(pad_qkv), factor = torch::stable::contiguous(scale);
  plan.whole = plan.whole && on_16_bytes(map.const_data_ptr()) &&
               on_16_bytes(pad.const_data_ptr()) && on_16_bytes(out.const_data_ptr());
  by_type(qkv.scalar_type(), plan.dim, [&](auto zero, auto width) {
    using T = decltype(zero);
    constexpr int D = decltype(width)::value;
    const Inputs<T> in{static_cast<const T*>(map.const_data_ptr()),
                       static_cast<const T*>(pad.const_data_ptr()), nullptr,
                       added.const_data_ptr<float>(), factor.const_data_ptr<float>()};
    start<Memory<T, D>>(forward<T, D>, plan, current_stream(qkv), plan, in,
                        static_cast<T*>(out.mutable_data_ptr()));
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("window_attention", TORCH_BOX(&window_attention));
}

}  // namespace swin_dense
