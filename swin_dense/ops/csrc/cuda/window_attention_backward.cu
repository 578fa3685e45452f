// Window attention on CUDA, backward; the meaning is reference.window_attention_backward.
//
// Nothing was kept of the forward: the weights are computed again, row by row for the gradients of
// q and the bias, then column by column for those of k, v and the scale. A window of at most 64
// tokens is read once for both; a larger one goes tile by tile through two launches.
//
// What is summed over windows is added up by a block in the order of its windows, and over blocks
// by add_up, in order. How the windows are dealt to blocks follows from the sizes alone: the bits
// of the result do not depend on the device or the run.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "add_up.cuh"
#include "window_logits.cuh"

namespace swin_dense {
namespace {

using torch::stable::Tensor;

constexpr int kBlocks = 1024;              // about; more would mean more sums to add up
constexpr int64_t kMostPartial = 1 << 24;  // numbers in the sums of the bias, 64 MiB

template <class T, int D>
struct BackwardMemory : Memory<T, D> {
  Tile<T, D> grad;
  // Of each query: what its logits are compared with, 1 / sum of exponentials, mean gradient.
  float most[kTile], share[kTile], mean[kTile];
  float by_pad[kBlock / 32][2][D];  // of k and of v, one for each warp
  float by_scale[kBlock / 32];
};

// Where the backward leaves its results; the sums over windows, one of each for each block or
// group of them.
template <class T>
struct Results {
  T* qkv;
  float* bias;   // (groups, N, L, L)
  float* pad;    // (groups, tiles, 2, N, D)
  float* scale;  // (groups, tiles, N)
  float* sums;   // (windows, N, tiles, 64, 3): of each query; if there are several tiles

  __device__ int64_t sums_at(const Plan& plan, int number, int head, int tile) const {
    return ((static_cast<int64_t>(number) * plan.heads + head) * plan.tiles + tile) * kTile;
  }

  __device__ T* row(const Plan& plan, const Window& window, int head, int which, int place) const {
    if (place < 0) return nullptr;
    return qkv + (((window.image + place) * 3 + which) * plan.heads + head) * plan.dim;
  }
};

// From the gradient of a strip of rows of length 1 to that of the rows as they came.
template <class T, int D>
__device__ void through_length(Strip<D / 8>& grad, const Tile<T, D>& tile, const Rows& rows) {
  const Lane at;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = at.row + half * 8;
    const float factor = rows.factor[row], inverse = rows.inverse[row];
    float along = 0.f;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float x = static_cast<float>(tile.row[row][n * 8 + at.column + e]) * factor;
        along += grad[n][half * 2 + e] * x;
      }
    }
    along = sum_of_four(along);
    if (inverse >= 1.f / kSmallestNorm) along = 0.f;  // its length was not what it was divided by
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float x = static_cast<float>(tile.row[row][n * 8 + at.column + e]) * factor;
        grad[n][half * 2 + e] = (grad[n][half * 2 + e] - along * x) * inverse;
      }
    }
  }
}

// What a block carries from window to window.
struct Carried {
  Strip<kEights> by_bias = {};
  float by_scale = 0.f;
};

template <class T>
__device__ void leave_bias(Carried& carried, const Plan& plan, const Results<T>& results,
                           const Job& job, int key_tile, bool first) {
  const Lane at;
  const int64_t slot = static_cast<int64_t>(job.group) * plan.heads + job.head;
  float* to = results.bias + slot * plan.length * plan.length;
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = job.tile * kTile + at.row + e / 2 * 8;
      const int key = key_tile * kTile + n * 8 + at.column + e % 2;
      if (query < plan.length && key < plan.length) {
        float& sum = to[query * plan.length + key];
        sum = first ? carried.by_bias[n][e] : sum + carried.by_bias[n][e];
      }
      carried.by_bias[n][e] = 0.f;
    }
  }
}

