// Sums that come out the same in every run: blocks leave their parts, and these add them in order.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "launch.cuh"

namespace swin_dense {

constexpr int kAcross = 32, kDown = 8;  // of a block of add_up

// to[i] = the sum of the slots' numbers i, always in the same order.
template <class T>
__global__ void add_up(const float* slots, int64_t count, int64_t items, T* to) {
  __shared__ float parts[kDown][kAcross];
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kAcross + threadIdx.x;
  float sum = 0.f;
  if (item < items) {
    for (int64_t slot = threadIdx.y; slot < count; slot += kDown) sum += slots[slot * items + item];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || item >= items) return;
  for (int row = 1; row < kDown; ++row) sum += parts[row][threadIdx.x];
  to[item] = static_cast<T>(sum);
}

template <class T>
void add_slots(const torch::stable::Tensor& slots, int64_t count, int64_t items, T* to,
               cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((items + kAcross - 1) / kAcross);
  const float* from = slots.const_data_ptr<float>();
  add_up<T><<<blocks, dim3(kAcross, kDown), 0, stream>>>(from, count, items, to);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace swin_dense
