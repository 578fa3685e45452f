// The backward of window attention in 16 bits: all that is made of a pair of tokens by one block.
//
// A warp has a strip of 16 queries. It computes the weights and the gradients of the logits, uses
// them for the gradients of its q and of the bias, and leaves them in shared memory, rounded to 16
// bits. From there warps take them by columns, for the gradients of k and v. A window of at most
// 64 tokens, a lone one, has all its keys in one run, and the bias's gradient stays in registers.
// Larger ones meet their keys twice, run by run, first for the sums of the rows. If not all queries
// of a window fit into a block, each of several leaves its part of the gradients of k and v, and
// finish_keys adds them up.
#pragma once

#include "window_results.cuh"
#include "window_strips.cuh"

namespace swin_dense {

template <bool lone>
constexpr int kRun = lone ? 64 : 32;  // keys

template <int D, bool lone>
constexpr int kMostWarps = lone ? 4 : D == 32 ? 16 : 12;

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

template <class T, int D, bool lone>
struct OnceMemory {
  static constexpr int kRows = kRun<lone>, kStride = Tile<T, D>::kStride;
  Share share;
  Part<float4> bias;         // of a lone window
  Part<T> q, grad, k, v;     // as in a Tile
  Part<T> weights, grads;    // of a run: queries by keys, see cell
  Tokens tokens;
  Part<float> q_factor, q_inverse, k_factor, k_inverse, along;  // if length 1 is asked
  Part<float[2][D]> by_pad;  // of k and of v, one for each strip of a run
  Part<float> by_scale;      // one for each warp

  explicit OnceMemory(const Plan& plan)
      : bias(share.take<float4>(lone ? plan.rows / kStrip * (plan.padded / 8) * 32 : 0)),
        q(share.take<T>(plan.rows * kStride)),
        grad(share.take<T>(plan.rows * kStride)),
        k(share.take<T>(plan.keys * kStride)),
        v(share.take<T>(plan.keys * kStride)),
        weights(share.take<T>(plan.rows * kRows)),
        grads(share.take<T>(plan.rows * kRows)),
        tokens(share, plan),
        q_factor(share.take<float>(plan.cosine ? plan.rows : 0)),
        q_inverse(share.take<float>(plan.cosine ? plan.rows : 0)),
        k_factor(share.take<float>(plan.cosine ? plan.padded : 0)),
        k_inverse(share.take<float>(plan.cosine ? plan.padded : 0)),
        along(share.take<float>(plan.cosine ? plan.rows / kStrip * kRows : 0)),
        by_pad(share.take<float[2][D]>(kRows / kStrip)),
        by_scale(share.take<float>(plan.rows / kStrip)) {}

  __device__ const T* key_rows(const T* all, const Plan& plan, int run) const {
    return plan.keys < plan.padded ? all : all + run * kRows * kStride;
  }

