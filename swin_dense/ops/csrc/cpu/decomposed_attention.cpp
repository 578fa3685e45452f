// Attention with terms for rows and columns on the CPU: checks, and shares of the work. Heads are
// independent: the result is the same for any number of threads.
#include "decomposed_attention.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <memory>
#include <tuple>

#include "tensor_checks.h"
#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

const float* floats(const Tensor& x, int64_t count, const char* what) {
  check_dense(x, ScalarType::Float, count, what);
  return static_cast<const float*>(x.const_data_ptr());
}

float* result(Tensor& x) { return static_cast<float*>(x.mutable_data_ptr()); }

DecomposedAttention describe(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& rows,
                             const Tensor& columns) {
  STD_TORCH_CHECK(q.dim() == 3 && rows.dim() == 3 && columns.dim() == 3 && rows.size(2) > 0 &&
                      columns.size(2) > 0 && q.size(2) > 0,
                  "decomposed_heads: q, rows and columns must be (heads, queries, channels).");
  DecomposedAttention call{};
  call.heads = q.size(0), call.queries = q.size(1), call.head_dim = q.size(2);
  call.height = rows.size(2), call.width = columns.size(2);
  const int64_t all = call.heads * call.queries;
  const int64_t map = call.heads * call.height * call.width * call.head_dim;
  call.q = floats(q, all * call.head_dim, "decomposed_heads: q");
  call.k = floats(k, map, "decomposed_heads: k"), call.v = floats(v, map, "decomposed_heads: v");
  call.rows = floats(rows, all * call.height, "decomposed_heads: rows");
  call.columns = floats(columns, all * call.width, "decomposed_heads: columns");
  return call;
}

Tensor decomposed_heads(const Tensor q, const Tensor k, const Tensor v, const Tensor rows,
                        const Tensor columns) {
  DecomposedAttention call = describe(q, k, v, rows, columns);
  Tensor out = torch::stable::empty_like(q);
  if (out.numel() == 0) return out;
  call.out = result(out);
  const DecomposedAttentionLevel& use = SWIN_DENSE_BEST(decomposed_attention);
  const int64_t scratch = use.scratch(call), items = call.heads * use.blocks(call);
  torch::stable::parallel_for(0, items, 1, [&](int64_t first, int64_t last) {
    const std::unique_ptr<float[]> own(new float[scratch]);
    use.forward(call, first, last, own.get());
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> decomposed_heads_backward(
    const Tensor grad, const Tensor q, const Tensor k, const Tensor v, const Tensor rows,
    const Tensor columns) {
  DecomposedAttention call = describe(q, k, v, rows, columns);
  call.grad = floats(grad, q.numel(), "decomposed_heads: grad");
  Tensor by_q = torch::stable::empty_like(q), by_k = torch::stable::empty_like(k);
  Tensor by_v = torch::stable::empty_like(v), by_rows = torch::stable::empty_like(rows);
  Tensor by_columns = torch::stable::empty_like(columns);
  call.by_q = result(by_q), call.by_k = result(by_k), call.by_v = result(by_v);
  call.by_rows = result(by_rows), call.by_columns = result(by_columns);
  const DecomposedAttentionLevel& use = SWIN_DENSE_BEST(decomposed_attention);
  const int64_t scratch = use.scratch(call);
  torch::stable::parallel_for(0, call.heads, 1, [&](int64_t first, int64_t last) {
    const std::unique_ptr<float[]> own(new float[scratch]);
    for (int64_t head = first; head < last; ++head) use.backward(call, head, own.get());
  });
  return std::make_tuple(by_q, by_k, by_v, by_rows, by_columns);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("decomposed_heads", TORCH_BOX(&decomposed_heads));
  m.impl("decomposed_heads_backward", TORCH_BOX(&decomposed_heads_backward));
}

}  // namespace swin_dense
