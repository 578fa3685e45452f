// Window attention on CUDA, backward; the meaning is reference.window_attention_backward.
//
// Nothing was kept of the forward: the weights are computed again. In 16 bits they go from row to
// column order through shared memory (window_once.cuh). float32 has not the room for that: it
// computes them row by row for the gradients of q and the bias, then column by column for those of
// k, v and the scale. A window of at most 64 tokens is read once for both; a larger one goes tile
// by tile through two launches.
//
// What is summed over windows is added up by a block in the order of its windows, and over blocks
// in order too. How the windows are dealt to blocks follows from the sizes alone: every run gives
// the same bits on cards of one architecture. Between architectures the last bits may differ, since
// exponentials and the sums inside a tensor core's product are rounded their own way.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "add_up.cuh"
#include "window_once.cuh"
#include "window_parts.cuh"

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
  const int upper = shared.keys.place[at.row], lower = shared.keys.place[at.row + 8];
  add_outside(outside[0], by_k, upper, lower);
  add_outside(outside[1], by_v, upper, lower);
}

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
  if (!lone && !keys) return;
  const float by_scale = sum_of_warp(carried.by_scale);
  if (threadIdx.x % 32 == 0) shared.by_scale[threadIdx.x / 32] = by_scale;
  __syncthreads();
  results.leave_scale(plan, job, shared.by_scale, kBlock / 32);
  results.leave_pad(plan, job, shared.by_pad, kBlock / 32);
}

// The tensors of a call.
struct Gradients {
  Tensor &qkv, &bias, &pad, &scale;

  Tensor temporary(int64_t size) const { return torch::stable::new_empty(bias, {size}); }
};

// Deals the windows to blocks of `rows` queries which leave `size` sums for the bias.
inline void deal_sums(Plan& plan, int rows, int64_t size) {
  const int64_t groups = std::max<int64_t>(kMostPartial / std::max<int64_t>(size, 1), 1);
  const int64_t tiles = (plan.length + rows - 1) / rows;
  deal(plan, rows, std::min<int64_t>(kBlocks, groups * tiles * plan.heads));
}

// What all ways have in common: room for the sums of blocks, and their adding up. `sums` is of
// what one launch leaves for the next.
template <class T, class Body>
void with_sums(const Plan& plan, const Gradients& to, Tensor bias, Tensor sums,
               cudaStream_t stream, const Body& body) {
  const int64_t slots = static_cast<int64_t>(plan.groups) * plan.tiles;
  const int64_t pad_size = to.pad.numel() / 3 * 2;
  Tensor pad = to.temporary(slots * pad_size), scale = to.temporary(slots * plan.heads);
  body(Results<T>{static_cast<T*>(to.qkv.mutable_data_ptr()), bias.mutable_data_ptr<float>(),
                  pad.mutable_data_ptr<float>(), scale.mutable_data_ptr<float>(),
                  sums.mutable_data_ptr<float>(), sums.mutable_data_ptr<float>()});
  add_slots(scale, slots, plan.heads, to.scale.mutable_data_ptr<float>(), stream);
  add_slots(pad, slots, pad_size, static_cast<T*>(to.pad.mutable_data_ptr()) + pad_size / 2,
            stream);
}

// Tile by tile: in one launch if a window is one tile, else in two.
template <class T, int D>
void by_tiles(Plan plan, const Inputs<T>& in, const Gradients& to, cudaStream_t stream) {
  const int64_t size = to.bias.numel();
  deal_sums(plan, kTile, size);
  // One group's sum of the bias is the result.
  Tensor bias = plan.groups == 1 ? to.bias : to.temporary(plan.groups * size);
  const int64_t queries = static_cast<int64_t>(plan.windows) * plan.heads * plan.tiles * kTile;
  const Tensor sums = to.temporary(plan.tiles > 1 ? queries * 3 : 0);
  constexpr size_t shared = sizeof(BackwardMemory<T, D>);
  static_assert(shared <= kMostShared);
  with_sums<T>(plan, to, bias, sums, stream, [&](const Results<T>& results) {
    if (plan.tiles > 1) {
      const auto many = backward<T, D, false>;
      start(many, plan, kBlock, shared, stream, plan, in, results, true, false);
      start(many, plan, kBlock, shared, stream, plan, in, results, false, true);
    } else {
      start(backward<T, D, true>, plan, kBlock, shared, stream, plan, in, results, true, true);
    }
  });
  if (plan.groups > 1) {
    add_slots(bias, plan.groups, size, to.bias.mutable_data_ptr<float>(), stream);
  }
}