  // Eight keys of a row; eight rows of them lie in different banks.
  static __device__ T* cell(T* rows, int row, int eight) {
    return rows + row * kRows + (eight ^ row / (64 / kRows) % (kRows / 8)) * 8;
  }
};

// Brings `count` keys and values of the window from key `first` on.
template <class T, int D, bool lone>
__device__ void bring_keys(const OnceMemory<T, D, lone>& shared, const Plan& plan,
                           const Inputs<T>& in, int head, const Window& window, int first) {
  const int* places = shared.tokens.place + first;
  bring<T, D>({shared.k, shared.v}, plan.keys, places, in.part(plan, window, head, 1),
              static_cast<int64_t>(plan.heads) * plan.dim, plan);
  wait_for_copies();
  __syncthreads();
  if (!plan.cosine) return;
  normalise_rows<T, D>(shared.k, plan.keys, shared.k_factor + first, shared.k_inverse + first);
  __syncthreads();
}

// Brings all of a window, or all but its keys and values if they do not fit.
template <class T, int D, bool lone>
__device__ void bring_window(const OnceMemory<T, D, lone>& shared, const Plan& plan,
                             const Inputs<T>& in, const Job& job, const Window& window) {
  __syncthreads();  // what was there is no longer read
  shared.tokens.lay(plan, window);
  __syncthreads();
  const int* places = shared.tokens.place + job.tile * plan.rows;
  bring<T, D>({shared.q}, plan.rows, places, in.part(plan, window, job.head, 0), 0, plan);
  bring<T, D>({shared.grad}, plan.rows, places, in.of_grad(plan, window, job.head), 0, plan);
  if (plan.keys == plan.padded) {
    bring_keys(shared, plan, in, job.head, window, 0);  // it waits for all
  } else {
    wait_for_copies();
    __syncthreads();
  }
  if (!plan.cosine) return;
  normalise_rows<T, D>(shared.q, plan.rows, shared.q_factor, shared.q_inverse);
  __syncthreads();
}

// The products of a run: of q and k, and of the gradient and v.
template <class T, int D, bool lone>
__device__ void products_of_run(const OnceMemory<T, D, lone>& shared, const Plan& plan, int run,
                                Strip<kRun<lone> / 8>& products, Strip<kRun<lone> / 8>& grads) {
  const Lane at;
  const int first = threadIdx.x / 32 * kStrip * Tile<T, D>::kStride;
  product<T, D>(products, shared.q + first, shared.key_rows(shared.k, plan, run));
  product<T, D>(grads, shared.grad + first, shared.key_rows(shared.v, plan, run));
  if (!plan.cosine) return;
  const float factors[2] = {shared.q_factor[at.row], shared.q_factor[at.row + 8]};
  to_length(products, factors, shared.k_factor + run * kRun<lone>);
}

// What of a row is needed over all its keys.
struct RowSums {
  Softmax softmax;
  float mean = 0.f;   // gradient, weighted
  float share = 0.f;  // 1 / sum of exponentials
  float along = 0.f;  // the gradients of the logits times products
};

// Takes a run into the sums; leaves the exponentials in place of the logits.
template <class T, int eights>
__device__ void see_run(RowSums (&rows)[2], Strip<eights>& logits, const Strip<eights>& grads) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    RowSums& row = rows[half];
    row.softmax.template see<T>(logits, half);
    row.mean *= row.softmax.fade;
#pragma unroll
    for (int n = 0; n < eights; ++n) {
      row.mean += logits[n][half * 2] * grads[n][half * 2] +
                  logits[n][half * 2 + 1] * grads[n][half * 2 + 1];
    }
  }
}

// From exponentials to weights and from the gradients of the weights to those of the logits, which
// times the products come in place of these. The gradient of the scale is their sum: by way of
// that of q it would be rounded to 16 bits.
template <int eights>
__device__ float by_logits(RowSums (&rows)[2], Strip<eights>& weights, Strip<eights>& grads,
                           Strip<eights>& products) {
  float sum[2] = {};
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const RowSums& row = rows[e / 2];
      weights[n][e] *= row.share;
      grads[n][e] = weights[n][e] * (grads[n][e] - row.mean);
      products[n][e] *= grads[n][e];
      sum[e / 2] += products[n][e];
    }
  }
  rows[0].along += sum[0], rows[1].along += sum[1];
  return sum[0] + sum[1];
}

