// Where the backward of window attention leaves its results.
#pragma once

#include "window_logits.cuh"

namespace swin_dense {

// `groups` is how many sums over windows there are of each, one for each block or group of them.
template <class T>
struct Results {
  T* qkv;
  float* bias;   // (groups, N, L, L), or (groups, N, strips, eights, lanes, 4) as lay_bias has it
  float* pad;    // (groups, tiles, 2, N, D)
  float* scale;  // (groups, tiles, N)
  float* sums;   // (windows, N, tiles, 64, 3): of each query; if there are several tiles
  float* keys;   // (tiles, groups, some, N, padded, 2, D), of k and v; see window_once.cuh

  __device__ int64_t sums_at(const Plan& plan, int number, int head, int tile) const {
    return ((static_cast<int64_t>(number) * plan.heads + head) * plan.tiles + tile) * kTile;
  }

  // The k and v of the window's first key.
  __device__ float* keys_at(const Plan& plan, const Job& job, int tile, int number, int D) const {
    const int64_t window = (static_cast<int64_t>(tile) * plan.groups + job.group) * plan.some +
                           (number - job.begin - plan.from);
    return keys + (window * plan.heads + job.head) * plan.padded * 2 * D;
  }

  __device__ T* row(const Plan& plan, const Window& window, int head, int which, int place) const {
    if (place < 0) return nullptr;
    return qkv + (((window.image + place) * 3 + which) * plan.heads + head) * plan.dim;
  }

  // The block's sum of the scale, of so many parts.
  __device__ void leave_scale(const Plan& plan, const Job& job, const float* by_scale,
                              int parts) const {
    if (threadIdx.x > 0) return;
    float& sum = scale[(job.group * plan.tiles + job.tile) * plan.heads + job.head];
    if (plan.from == 0) sum = 0.f;
    for (int part = 0; part < parts; ++part) sum += by_scale[part];
  }

  // The block's sums of pad_qkv, of k and of v.
  template <int D>
  __device__ void leave_pad(const Plan& plan, const Job& job, const float (*by_pad)[2][D],
                            int parts) const {
    const int64_t slot = static_cast<int64_t>(job.group) * plan.tiles + job.tile;
    for (int i = threadIdx.x; i < 2 * D; i += blockDim.x) {
      const int which = i / D, d = i % D;
      if (d >= plan.dim) continue;
      float& sum = pad[((slot * 2 + which) * plan.heads + job.head) * plan.dim + d];
      if (plan.from == 0) sum = 0.f;
      for (int part = 0; part < parts; ++part) sum += by_pad[part][which][d];
    }
  }
};

// Adds up, over a strip, the rows of tokens outside the map; places are those of the lane's rows.
template <int eights>
__device__ void add_outside(float* to, const Strip<eights>& strip, int upper, int lower) {
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float sum = (upper == kOutside ? strip[n][e] : 0.f) +
                  (lower == kOutside ? strip[n][2 + e] : 0.f);
      for (int step = 4; step <= 16; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      if (threadIdx.x % 32 < 4) to[n * 8 + threadIdx.x % 4 * 2 + e] += sum;
    }
  }
}

}  // namespace swin_dense
