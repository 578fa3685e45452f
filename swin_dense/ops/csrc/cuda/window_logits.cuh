// What both directions of window attention start with: the sizes of a call, the tiles of a block
// and how they are filled, logits and their softmax.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "launch.cuh"
#include "window_tiles.cuh"

namespace swin_dense {

template <class T>
struct Inputs {
  const T *qkv, *pad, *grad;
  const float *bias, *scale;

  // Of q, k and v: `which` 0, 1 and 2. Nobody asks what a token outside the map sees.
  __device__ Source<T> part(const Plan& plan, const Window& window, int head, int which) const {
    const int64_t row = static_cast<int64_t>(plan.heads) * plan.dim;
    const int64_t at = which * row + static_cast<int64_t>(head) * plan.dim;
    return {qkv + window.image * 3 * row + at, 3 * row, which == 0 ? nullptr : pad + at};
  }

  __device__ Source<T> of_grad(const Plan& plan, const Window& window, int head) const {
    const int64_t row = static_cast<int64_t>(plan.heads) * plan.dim;
    return {grad + window.image * row + static_cast<int64_t>(head) * plan.dim, row, nullptr};
  }
};

template <class T, int D>
struct Memory {
  Tile<T, D> q, k, v;
  Rows queries, keys;
  alignas(16) float bias[kTile][kBiasStride];
};

struct Wanted {
  bool queries, keys, bias;
  int query_tile, key_tile;
};

// Fills the tiles that are wanted. `grad` is nullptr in the forward.
template <class T, int D>
__device__ void load(Memory<T, D>& shared, Tile<T, D>* grad, const Plan& plan,
                     const Inputs<T>& in, int head, const Window& window, const Wanted& wanted) {
  __syncthreads();  // what was there is no longer read
  const int row = threadIdx.x % kTile;
  const bool first_half = threadIdx.x < kTile;
  if (first_half && wanted.queries) shared.queries.lay(plan, window, wanted.query_tile, row);
  if (!first_half && wanted.keys) shared.keys.lay(plan, window, wanted.key_tile, row);
  __syncthreads();
  if (wanted.bias) {
    const float* of_head = in.bias + static_cast<int64_t>(head) * plan.length * plan.length;
    put_bias(shared.bias, of_head, plan.length, wanted.query_tile, wanted.key_tile);
  }
  const auto part = [&](int which) { return in.part(plan, window, head, which); };
  if (plan.whole) {
    Pieces<T, D> q, k, v, g;
    if (wanted.queries) q.take(shared.queries, part(0), plan);
    if (wanted.queries && grad) g.take(shared.queries, in.of_grad(plan, window, head), plan);
    if (wanted.keys) k.take(shared.keys, part(1), plan), v.take(shared.keys, part(2), plan);
    if (wanted.queries) q.put(shared.q);
    if (wanted.queries && grad) g.put(*grad);
    if (wanted.keys) k.put(shared.k), v.put(shared.v);
  } else {
    if (wanted.queries) copy(shared.q, shared.queries, part(0), plan);
    if (wanted.queries && grad) {
      copy(*grad, shared.queries, in.of_grad(plan, window, head), plan);
    }
    if (wanted.keys) copy(shared.k, shared.keys, part(1), plan);
    if (wanted.keys) copy(shared.v, shared.keys, part(2), plan);
  }
  __syncthreads();
  if (!plan.cosine) return;
  const auto shorten = [row](Tile<T, D>& tile, Rows& rows) {
    const Length length = normalise<T, D>(tile.row[row]);
    rows.inverse[row] = length.inverse, rows.factor[row] = length.factor;
  };
  if (first_half && wanted.queries) shorten(shared.q, shared.queries);
  if (!first_half && wanted.keys) shorten(shared.k, shared.keys);
  __syncthreads();
}

// Logits of 16-bit types are powers of 2, not of e: they are multiplied by this.
template <class T>
constexpr float kUnit = sizeof(T) == 2 ? 1.4426950408889634f : 1.f;

template <class T>
__device__ float exponential(float logit) {
  if constexpr (sizeof(T) == 2) return power_of_two(logit);
  else return expf(logit);
}

// Turns products, queries by keys, into logits.
__device__ inline void to_logits(Strip<kEights>& strip, float scale, const Rows& rows,
                                 const Rows& columns, const float (&bias)[kTile][kBiasStride],
                                 const Plan& plan, bool torn) {
  const Lane at;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = at.row + half * 8;
    const float factor = scale * rows.factor[row];
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
      const int column = n * 8 + at.column;
      const float2 added = *reinterpret_cast<const float2*>(&bias[row][column]);
      float &first = strip[n][half * 2], &second = strip[n][half * 2 + 1];
      if (plan.cosine) first *= columns.factor[column], second *= columns.factor[column + 1];
      first = first * factor + added.x, second = second * factor + added.y;
      if (torn) {
        if (rows.region[row] != columns.region[column]) first = -INFINITY;
        if (rows.region[row] != columns.region[column + 1]) second = -INFINITY;
      }
    }
  }
}

template <class T, int eights>
__device__ void exponentiate(Strip<eights>& logits, int half, float base) {
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = half * 2; e < half * 2 + 2; ++e) {
      logits[n][e] = exponential<T>(logits[n][e] - base);
    }
  }
}

// The softmax of one row, of which a lane has a quarter, tile after tile.
struct Softmax {
  float most = -INFINITY;  // of the logits so far, in all four lanes
  float total = 0.f;       // of this lane's exponentials
  float fade = 0.f;        // what a sum from before the last tile is to be multiplied by

  // Before anything is seen any number will do, but -inf less -inf is none.
  __device__ float base() const { return most == -INFINITY ? 0.f : most; }