// Leaves a strip of weights and gradients where warps find them by columns, the gradients times
// what q is short of length 1 if that is asked; so are the columns' sums of `scaled`.
template <class T, int D, bool lone>
__device__ void leave_run(const OnceMemory<T, D, lone>& shared, const Plan& plan,
                          const Strip<kRun<lone> / 8>& weights,
                          const Strip<kRun<lone> / 8>& grads,
                          const Strip<kRun<lone> / 8>& scaled) {
  constexpr int eights = kRun<lone> / 8;
  const Lane at;
  const float upper = plan.cosine ? shared.q_factor[at.row] : 1.f;
  const float lower = plan.cosine ? shared.q_factor[at.row + 8] : 1.f;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
    T* weight = shared.cell(shared.weights, at.row, n) + at.column;
    T* grad = shared.cell(shared.grads, at.row, n) + at.column;
    constexpr int below = 8 * OnceMemory<T, D, lone>::kRows;
    *reinterpret_cast<uint32_t*>(weight) = pack<T>(weights[n][0], weights[n][1]);
    *reinterpret_cast<uint32_t*>(weight + below) = pack<T>(weights[n][2], weights[n][3]);
    *reinterpret_cast<uint32_t*>(grad) = pack<T>(grads[n][0] * upper, grads[n][1] * upper);
    *reinterpret_cast<uint32_t*>(grad + below) = pack<T>(grads[n][2] * lower, grads[n][3] * lower);
  }
  if (!plan.cosine) return;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float sum = scaled[n][e] + scaled[n][e + 2];
      for (int step = 4; step <= 16; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      const int key = n * 8 + at.column + e;
      if (threadIdx.x % 32 < 4) shared.along[threadIdx.x / 32 * kRun<lone> + key] = sum;
    }
  }
}

// From the gradient of a row of length 1, times the scale, to that of the row as it came; `along`
// is the product of the two.
template <class T, int eights>
__device__ void through_length(Strip<eights>& grad, int half, const T* row, float factor,
                               float inverse, float along) {
  if (inverse >= 1.f / kSmallestNorm) along = 0.f;  // its length was not what it was divided by
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float x = static_cast<float>(row[n * 8 + threadIdx.x % 4 * 2 + e]) * factor;
      float& number = grad[n][half * 2 + e];
      number = (number - along * x) * inverse;
    }
  }
}

// Writes a part of a row, `dim` numbers from `to` on at most.
template <class T, int eights>
__device__ void write_part(const Strip<eights>& strip, int half, T* to, int dim, bool whole) {
  const int c = threadIdx.x % 4;
  if (to == nullptr) return;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
    const int first = n * 8 + c * 2;
    const float one = strip[n][half * 2], other = strip[n][half * 2 + 1];
    if (whole) {
      if (first < dim) *reinterpret_cast<uint32_t*>(to + first) = pack<T>(one, other);
      continue;
    }
    if (first < dim) to[first] = static_cast<T>(one);
    if (first + 1 < dim) to[first + 1] = static_cast<T>(other);
  }
}