// The gradient of the logits, in place of that of the weights; `weights` are not yet divided.
__device__ inline void by_logits(Strip<kEights>& weights, Strip<kEights>& grads,
                                 const float (&share)[2], const float (&mean)[2]) {
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      weights[n][e] *= share[e / 2];
      grads[n][e] = weights[n][e] * (grads[n][e] - mean[e / 2]);
    }
  }
}

// The gradient of a tile of queries.
template <class T, int D>
__device__ void leave_queries(BackwardMemory<T, D>& shared, const Plan& plan,
                              const Results<T>& results, const Job& job, const Window& window,
                              float scale, Strip<D / 8>& by_q) {
  const Lane at;
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) by_q[n][e] *= scale;
  }
  if (plan.cosine) through_length(by_q, shared.q, shared.queries);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = shared.queries.place[at.row + half * 8];
    write_row<T, D>(by_q, half, results.row(plan, window, job.head, 0, place), plan);
  }
}

// The sums of the rows, for the other pass: to the block, or to where other blocks find them.
template <class T, int D, bool lone>
__device__ void leave_sums(BackwardMemory<T, D>& shared, const Plan& plan,
                           const Results<T>& results, const Job& job, int number,
                           const Softmax (&softmax)[2], const float (&share)[2],
                           const float (&mean)[2]) {
  const Lane at;
  if (threadIdx.x % 4 != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = at.row + half * 8;
    shared.most[row] = softmax[half].base();
    shared.share[row] = share[half], shared.mean[row] = mean[half];
    if (lone) continue;
    const int64_t slot = results.sums_at(plan, number, job.head, job.tile) + row;
    results.sums[slot * 3] = softmax[half].base();
    results.sums[slot * 3 + 1] = share[half], results.sums[slot * 3 + 2] = mean[half];
  }
}

// A tile of queries of one window: the gradients of q and of the bias.
template <class T, int D, bool lone>
__device__ void backward_queries(BackwardMemory<T, D>& shared, const Plan& plan,
                                 const Inputs<T>& in, const Results<T>& results, const Job& job,
                                 const Window& window, int number, Carried& carried) {
  const Lane at;
  const float scale = in.scale[job.head];
  Softmax softmax[2];
  float share[2], mean[2] = {};
  Strip<kEights> weights, grads;
  Strip<D / 8> by_q = {};
  // Twice over the keys: for the sums of the rows, then for what is made with them.
  const int tiles = lone ? 1 : plan.tiles;
  for (int turn = 0; turn < tiles * 2; ++turn) {
    const int tile = turn % tiles;
    const bool summing = turn < tiles;
    if (summing || !lone) {  // a lone tile is still there in the second turn
      const bool bias = !lone || number == job.begin;
      load<T, D>(shared, &shared.grad, plan, in, job.head, window,
                 {turn == 0, true, bias, job.tile, tile});
      product(weights, shared.q, shared.k);
      product(grads, shared.grad, shared.v);
      to_logits(weights, scale, shared.queries, shared.keys, shared.bias, plan, window.torn);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (summing) {
        softmax[half].see<T>(weights, half);
        mean[half] *= softmax[half].fade;
#pragma unroll
        for (int n = 0; n < kEights; ++n) {
          mean[half] += weights[n][half * 2] * grads[n][half * 2] +
                        weights[n][half * 2 + 1] * grads[n][half * 2 + 1];
        }
        if (tile + 1 < tiles) continue;
        share[half] = 1.f / sum_of_four(softmax[half].total);
        mean[half] = sum_of_four(mean[half]) * share[half];
      } else if (!lone) {
        exponentiate<T>(weights, half, softmax[half].base());
      }
    }
    if (summing) continue;
    by_logits(weights, grads, share, mean);
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        carried.by_bias[n][e] += grads[n][e];
        if (plan.cosine) grads[n][e] *= shared.keys.factor[n * 8 + at.column + e % 2];
      }
    }
    if (!lone) leave_bias(carried, plan, results, job, tile, number == job.begin);
    add_weighted(by_q, grads, shared.k);
  }
  leave_sums<T, D, lone>(shared, plan, results, job, number, softmax, share, mean);
  leave_queries(shared, plan, results, job, window, scale, by_q);
}

