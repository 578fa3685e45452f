// What kernels ask of the tensors they are given.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <string>

#include "stored.h"

namespace swin_dense {

inline Stored stored_as(const torch::stable::Tensor& x, const char* op) {
  using torch::headeronly::ScalarType;
  const ScalarType type = x.scalar_type();
  if (type == ScalarType::BFloat16) return Stored::bfloat16;
  if (type == ScalarType::Half) return Stored::float16;
  if (type == ScalarType::Double) return Stored::float64;
  STD_TORCH_CHECK(type == ScalarType::Float, std::string(op) +
                  ": computes in float32, float64, bfloat16 and float16.");
  return Stored::float32;
}

inline torch::headeronly::ScalarType summed_as(Stored stored) {
  using torch::headeronly::ScalarType;
  return stored == Stored::float64 ? ScalarType::Double : ScalarType::Float;
}

inline void check_dense(const torch::stable::Tensor& x, torch::headeronly::ScalarType type,
                        int64_t count, const char* what) {
  STD_TORCH_CHECK(x.is_contiguous() && x.scalar_type() == type && x.numel() == count,
                  std::string(what) + " must be dense, of the right dtype and size.");
}

}  // namespace swin_dense