// The gradients of the keys and values of a run, complete: it is summed over all queries. A piece
// of work is a strip of keys, k or v, and `wide` of its D numbers.
template <class T, int D, bool lone>
__device__ void leave_keys(const OnceMemory<T, D, lone>& shared, const Plan& plan,
                           const Results<T>& results, const Job& job, const Window& window,
                           int number, int run, float scale) {
  constexpr int wide = lone ? D : 16, strips = kRun<lone> / kStrip;
  constexpr int pieces = strips * 2 * D / wide;
  constexpr int kStride = Tile<T, D>::kStride;
  const int lane = threadIdx.x % 32, r = lane / 4, warps = plan.rows / kStrip;
  for (int piece = threadIdx.x / 32; piece < pieces; piece += warps) {
    const int strip = piece % strips, first = piece / strips / 2 * wide;
    const int key = run * kRun<lone> + strip * kStrip;
    const bool of_v = piece / strips % 2 == 1;
    if (key >= plan.length) continue;
    T* left = of_v ? shared.weights : shared.grads;
    const T* right = of_v ? shared.grad : shared.q;
    right += lane % 16 * kStride + first + lane / 16 * 8;
    Strip<wide / 8> sum = {};
#pragma unroll 2
    for (int query = 0; query < plan.rows; query += 16) {
      uint32_t a[4], b[4];
      const int row = query + lane / 16 * 8 + lane % 8;
      load_blocks<true>(a, shared.cell(left, row, strip * 2 + lane / 8 % 2));
#pragma unroll
      for (int d = 0; d < wide; d += 16) {
        load_blocks<true>(b, right + query * kStride + d);
        multiply_add<T>(sum[d / 8], a, b[0], b[1]);
        multiply_add<T>(sum[d / 8 + 1], a, b[2], b[3]);
      }
    }
    if (!lone && plan.tiles > 1) {
      float* to = results.keys_at(plan, job, job.tile, number, D) + ((key + r) * 2 + of_v) * D;
#pragma unroll
      for (int n = 0; n < wide / 8; ++n) {
        float* upper = to + first + n * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(upper) = float2{sum[n][0], sum[n][1]};
        *reinterpret_cast<float2*>(upper + 8 * 2 * D) = float2{sum[n][2], sum[n][3]};
      }
      continue;
    }
    const int* places = shared.tokens.place + key + r;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = r + half * 8;
      if (!of_v) {
#pragma unroll
        for (int n = 0; n < wide / 8; ++n) {
          sum[n][half * 2] *= scale, sum[n][half * 2 + 1] *= scale;
        }
        if (plan.cosine) {
          float along = 0.f;
          for (int warp = 0; warp < warps; ++warp) {
            along += shared.along[warp * kRun<lone> + strip * kStrip + row];
          }
          const T* token = shared.key_rows(shared.k, plan, run) + (strip * kStrip + row) * kStride;
          through_length(sum, half, token + first, shared.k_factor[key + row],
                         shared.k_inverse[key + row], along * scale);
        }
      }
      T* to = results.row(plan, window, job.head, of_v ? 2 : 1, places[half * 8]);
      if constexpr (wide == D) write_row<T, D>(sum, half, to, plan);
      else write_part(sum, half, to == nullptr ? to : to + first, plan.dim - first, plan.whole);
    }
    if (window.ragged) {
      add_outside(shared.by_pad[strip][of_v] + first, sum, places[0], places[8]);
    }
  }
}

template <int eights>
__device__ void add_to(Strip<eights>& sum, const Strip<eights>& strip) {
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[n][e] += strip[n][e];
  }
}

// Adds the gradient of a run's bias to that of the block's other windows.
template <int eights>
__device__ void add_bias(float4* to, const Strip<eights>& grads, bool first) {
#pragma unroll
  for (int n = 0; n < eights; ++n) {
    float4 sum = first ? float4{0.f, 0.f, 0.f, 0.f} : to[n * 32];
    sum.x += grads[n][0], sum.y += grads[n][1], sum.z += grads[n][2], sum.w += grads[n][3];
    to[n * 32] = sum;
  }
}

template <int eights>
__device__ void leave_bias(float* to, const Strip<eights>& sums, int length) {
  const Lane at;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = at.row + e / 2 * 8, key = n * 8 + at.column + e % 2;
      if (query < length && key < length) to[query * length + key] = sums[n][e];
    }
  }
}

// The gradient of the block's queries.
template <class T, int D, bool lone>
__device__ void leave_queries(const OnceMemory<T, D, lone>& shared, const Plan& plan,
                              const Results<T>& results, const Job& job, const Window& window,
                              float scale, Strip<D / 8>& by_q, const RowSums (&rows)[2]) {
  const Lane at;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = at.row + half * 8;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) by_q[n][half * 2] *= scale, by_q[n][half * 2 + 1] *= scale;
    if (plan.cosine) {
      through_length(by_q, half, shared.q + row * Tile<T, D>::kStride, shared.q_factor[row],
                     shared.q_inverse[row], sum_of_four(rows[half].along) * scale);
    }
    const int place = shared.tokens.place[job.tile * plan.rows + row];
    T* to = results.row(plan, window, job.head, 0, place);
    write_row<T, D>(by_q, half, to, plan);
  }
}