// Adds up, over the strip, the rows of tokens outside the map.
template <class T, int D>
__device__ void add_outside(float (&to)[D], const Strip<D / 8>& strip, const Rows& rows) {
  const Lane at;
  const bool upper = rows.place[at.row] == kOutside, lower = rows.place[at.row + 8] == kOutside;
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float sum = (upper ? strip[n][e] : 0.f) + (lower ? strip[n][2 + e] : 0.f);
      for (int step = 4; step <= 16; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      if (threadIdx.x % 32 < 4) to[n * 8 + at.column + e] += sum;
    }
  }
}

// From products, keys by queries, to the weights and the gradient of the logits, times what the
// queries are short of length 1. The gradient of the scale is added up on the way, where the
// products are: by way of that of q it would be rounded to 16 bits.
template <class T, int D>
__device__ void by_logits_of_keys(Strip<kEights>& products, Strip<kEights>& grads,
                                  const BackwardMemory<T, D>& shared, const Plan& plan,
                                  float scale, bool torn, float& by_scale) {
  const Lane at;
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = at.row + e / 2 * 8, column = n * 8 + at.column + e % 2;
      float product = products[n][e], factor = 1.f;
      if (plan.cosine) {
        factor = shared.queries.factor[column];
        product *= factor * shared.keys.factor[row];
      }
      float logit = product * scale + shared.bias[column][row];
      if (torn && shared.keys.region[row] != shared.queries.region[column]) logit = -INFINITY;
      const float weight = exponential<T>(logit - shared.most[column]) * shared.share[column];
      const float grad = weight * (grads[n][e] - shared.mean[column]);
      by_scale += grad * product;
      products[n][e] = weight, grads[n][e] = grad * factor;
    }
  }
}

// A tile of keys of one window: the gradients of k, v and pad_qkv, and its part in the scale's.
template <class T, int D, bool lone>
__device__ void backward_keys(BackwardMemory<T, D>& shared, const Plan& plan, const Inputs<T>& in,
                              const Results<T>& results, const Job& job, const Window& window,
                              int number, Carried& carried) {
  const Lane at;
  const float scale = in.scale[job.head];
  Strip<D / 8> by_k = {}, by_v = {};
  for (int tile = 0; tile < (lone ? 1 : plan.tiles); ++tile) {
    if (!lone) {
      load<T, D>(shared, &shared.grad, plan, in, job.head, window,
                 {true, tile == 0, true, tile, job.tile});
      if (threadIdx.x < kTile) {
        const float* sums =
            results.sums + (results.sums_at(plan, number, job.head, tile) + threadIdx.x) * 3;
        shared.most[threadIdx.x] = sums[0];
        shared.share[threadIdx.x] = sums[1], shared.mean[threadIdx.x] = sums[2];
      }
    }
    __syncthreads();
    Strip<kEights> weights, grads;
    product(weights, shared.k, shared.q);
    product(grads, shared.v, shared.grad);
    by_logits_of_keys(weights, grads, shared, plan, scale, window.torn, carried.by_scale);
    add_weighted(by_v, weights, shared.grad);
    add_weighted(by_k, grads, shared.q);
  }
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) by_k[n][e] *= scale;
  }
  if (plan.cosine) through_length(by_k, shared.k, shared.keys);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int place = shared.keys.place[at.row + half * 8];
    write_row<T, D>(by_k, half, results.row(plan, window, job.head, 1, place), plan);
    write_row<T, D>(by_v, half, results.row(plan, window, job.head, 2, place), plan);
  }
  if (!window.ragged) return;
  auto& outside = shared.by_pad[threadIdx.x / 32];
  add_outside<T, D>(outside[0], by_k, shared.keys);
  add_outside<T, D>(outside[1], by_v, shared.keys);
}

