// Window attention on CUDA, forward; the meaning is reference.window_attention.
//
// A block takes one head, some strips of queries (all of a window, or a part) and some windows one
// after the other. Keys and values of a window are read once by a block, its piece of the bias
// once for all its windows, where that fits. Where a window's tokens lie on the map, which are
// outside of it and which see one another is worked out in place: nothing but the result is
// written. Logits, softmax and sums are float32; 16-bit types are multiplied by tensor cores.
#include <torch/csrc/stable/library.h>

#include "window_strips.cuh"

namespace swin_dense {
namespace {

using torch::stable::Tensor;

constexpr int kBlocks = 2048;  // a few times what a device runs at once

// Warps of a block at most: with more, two blocks that keep their bias find no room.
template <bool kept>
constexpr int kMostWarps = kept ? 5 : 6;

// Blocks of a multiprocessor at once, which is what keeps its memory busy; the compiler makes do
// with the registers that leaves.
template <class T, int D, bool kept>
constexpr int kAtOnce = !kept || D > 32 ? 2 : sizeof(T) == 2 ? 4 : 3;

template <class T, int D>
struct ForwardMemory {
  Share share;
  Part<float4> bias;
  Part<T> q, k, v;
  Tokens tokens;
  Part<float> of_queries, of_keys;  // what rows are short of length 1

  ForwardMemory(const Plan& plan, bool kept)
      : bias(share.take<float4>(kept ? plan.rows / kStrip * (plan.padded / 8) * 32 : 0)),
        q(share.take<T>(plan.rows * Tile<T, D>::kStride)),
        k(share.take<T>(plan.keys * Tile<T, D>::kStride)),
        v(share.take<T>(plan.keys * Tile<T, D>::kStride)),
        tokens(share, plan),
        of_queries(share.take<float>(plan.cosine ? plan.rows : 0)),
        of_keys(share.take<float>(plan.cosine ? plan.keys : 0)) {}
};

// Brings keys and values from key `first` on, with the queries if it is the first.
template <class T, int D>
__device__ int bring_keys(const ForwardMemory<T, D>& shared, const Plan& plan, const Inputs<T>& in,
                          const Job& job, const Window& window, int first) {
  const int rest = plan.padded - first, count = rest < plan.keys ? rest : plan.keys;
  const int* places = shared.tokens.place;
  if (first == 0) {
    bring<T, D>({shared.q}, plan.rows, places + job.tile * plan.rows,
                in.part(plan, window, job.head, 0), 0, plan);
  }
  bring<T, D>({shared.k, shared.v}, count, places + first, in.part(plan, window, job.head, 1),
              static_cast<int64_t>(plan.heads) * plan.dim, plan);
  wait_for_copies();
  __syncthreads();
  if (!plan.cosine) return count;
  if (first == 0) normalise_rows<T, D>(shared.q, plan.rows, shared.of_queries, nullptr);
  normalise_rows<T, D>(shared.k, count, shared.of_keys, nullptr);
  __syncthreads();
  return count;
}

// Writes the sums of a strip, divided by those of the exponentials.
template <class T, int eights>
__device__ void leave_rows(Strip<eights>& sum, const Softmax (&softmax)[2], const int* places,
                           const Plan& plan, const Window& window, int head, T* out) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float share = 1.f / sum_of_four(softmax[half].total);
#pragma unroll
    for (int n = 0; n < eights; ++n) {
      sum[n][half * 2] *= share, sum[n][half * 2 + 1] *= share;
    }
    const int place = places[half * 8];
    const int64_t row = (window.image + place) * plan.heads + head;
    write_row<T, eights * 8>(sum, half, place < 0 ? nullptr : out + row * plan.dim, plan);
  }
}