// `laid` is the bias of all heads, unless windows are lone.
template <class T, int D, bool lone>
__global__ void __launch_bounds__(kMostWarps<D, lone> * 32, lone ? kAtOnce<T, D> : 1)
    backward_once(Plan plan, OnceMemory<T, D, lone> shared, Inputs<T> in, const float4* laid,
                  Results<T> results) {
  constexpr int run_length = kRun<lone>, eights = run_length / 8;
  const Job job(plan);
  const Lane at;
  const float scale = in.scale[job.head];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = plan.rows / kStrip;
  const int pieces = plan.padded / 8 * 32, runs = lone ? 1 : plan.padded / run_length;
  for (int i = threadIdx.x; i < run_length / kStrip * 2 * D; i += blockDim.x) {
    shared.by_pad[i / D / 2][i / D % 2][i % D] = 0.f;
  }
  if (lone) keep_bias<T>(shared.bias, in.bias, plan, job);
  const int64_t slot = static_cast<int64_t>(job.group) * plan.heads + job.head;
  const auto strip_of = [&](int64_t all) {
    return ((all * plan.tiles + job.tile) * warps + warp) * pieces + lane;
  };
  const float4* bias = lone ? shared.bias + warp * pieces + lane : laid + strip_of(job.head);
  float4* to_bias = reinterpret_cast<float4*>(results.bias) + strip_of(slot);
  Strip<eights> by_bias = {};  // of lone windows
  float by_scale = 0.f;
  const int begin = job.begin + plan.from;
  const int end = begin + plan.some < job.end ? begin + plan.some : job.end;
  shared.tokens.start(plan);
  Window window(plan, begin);
  for (int number = begin; number < end; ++number, window.move_on(plan)) {
    bring_window(shared, plan, in, job, window);
    const uint8_t* regions = shared.tokens.region;
    const uint8_t* own = regions + job.tile * plan.rows + at.row;
    const uint8_t of_rows[2] = {own[0], own[8]};
    RowSums rows[2];
    Strip<eights> products, weights, grads;
    Strip<D / 8> by_q = {};
    const auto look_at = [&](int run) {
      if (plan.keys < plan.padded) {
        __syncthreads();
        bring_keys(shared, plan, in, job.head, window, run * run_length);
      }
      products_of_run(shared, plan, run, products, grads);
      to_logits(weights, products, scale * kUnit<T>, bias + run * eights * 32, of_rows,
                regions + run * run_length, window.torn);
    };
#pragma unroll 1
    for (int run = 0; run < runs; ++run) look_at(run), see_run<T>(rows, weights, grads);
#pragma unroll
    for (RowSums& row : rows) {
      row.share = 1.f / sum_of_four(row.softmax.total);
      row.mean = sum_of_four(row.mean) * row.share;
    }
#pragma unroll 1
    for (int run = 0; run < runs; ++run) {
      if (!lone) {
        if (run > 0) __syncthreads();  // the last run's weights are no longer read
        look_at(run);
        exponentiate<T>(weights, 0, rows[0].softmax.base());
        exponentiate<T>(weights, 1, rows[1].softmax.base());
      }
      by_scale += by_logits(rows, weights, grads, products);
      leave_run(shared, plan, weights, grads, products);
      if (lone) add_to(by_bias, grads);
      else add_bias(to_bias + run * eights * 32, grads, number == job.begin);
      if (plan.cosine) to_length(grads, {1.f, 1.f}, shared.k_factor + run * run_length);
      add_weighted<T, D>(by_q, grads, shared.key_rows(shared.k, plan, run));
      __syncthreads();
      leave_keys(shared, plan, results, job, window, number, run, scale);
    }
    leave_queries(shared, plan, results, job, window, scale, by_q, rows);
  }
  if (lone) leave_bias(results.bias + slot * plan.length * plan.length, by_bias, plan.length);
  by_scale = sum_of_warp(by_scale);
  if (lane == 0) shared.by_scale[warp] = by_scale;
  __syncthreads();
  results.leave_scale(plan, job, shared.by_scale, warps);
  if (!lone && plan.tiles > 1) return;  // finish_keys does
  results.template leave_pad<D>(plan, job, shared.by_pad, run_length / kStrip);
}

}  // namespace swin_dense
