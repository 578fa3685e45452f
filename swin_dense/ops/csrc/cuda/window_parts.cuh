// The backward of window attention adds up what blocks with different queries or windows leave.
#pragma once

#include "window_results.cuh"
#include "window_strips.cuh"

namespace swin_dense {

// Adds up, over blocks with different queries, the gradients of k and v. A warp takes a key, a
// block as many keys of each window as there are blocks for it.
template <class T, int D>
__global__ void __launch_bounds__(kThreads)
    finish_keys(Plan plan, Inputs<T> in, Results<T> results) {
  constexpr int kMine = D / 32;  // numbers of a lane
  __shared__ float by_pad[kThreads / 32][2][D];
  const Job job(plan);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float scale = in.scale[job.head];
  const int64_t windows = static_cast<int64_t>(plan.groups) * plan.some;
  const int64_t part = windows * plan.heads * plan.padded * 2 * D;
  float outside[2][kMine] = {};
  const int begin = job.begin + plan.from;
  const int end = begin + plan.some < job.end ? begin + plan.some : job.end;
  Window window(plan, begin);
  for (int number = begin; number < end; ++number, window.move_on(plan)) {
    const Source<T> tokens = in.part(plan, window, job.head, 1);
    const float* from = results.keys_at(plan, job, 0, number, D) + lane;
    for (int key = job.tile * 8 + warp; key < plan.length; key += plan.tiles * 8) {
      const int place = Spot(plan, window, key).place;
      float grad[2][kMine], token[kMine];
#pragma unroll
      for (int i = 0; i < 2 * kMine; ++i) {
        float sum = 0.f;
        const float* of_tile = from + key * 2 * D + i * 32;
        for (int tile = 0; tile < plan.tiles; ++tile, of_tile += part) sum += *of_tile;
        grad[i / kMine][i % kMine] = i < kMine ? sum * scale : sum;
      }
      if (plan.cosine) {
        float square = 0.f, along = 0.f;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          const int d = i * 32 + lane;
          token[i] = d < plan.dim ? static_cast<float>(tokens.at(place)[d]) : 0.f;
          square += token[i] * token[i], along += grad[0][i] * token[i];
        }
        const float inverse = 1.f / fmaxf(sqrtf(sum_of_warp(square)), kSmallestNorm);
        along = inverse >= 1.f / kSmallestNorm ? 0.f : sum_of_warp(along) * inverse;
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          grad[0][i] = (grad[0][i] - along * token[i] * inverse) * inverse;
        }
      }
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        T* to = results.row(plan, window, job.head, which + 1, place);
#pragma unroll
        for (int i = 0; i < kMine; ++i) {
          const int d = i * 32 + lane;
          if (place == kOutside) outside[which][i] += grad[which][i];
          else if (d < plan.dim) to[d] = static_cast<T>(grad[which][i]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2 * kMine; ++i) {
    by_pad[warp][i / kMine][i % kMine * 32 + lane] = outside[i / kMine][i % kMine];
  }
  __syncthreads();
  results.template leave_pad<D>(plan, job, by_pad, kThreads / 32);
}

// to[h, q, k] = the sum of what blocks left, always in the same order.
static __global__ void add_up_laid(const float* slots, Plan plan, int64_t items, float* to) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t size = pieces_of_bias(plan) * 4;
  for (; item < items; item += step) {
    const int key = static_cast<int>(item % plan.length);
    const int query = static_cast<int>(item / plan.length % plan.length);
    const int64_t head = item / plan.length / plan.length;
    const int64_t strip = head * (plan.tiles * plan.rows / kStrip) + query / kStrip;
    const int lane = query % 8 * 4 + key % 8 / 2, number = query % kStrip / 8 * 2 + key % 2;
    const float* from = slots + ((strip * (plan.padded / 8) + key / 8) * 32 + lane) * 4 + number;
    float sum = 0.f;
    for (int group = 0; group < plan.groups; ++group) sum += from[group * size];
    to[item] = sum;
  }
}

}  // namespace swin_dense
