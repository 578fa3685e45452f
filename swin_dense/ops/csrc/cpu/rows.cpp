// Layer norm, GELU and residual sums over the rows of a matrix, on the CPU: checks, and shares of
// the work. The arithmetic is in levels/rows.cpp.
#include "rows.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
typedef const std::optional<Tensor> Maybe;

bool is_half(const Tensor& x) { return x.scalar_type() == ScalarType::BFloat16; }

// A dense matrix of the shape of the call, of float32 or bfloat16.
void* matrix(const Tensor& x, const Rows& call, bool half) {
  STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == call.rows && x.size(1) == call.columns &&
                      x.is_contiguous() &&
                      x.scalar_type() == (half ? ScalarType::BFloat16 : ScalarType::Float),
                  "rows: matrices must be dense, of one shape, and float32 or bfloat16.");
  return x.mutable_data_ptr();
}

const float* floats(Maybe& x, int64_t count) {
  if (!x.has_value()) return nullptr;
  STD_TORCH_CHECK(x->numel() == count && x->is_contiguous() &&
                      x->scalar_type() == ScalarType::Float,
                  "rows: weight and bias must have one float32 for each column, factor for each "
                  "row.");
  return static_cast<const float*>(x->const_data_ptr());
}

Rows describe(const Tensor& x, const Tensor& y) {
  STD_TORCH_CHECK(x.dim() == 2, "rows: matrices have two axes.");
  Rows call{};
  call.rows = x.size(0), call.columns = x.size(1);
  call.half_x = is_half(x), call.half_y = is_half(y);
  return call;
}

// Runs an op over all rows. `sums` has `size` floats for each block of them, if it makes any.
void over_rows(const Rows& call, RowsOp op, float* sums = nullptr, int64_t size = 0) {
  const int64_t blocks = (call.rows + kRowsOfBlock - 1) / kRowsOfBlock;
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kRowsOfBlock;
      op(call, begin, std::min(begin + kRowsOfBlock, call.rows), sums + block * size);
    }
  });
}

// The same; returns the sums it makes over rows, `sets` of them.
Tensor sums_over_rows(const Rows& call, RowsOp op, int64_t sets, const Tensor& like) {
  const int64_t blocks = (call.rows + kRowsOfBlock - 1) / kRowsOfBlock, size = sets * call.columns;
  const std::vector<int64_t> shape{sets, call.columns}, parts{blocks, size};
  Tensor total = torch::stable::new_zeros(like, shape, ScalarType::Float);
  Tensor sums = torch::stable::new_zeros(like, parts, ScalarType::Float);
  float* part = static_cast<float*>(sums.mutable_data_ptr());
  over_rows(call, op, part, size);
  float* to = static_cast<float*>(total.mutable_data_ptr());
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t i = 0; i < size; ++i) to[i] += part[block * size + i];
  }
  return total;
}

void norm_rows(const Tensor x, const Tensor weight, const Tensor bias, double eps, Tensor out) {
  Rows call = describe(x, out);
  call.x = matrix(x, call, call.half_x), call.out = matrix(out, call, call.half_y);
  call.weight = floats(weight, call.columns), call.bias = floats(bias, call.columns);
  call.eps = static_cast<float>(eps);
  over_rows(call, SWIN_DENSE_BEST(rows).norm);
}

Tensor norm_rows_backward(const Tensor grad, const Tensor x, const Tensor weight, double eps,
                          Maybe to, Tensor out) {
  Rows call = describe(x, grad);
  call.x = matrix(x, call, call.half_x), call.y = matrix(grad, call, call.half_y);
  call.to = to.has_value() ? matrix(*to, call, call.half_x) : nullptr;
  call.out = matrix(out, call, call.half_x);
  call.weight = floats(weight, call.columns);
  call.eps = static_cast<float>(eps);
  return sums_over_rows(call, SWIN_DENSE_BEST(rows).norm_backward, 2, x);
}

void gelu_rows(const Tensor x, Maybe bias, Tensor out) {
  Rows call = describe(x, out);
  call.x = matrix(x, call, call.half_y), call.out = matrix(out, call, call.half_y);
  call.bias = floats(bias, call.columns);
  over_rows(call, SWIN_DENSE_BEST(rows).gelu);
}

Tensor gelu_rows_backward(const Tensor grad, const Tensor x, Maybe bias, Tensor active,
                          Tensor out) {
  Rows call = describe(x, grad);
  call.x = matrix(x, call, call.half_y), call.y = matrix(grad, call, call.half_y);
  call.active = matrix(active, call, call.half_y), call.out = matrix(out, call, call.half_y);
  call.bias = floats(bias, call.columns);
  return sums_over_rows(call, SWIN_DENSE_BEST(rows).gelu_backward, 1, x);
}

void add_rows(const Tensor to, const Tensor y, Maybe bias, Maybe factor, Tensor out) {
  Rows call = describe(to, y);
  call.to = matrix(to, call, call.half_x), call.y = matrix(y, call, call.half_y);
  call.out = matrix(out, call, call.half_x);
  call.bias = floats(bias, call.columns), call.factor = floats(factor, call.rows);
  over_rows(call, SWIN_DENSE_BEST(rows).add);
}

Tensor scale_rows(const Tensor x, Maybe factor, Tensor out) {
  Rows call = describe(x, out);
  call.x = matrix(x, call, call.half_x), call.out = matrix(out, call, call.half_y);
  call.factor = floats(factor, call.rows);
  return sums_over_rows(call, SWIN_DENSE_BEST(rows).scale, 1, x);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("norm_rows", TORCH_BOX(&norm_rows));
  m.impl("norm_rows_backward", TORCH_BOX(&norm_rows_backward));
  m.impl("gelu_rows", TORCH_BOX(&gelu_rows));
  m.impl("gelu_rows_backward", TORCH_BOX(&gelu_rows_backward));
  m.impl("add_rows", TORCH_BOX(&add_rows));
  m.impl("scale_rows", TORCH_BOX(&scale_rows));
}

}  // namespace swin_dense