// Runs of `run` keys; `kept` tells that the bias is in shared memory, else `laid` has it.
template <class T, int D, int run, bool kept>
__global__ void __launch_bounds__(kMostWarps<kept> * 32, kAtOnce<T, D, kept>)
    forward(Plan plan, ForwardMemory<T, D> shared, Inputs<T> in, const float4* laid, T* out) {
  constexpr int kStride = Tile<T, D>::kStride;
  const Job job(plan);
  const Lane at;
  const float scale = in.scale[job.head] * kUnit<T>;
  const int strip = threadIdx.x / 32, token = job.tile * plan.rows + at.row;
  const int64_t strips = plan.rows / kStrip;
  const bool idle = job.tile * plan.rows + strip * kStrip >= plan.length;
  const float4* bias;
  if (kept) keep_bias<T>(shared.bias, in.bias, plan, job), bias = shared.bias;
  else bias = laid + (job.head * plan.tiles + job.tile) * strips * (plan.padded / 8) * 32;
  bias += strip * (plan.padded / 8) * 32 + threadIdx.x % 32;
  shared.tokens.start(plan);
  Window window(plan, job.begin);
  for (int number = job.begin; number < job.end; ++number, window.move_on(plan)) {
    __syncthreads();  // what was there is no longer read
    shared.tokens.lay(plan, window);
    __syncthreads();
    const uint8_t regions[2] = {shared.tokens.region[token], shared.tokens.region[token + 8]};
    Strip<D / 8> sum = {};
    Softmax softmax[2];
    for (int first = 0; first < plan.padded; first += plan.keys) {
      if (first > 0) __syncthreads();
      const int count = bring_keys(shared, plan, in, job, window, first);
#pragma unroll 1
      for (int key = 0; key < count && !idle; key += run) {
        Strip<run / 8> weights;
        product<T, D>(weights, shared.q + strip * kStrip * kStride, shared.k + key * kStride);
        if (plan.cosine) {
          const float factors[2] = {shared.of_queries[at.row], shared.of_queries[at.row + 8]};
          to_length(weights, factors, shared.of_keys + key);
        }
        to_logits(weights, weights, scale, bias + (first + key) / 8 * 32, regions,
                  shared.tokens.region + first + key, window.torn);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          softmax[half].template see<T>(weights, half);
#pragma unroll
          for (int n = 0; n < D / 8; ++n) {
            sum[n][half * 2] *= softmax[half].fade, sum[n][half * 2 + 1] *= softmax[half].fade;
          }
        }
        add_weighted<T, D>(sum, weights, shared.v + key * kStride);
      }
    }
    if (!idle) leave_rows(sum, softmax, shared.tokens.place + token, plan, window, job.head, out);
  }
}

// How a call is dealt to blocks.
struct Choice {
  int run, warps;
  bool kept;
};

// Sets what of the plan depends on it; false if it needs too much shared memory.
template <class T, int D>
bool fits(Plan& plan, const Choice& choice) {
  deal(plan, choice.warps * kStrip, kBlocks);
  plan.padded = plan.keys = round_up(plan.length, choice.run);
  const auto fit = [&] { return ForwardMemory<T, D>(plan, choice.kept).share.size <= kHalfShared; };
  while (plan.keys > choice.run && !fit()) plan.keys -= choice.run;
  return fit();
}

// The warps that do least for nothing: strips that no query is left for, and keys and values that
// several blocks bring. A bias of at least four strips, or all, is kept if two blocks fit at once.
template <class T, int D>
Choice choose(Plan& plan) {
  const int strips = round_up(plan.length, kStrip) / kStrip;
  const bool short_runs = sizeof(T) == 2 && round_up(strips, 3) < round_up(strips, 4);
  Choice best{};
  for (const bool kept : {true, false}) {
    const int most = std::min(strips, kept ? kMostWarps<true> : kMostWarps<false>);
    int least = std::numeric_limits<int>::max();
    for (int warps = std::min(most, 4); warps <= most; ++warps) {
      const int cost = round_up(strips, warps) / warps * (warps + 1);
      const Choice choice{kept && short_runs ? 48 : 64, warps, kept};
      if (cost <= least && fits<T, D>(plan, choice)) least = cost, best = choice;
    }
    if (best.warps > 0) break;
  }
  fits<T, D>(plan, best);
  return best;
}

template <class T, int D, int run, bool kept>
void launch(const Plan& plan, const Inputs<T>& in, const Tensor& bias, T* out,
            cudaStream_t stream) {
  const Tensor laid = kept ? bias : laid_bias<T>(bias, plan, stream);
  const ForwardMemory<T, D> shared(plan, kept);
  start(forward<T, D, run, kept>, plan, plan.rows * 2, shared.share.size, stream, plan, shared, in,
        reinterpret_cast<const float4*>(laid.const_data_ptr<float>()), out);
}

Tensor window_attention(const Tensor qkv, const Tensor bias, const Tensor pad_qkv,
                        const Tensor scale, int64_t window, int64_t shift, bool cosine) {
  Plan plan = plan_call(qkv, bias, pad_qkv, scale, window, shift, cosine);
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
    const auto go = [&](const auto& run) {
      run(plan, in, added, static_cast<T*>(out.mutable_data_ptr()), current_stream(qkv));
    };
    const Choice choice = choose<T, D>(plan);
    if (!choice.kept) return go(launch<T, D, 64, false>);
    if constexpr (sizeof(T) == 2) {
      if (choice.run == 48) return go(launch<T, D, 48, true>);
    }
    go(launch<T, D, 64, true>);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("window_attention", TORCH_BOX(&window_attention));
}

}  // namespace swin_dense