// The block's sums of the scale and of pad_qkv.
template <class T, int D>
__device__ void leave_small_sums(BackwardMemory<T, D>& shared, const Plan& plan,
                                 const Results<T>& results, const Job& job, float by_scale) {
  const int64_t slot = static_cast<int64_t>(job.group) * plan.tiles + job.tile;
  for (int step = 1; step <= 16; step *= 2) by_scale += __shfl_xor_sync(~0u, by_scale, step);
  if (threadIdx.x % 32 == 0) shared.by_scale[threadIdx.x / 32] = by_scale;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0.f;
    for (const float part : shared.by_scale) sum += part;
    results.scale[slot * plan.heads + job.head] = sum;
  }
  for (int i = threadIdx.x; i < 2 * D; i += kBlock) {
    const int which = i / D, d = i % D;
    if (d >= plan.dim) continue;
    float sum = 0.f;
    for (const auto& part : shared.by_pad) sum += part[which][d];
    results.pad[((slot * 2 + which) * plan.heads + job.head) * plan.dim + d] = sum;
  }
}

// Blocks of a multiprocessor at once, which is what keeps its memory busy; the compiler makes do
// with the registers that leaves. sm_86, sm_89 and sm_120 have shared memory for two only, and for
// sm_100 and later registers come out so scarce at three that much goes through memory instead.
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900
constexpr int kMostAtOnce = 3;
#else
constexpr int kMostAtOnce = 2;
#endif

template <class T, int D>
constexpr int kAtOnce = sizeof(T) == 2 && D == 32 ? kMostAtOnce : 2;

// Both passes if a window is one tile, else it is called for one and then for the other.
template <class T, int D, bool lone>
__global__ void __launch_bounds__(kBlock, kAtOnce<T, D>)
    backward(Plan plan, Inputs<T> in, Results<T> results, bool queries, bool keys) {
  extern __shared__ uint4 memory[];
  auto& shared = *reinterpret_cast<BackwardMemory<T, D>*>(memory);
  const Job job(plan);
  for (int i = threadIdx.x % 32; i < 2 * D; i += 32) {
    shared.by_pad[threadIdx.x / 32][i / D][i % D] = 0.f;
  }
  Carried carried;
  for (int number = job.begin; number < job.end; ++number) {
    const Window window(plan, number);
    if (lone || queries) {
      backward_queries<T, D, lone>(shared, plan, in, results, job, window, number, carried);
    }
    if (lone || keys) {
      backward_keys<T, D, lone>(shared, plan, in, results, job, window, number, carried);
    }
  }
  if (lone) leave_bias(carried, plan, results, job, 0, true);
  if (lone || keys) leave_small_sums(shared, plan, results, job, carried.by_scale);
}

