// What every kernel of this folder needs to start: the stream of the caller, a grid for n items.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <cstdint>

namespace swin_dense {

inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

constexpr int kThreads = 256;

// Blocks for a grid-stride loop over `items`.
inline unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>(
      std::min<int64_t>(std::max<int64_t>((items + kThreads - 1) / kThreads, 1), 1 << 16));
}

}  // namespace swin_dense