// Deals a call to blocks with as many of a window's queries as fit, see window_once.cuh.
template <class T, int D, bool lone>
void deal_once(Plan& plan) {
  constexpr int run = kRun<lone>;
  const int strips = round_up(plan.length, kStrip) / kStrip;
  plan.padded = round_up(plan.length, run);
  for (int tiles = 1;; ++tiles) {
    const int warps = (strips + tiles - 1) / tiles;
    if (warps > kMostWarps<D, lone>) continue;
    const int64_t rows = static_cast<int64_t>(warps) * tiles * kStrip;
    deal_sums(plan, warps * kStrip, plan.heads * rows * plan.padded);
    for (const int keys : {plan.padded, run}) {
      plan.keys = keys;
      if (OnceMemory<T, D, lone>(plan).share.size <= kMostShared) return;
    }
  }
}

// Each pair of tokens by one block only.
template <class T, int D, bool lone>
void once(Plan plan, const Inputs<T>& in, const Gradients& to, const Tensor& bias,
          cudaStream_t stream) {
  deal_once<T, D, lone>(plan);
  const OnceMemory<T, D, lone> shared(plan);
  const int64_t size = lone ? to.bias.numel() : pieces_of_bias(plan) * 4;
  Tensor slots = lone && plan.groups == 1 ? to.bias : to.temporary(plan.groups * size);
  const Tensor laid = lone ? bias : laid_bias<T>(bias, plan, stream);
  // What blocks with other queries of the same window leave for its keys, of some windows at once.
  const int64_t keys_at_once = static_cast<int64_t>(plan.tiles) * plan.groups * plan.padded;
  const int64_t each = keys_at_once * plan.heads * 2 * D;
  if (plan.tiles > 1) plan.some = std::clamp<int64_t>(kMostPartial * 4 / each, 1, plan.each);
  const Tensor keys = to.temporary(plan.tiles > 1 ? each * plan.some : 0);
  with_sums<T>(plan, to, slots, keys, stream, [&](const Results<T>& results) {
    for (int from = 0; from != plan.each; from = std::min(from + plan.some, plan.each)) {
      plan.from = from;
      start(backward_once<T, D, lone>, plan, plan.rows * 2, shared.share.size, stream, plan,
            shared, in, reinterpret_cast<const float4*>(laid.const_data_ptr<float>()), results);
      if (plan.tiles > 1) start(finish_keys<T, D>, plan, kThreads, 0, stream, plan, in, results);
    }
  });
  float* sum = to.bias.mutable_data_ptr<float>();
  if (!lone) {
    const int64_t items = to.bias.numel();
    add_up_laid<<<blocks_for(items), kThreads, 0, stream>>>(slots.const_data_ptr<float>(), plan,
                                                            items, sum);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  } else if (plan.groups > 1) {
    add_slots(slots, plan.groups, size, sum, stream);
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> window_attention_backward(
    const Tensor grad, const Tensor qkv, const Tensor bias, const Tensor pad_qkv,
    const Tensor scale, int64_t window, int64_t shift, bool cosine) {
  Plan plan = plan_call(qkv, bias, pad_qkv, scale, window, shift, cosine);
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
    constexpr int D = decltype(width)::value;
    const Inputs<T> in{static_cast<const T*>(map.const_data_ptr()),
                       static_cast<const T*>(pad.const_data_ptr()),
                       static_cast<const T*>(given.const_data_ptr()),
                       added.const_data_ptr<float>(), factor.const_data_ptr<float>()};
    const Gradients to{by_qkv, by_bias, by_pad, by_scale};
    const cudaStream_t stream = current_stream(qkv);
    if constexpr (sizeof(T) == 2) {
      if (plan.length <= kRun<true>) once<T, D, true>(plan, in, to, added, stream);
      else once<T, D, false>(plan, in, to, added, stream);
    } else {
      by_tiles<T, D>(plan, in, to, stream);
    }
  });
  return {by_qkv, by_bias, by_pad, by_scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("window_attention_backward", TORCH_BOX(&window_attention_backward));
}

}  // namespace swin_dense
