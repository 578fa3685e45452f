// The functions of csrc/cuda/tensor_core.cuh in plain C++; what they mean is said there.
#pragma once

#include "cuda_on_cpu.h"

namespace swin_dense {

template <class T>
float number_of(uint32_t word, int half) {
  T number(0.f);
  number.x = static_cast<uint16_t>(word >> (16 * half));
  return static_cast<float>(number);
}

template <bool transposed>
void load_blocks(uint32_t (&to)[4], const void* row) {
  cuda_on_cpu::check_address<16>(row);
  const int lane = cuda_on_cpu::my_lane(), r = lane / 4, c = lane % 4;
  cuda_on_cpu::Warp& warp = cuda_on_cpu::my_warp();
  std::memcpy(warp.brought[warp.count % 2][lane], &row, sizeof(row));
  const unsigned set = cuda_on_cpu::meet(warp, "ldmatrix");
  for (int i = 0; i < 4; ++i) {
    uint16_t two[2];
    for (int e = 0; e < 2; ++e) {
      const char* at;
      std::memcpy(&at, warp.brought[set][i * 8 + (transposed ? 2 * c + e : r)], sizeof(at));
      std::memcpy(&two[e], at + 2 * (transposed ? r : 2 * c + e), 2);
    }
    to[i] = two[0] | static_cast<uint32_t>(two[1]) << 16;
  }
}

template <class T>
void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const int lane = cuda_on_cpu::my_lane(), r = lane / 4, c = lane % 4;
  cuda_on_cpu::Warp& warp = cuda_on_cpu::my_warp();
  auto& left = warp.a[warp.count % 2];
  auto& right = warp.b[warp.count % 2];
  for (int e = 0; e < 2; ++e) {
    left[r][2 * c + e] = number_of<T>(a[0], e), left[r + 8][2 * c + e] = number_of<T>(a[1], e);
    left[r][2 * c + 8 + e] = number_of<T>(a[2], e);
    left[r + 8][2 * c + 8 + e] = number_of<T>(a[3], e);
    right[2 * c + e][r] = number_of<T>(b0, e), right[2 * c + 8 + e][r] = number_of<T>(b1, e);
  }
  cuda_on_cpu::meet(warp, "mma");
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) sum[i] += left[r + i / 2 * 8][k] * right[k][2 * c + i % 2];
  }
}

template <class T>
uint32_t pack(float first, float second) {
  return static_cast<T>(first).x | static_cast<uint32_t>(static_cast<T>(second).x) << 16;
}

inline void start_copy(void* to, const void* from, bool there) {
  cuda_on_cpu::check_address<16>(to);
  if (there) cuda_on_cpu::check_address<16>(from);
  cuda_on_cpu::self->copies.push_back({to, there ? from : nullptr});
}

inline void wait_for_copies() {
  for (const auto& [to, from] : cuda_on_cpu::self->copies) {
    if (from == nullptr) std::memset(to, 0, 16);
    else std::memcpy(to, from, 16);
  }
  cuda_on_cpu::self->copies.clear();
}

inline float power_of_two(float x) { return std::exp2(x); }

}  // namespace swin_dense