  // Leaves the exponentials in place of the logits.
  template <class T, int eights>
  __device__ void see(Strip<eights>& logits, int half) {
    const float before = most;
#pragma unroll
    for (int n = 0; n < eights; ++n) {
      most = fmaxf(most, fmaxf(logits[n][half * 2], logits[n][half * 2 + 1]));
    }
    most = most_of_four(most);
    fade = exponential<T>(before - base());
    exponentiate<T>(logits, half, base());
    total *= fade;
#pragma unroll
    for (int n = 0; n < eights; ++n) total += logits[n][half * 2] + logits[n][half * 2 + 1];
  }
};

// Calls body with a zero of the type of qkv, and with D, what `dim` is rounded up to.
template <class Body>
void by_type(torch::headeronly::ScalarType dtype, int dim, const Body& body) {
  const auto by_dim = [&](auto zero) {
    if (dim <= 32) body(zero, std::integral_constant<int, 32>());
    else body(zero, std::integral_constant<int, 64>());
  };
  using torch::headeronly::ScalarType;
  if (dtype == ScalarType::Half) by_dim(c10::Half(0.f));
  else if (dtype == ScalarType::BFloat16) by_dim(c10::BFloat16(0.f));
  else by_dim(0.f);
}

inline bool on_16_bytes(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Deals the windows to groups so that there are about `blocks` blocks, each of `rows` queries.
inline void deal(Plan& plan, int rows, int64_t blocks) {
  plan.rows = rows;
  plan.tiles = (plan.length + rows - 1) / rows;
  const int64_t most = std::max<int64_t>(blocks / (int64_t(plan.tiles) * plan.heads), 1);
  plan.each = static_cast<int>(std::max<int64_t>((plan.windows + most - 1) / most, 1));
  plan.groups = (plan.windows + plan.each - 1) / plan.each;
  plan.from = 0, plan.some = plan.each;
}

// The sizes of a call, which is not yet dealt to blocks.
inline Plan plan_call(const torch::stable::Tensor& qkv, const torch::stable::Tensor& bias,
                      const torch::stable::Tensor& pad, const torch::stable::Tensor& scale,
                      int64_t window, int64_t shift, bool cosine) {
  using torch::headeronly::ScalarType;
  const ScalarType dtype = qkv.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16,
                  "window_attention: qkv must be float32, float16 or bfloat16.");
  STD_TORCH_CHECK(qkv.dim() == 6 && qkv.size(3) == 3,
                  "window_attention: qkv must be (B, H, W, 3, N, D).");
  const int64_t height = qkv.size(1), width = qkv.size(2), heads = qkv.size(4), dim = qkv.size(5);
  STD_TORCH_CHECK(window >= 1 && window <= 32 && shift >= 0 && shift < window,
                  "window_attention: windows are of 1 to 32 tokens, shifts less than a window.");
  STD_TORCH_CHECK(dim >= 1 && dim <= 64 && heads >= 1 && heads < 1 << 16 && height >= 1 &&
                      width >= 1 && height < 1 << 24 && width < 1 << 24 &&
                      height * width < std::numeric_limits<int>::max(),
                  "window_attention: heads have 1 to 64 channels, maps less than 2**31 tokens.");
  const int64_t length = window * window;
  STD_TORCH_CHECK(bias.dim() == 3 && bias.size(0) == heads && bias.size(1) == length &&
                      bias.size(2) == length && bias.scalar_type() == ScalarType::Float,
                  "window_attention: bias must be (N, L, L) in float32.");
  STD_TORCH_CHECK(pad.dim() == 3 && pad.size(0) == 3 && pad.size(1) == heads &&
                      pad.size(2) == dim && pad.scalar_type() == dtype,
                  "window_attention: pad_qkv must be (3, N, D) in the dtype of qkv.");
  STD_TORCH_CHECK(scale.dim() == 1 && scale.size(0) == heads &&
                      scale.scalar_type() == ScalarType::Float,
                  "window_attention: scale must be (N,) in float32.");
  STD_TORCH_CHECK(bias.get_device_index() == qkv.get_device_index() &&
                      pad.get_device_index() == qkv.get_device_index() &&
                      scale.get_device_index() == qkv.get_device_index(),
                  "window_attention: all tensors must be on one device.");
  const int64_t rows = (height + window - 1) / window, columns = (width + window - 1) / window;
  const int64_t windows = qkv.size(0) * rows * columns;
  STD_TORCH_CHECK(windows < std::numeric_limits<int>::max() / 2,
                  "window_attention: there are too many windows for one call.");
  const auto number = [](int64_t n) { return static_cast<int>(n); };
  const int64_t bytes = dtype == ScalarType::Float ? 4 : 2;
  return {number(height), number(width), number(heads), number(dim), number(window),
          number(shift), number(length), number(rows * window), number(columns * window),
          number(windows), cosine, dim * bytes % 16 == 0};
}

constexpr size_t kMostShared = 99 * 1024;  // bytes that sm_86, sm_89 and sm_120 have for a block

// A kernel's launch; its dynamic shared memory may be more than is allowed unasked.
template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), const Plan& plan, unsigned threads, size_t shared,
           cudaStream_t stream, const Arguments&... arguments) {
  constexpr auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
  STD_TORCH_CHECK(shared <= kMostShared, "window_attention: more shared memory than a block has.");
  const auto blocks = static_cast<unsigned>(plan.groups) * plan.tiles * plan.heads;
  STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, attribute, static_cast<int>(shared)));
  kernel<<<blocks, threads, shared, stream>>>(arguments...);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace swin_dense