template <class T, int D>
void run(const Plan& plan, const Inputs<T>& in, Tensor& by_qkv, Tensor& by_bias, Tensor& by_pad,
         Tensor& by_scale, cudaStream_t stream) {
  const int64_t slots = static_cast<int64_t>(plan.groups) * plan.tiles;
  const int64_t bias_size = by_bias.numel(), pad_size = by_pad.numel() / 3 * 2;
  const auto temporary = [&](int64_t size) { return torch::stable::new_empty(by_bias, {size}); };
  // One group's sum of the bias is the result.
  Tensor bias = plan.groups == 1 ? by_bias : temporary(plan.groups * bias_size);
  Tensor pad = temporary(slots * pad_size), scale = temporary(slots * plan.heads);
  const int64_t queries = static_cast<int64_t>(plan.windows) * plan.heads * plan.tiles * kTile;
  Tensor sums = temporary(plan.tiles > 1 ? queries * 3 : 0);
  T* to_pad = static_cast<T*>(by_pad.mutable_data_ptr());
  const Results<T> results{static_cast<T*>(by_qkv.mutable_data_ptr()),
                           bias.mutable_data_ptr<float>(), pad.mutable_data_ptr<float>(),
                           scale.mutable_data_ptr<float>(), sums.mutable_data_ptr<float>()};
  if (plan.tiles == 1) {
    start<BackwardMemory<T, D>>(backward<T, D, true>, plan, stream, plan, in, results, true, true);
  } else {
    const auto many = backward<T, D, false>;
    start<BackwardMemory<T, D>>(many, plan, stream, plan, in, results, true, false);
    start<BackwardMemory<T, D>>(many, plan, stream, plan, in, results, false, true);
  }
  if (plan.groups > 1) {
    add_slots(bias, plan.groups, bias_size, by_bias.mutable_data_ptr<float>(), stream);
  }
  add_slots(scale, slots, plan.heads, by_scale.mutable_data_ptr<float>(), stream);
  add_slots(pad, slots, pad_size, to_pad + pad_size / 2, stream);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> window_attention_backward(
    const Tensor grad, const Tensor qkv, const Tensor bias, const Tensor pad_qkv,
    const Tensor scale, int64_t window, int64_t shift, bool cosine) {
  const int64_t bias_size = std::max<int64_t>(bias.numel(), 1), rows = bias.size(1);
  const int64_t tiles = (rows + kTile - 1) / kTile;
  const int64_t groups = std::max<int64_t>(kMostPartial / bias_size, 1);
  const int64_t blocks = std::min<int64_t>(kBlocks, groups * tiles * bias.size(0));
  Plan plan = plan_call(qkv, bias, pad_qkv, scale, window, shift, cosine, blocks);
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == qkv.size(0) && grad.size(1) == qkv.size(1) &&
                      grad.size(2) == qkv.size(2) && grad.size(3) == plan.heads * plan.dim &&
                      grad.scalar_type() == qkv.scalar_type() &&
                      grad.get_device_index() == qkv.get_device_index(),
                  "window_attention_backward: grad must be (B, H, W, N D) in the dtype of qkv.");
  const torch::stable::accelerator::DeviceGuard guard(qkv.get_device_index());
  Tensor by_qkv = torch::stable::new_empty(qkv, qkv.sizes());
  Tensor by_pad = torch::stable::new_zeros(pad_qkv, pad_qkv.sizes());  // that of its q stays so
  if (plan.windows == 0) {
    return {by_qkv, torch::stable::new_zeros(bias, bias.sizes()), by_pad,
            torch::stable::new_zeros(scale, scale.sizes())};
  }
  Tensor by_bias = torch::stable::new_empty(bias, bias.sizes());
  Tensor by_scale = torch::stable::new_empty(scale, scale.sizes());
  const Tensor map = torch::stable::contiguous(qkv), added = torch::stable::contiguous(bias);
  const Tensor pad = torch::stable::contiguous(pad_qkv), factor = torch::stable::contiguous(scale);
  const Tensor given = torch::stable::contiguous(grad);
  for (const Tensor* tensor : {&map, &pad, &given, const_cast<const Tensor*>(&by_qkv)}) {
    plan.whole = plan.whole && on_16_bytes(tensor->const_data_ptr());
  }
  by_type(qkv.scalar_type(), plan.dim, [&](auto zero, auto width) {
    using T = decltype(zero);
    const Inputs<T> in{static_cast<const T*>(map.const_data_ptr()),
                       static_cast<const T*>(pad.const_data_ptr()),
                       static_cast<const T*>(given.const_data_ptr()),
                       added.const_data_ptr<float>(), factor.const_data_ptr<float>()};
    run<T, decltype(width)::value>(plan, in, by_qkv, by_bias, by_pad, by_scale,
                                   current_stream(qkv));
  });
  return {by_qkv, by_bias, by_pad, by_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("window_attention_backward", TORCH_BOX(&window_attention_backward));
}

}  // namespace swin_dense
