// Neighborhood attention on the CPU: checks, shares of the work, and which level does it.
//
// The arithmetic is in levels/neighborhood_attention.cpp. Tasks depend on the sizes only, and what
// several of them add to the same keys is added up in their order: nothing depends on the number
// of threads.
#include "neighborhood_attention.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <tuple>
#include <vector>

#include "tensor_checks.h"
#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kTasks = 32;  // at least, where there are as many
constexpr int64_t kRows = 8;    // of a task, at least: those at its ends read rows of its neighbours

class Scratch {
 public:
  explicit Scratch(int64_t bytes) : data_(static_cast<char*>(::operator new[](bytes, kAlignment))) {}
  void* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(char* data) const { ::operator delete[](data, kAlignment); }
  };
  std::unique_ptr<char[], Free> data_;
};

// Dense but for the distance between positions, as q, k and v of one projection are.
Tensor with_even_steps(const Tensor& x) {
  const int64_t step = x.stride(2);
  const bool even = x.stride(4) == 1 && x.stride(3) == x.size(4) &&
                    step >= x.size(3) * x.size(4) && x.stride(1) == x.size(2) * step &&
                    x.stride(0) == x.size(1) * x.size(2) * step;
  return even ? x : torch::stable::contiguous(x);
}

NeighborhoodAttention describe(const Tensor& query, const Tensor& key, const Tensor& value,
                               const Tensor& table, int64_t window, int64_t down, int64_t across,
                               double scale) {
  STD_TORCH_CHECK(query.dim() == 5, "neighborhood_attention: query must be (B, H, W, N, D).");
  for (const Tensor* other : {&key, &value}) {
    STD_TORCH_CHECK(other->dim() == 5 && other->scalar_type() == query.scalar_type(),
                    "neighborhood_attention: key and value must be of query's shape and dtype.");
    for (int64_t axis = 0; axis < 5; ++axis) {
      STD_TORCH_CHECK(other->size(axis) == query.size(axis),
                      "neighborhood_attention: key and value must be of query's shape and dtype.");
    }
  }
  NeighborhoodAttention call{};
  call.batch = query.size(0), call.height = query.size(1), call.width = query.size(2);
  call.heads = query.size(3), call.channels = query.size(4);
  call.window = window, call.down = down, call.across = across, call.scale = scale;
  call.stored = stored_as(query, "neighborhood_attention");
  STD_TORCH_CHECK(call.heads > 0 && call.channels > 0 && window >= 1 && window % 2 == 1 &&
                      window < (1 << 15) && down >= 1 && across >= 1 &&
                      down <= call.height / window && across <= call.width / window,
                  "neighborhood_attention: window must be odd, and times the dilation at most the "
                  "side of the map.");
  STD_TORCH_CHECK(call.width < (1 << 24), "neighborhood_attention: a row has fewer than 2^24 "
                                          "positions.");
  STD_TORCH_CHECK(table.dim() == 3 && table.size(0) == call.heads &&
                      table.size(1) == call.side() && table.size(2) == call.side() &&
                      table.scalar_type() == summed_as(call.stored),
                  "neighborhood_attention: table must be (N, 2 * window - 1, 2 * window - 1), "
                  "float32, or float64 where query is.");
  const int64_t classes = std::max<int64_t>(call.batch * down * call.heads, 1);
  const int64_t most = std::max<int64_t>(call.rows(0) / kRows, 1);
  const int64_t wanted = std::min((kTasks + classes - 1) / classes, most);
  call.chunk = (call.rows(0) + wanted - 1) / wanted;
  call.chunks = (call.rows(0) + call.chunk - 1) / call.chunk;
  return call;
}

// What a call reads; it has to live as long.
struct Inputs {
  Tensor query, key, value, table;

  Inputs(NeighborhoodAttention& call, const Tensor& q, const Tensor& k, const Tensor& v,
         const Tensor& t)
      : query(with_even_steps(q)),
        key(with_even_steps(k)),
        value(with_even_steps(v)),
        table(torch::stable::contiguous(t)) {
    call.query = query.const_data_ptr(), call.query_step = query.stride(2);
    call.key = key.const_data_ptr(), call.key_step = key.stride(2);
    call.value = value.const_data_ptr(), call.value_step = value.stride(2);
    call.table = table.const_data_ptr();
  }
};

int64_t bytes_of(const NeighborhoodAttention& call) {
  return call.stored == Stored::float64 ? 8 : 4;
}

Tensor neighborhood_attention(const Tensor query, const Tensor key, const Tensor value,
                              const Tensor table, int64_t window, int64_t down, int64_t across,
                              double scale) {
  NeighborhoodAttention call =
      describe(query, key, value, table, window, down, across, scale);
  Tensor out = torch::stable::new_empty(query, query.sizes());
  if (out.numel() == 0) return out;
  const Inputs inputs(call, query, key, value, table);
  call.out = out.mutable_data_ptr();
  const NeighborhoodAttentionLevel& use = SWIN_DENSE_BEST(neighborhood_attention);
  const int64_t scratch = use.scratch(call, false) * bytes_of(call);
  torch::stable::parallel_for(0, call.tasks(), 1, [&](int64_t first, int64_t last) {
    const Scratch own(scratch);
    for (int64_t task = first; task < last; ++task) use.forward(call, task, own.get());
  });
  return out;
}

// The sums of the tasks' tables, in their order.
template <class S>
void add_tables(const NeighborhoodAttention& call, S* to) {
  const int64_t size = call.side() * call.side();
  const S* from = static_cast<const S*>(call.part_table);
  for (int64_t task = 0; task < call.tasks(); ++task, from += size) {
    S* of_head = to + task % call.heads * size;
    for (int64_t i = 0; i < size; ++i) of_head[i] += from[i];
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> neighborhood_attention_backward(
    const Tensor grad_, const Tensor query, const Tensor key, const Tensor value,
    const Tensor table, int64_t window, int64_t down, int64_t across, double scale) {
  NeighborhoodAttention call =
      describe(query, key, value, table, window, down, across, scale);
  const Tensor grad = torch::stable::contiguous(grad_);
  check_dense(grad, query.scalar_type(), query.numel(), "neighborhood_attention_backward: grad");
  Tensor grad_query = torch::stable::new_empty(query, query.sizes());
  Tensor grad_key = torch::stable::new_empty(query, query.sizes());
  Tensor grad_value = torch::stable::new_empty(query, query.sizes());
  Tensor grad_table = torch::stable::new_zeros(table, table.sizes());
  if (query.numel() > 0) {
    const Inputs inputs(call, query, key, value, table);
    call.grad = grad.const_data_ptr();
    call.grad_query = grad_query.mutable_data_ptr();
    call.grad_key = grad_key.mutable_data_ptr();
    call.grad_value = grad_value.mutable_data_ptr();
    const NeighborhoodAttentionLevel& use = SWIN_DENSE_BEST(neighborhood_attention);
    const int64_t bytes = bytes_of(call), size = call.side() * call.side();
    const Scratch parts(2 * call.tasks() * call.part_rows() * call.width * use.whole(call) * bytes);
    const Scratch tables(call.tasks() * size * bytes);
    call.parts = parts.get(), call.part_table = tables.get();
    const int64_t scratch = use.scratch(call, true) * bytes;
    torch::stable::parallel_for(0, call.tasks(), 1, [&](int64_t first, int64_t last) {
      const Scratch own(scratch);
      for (int64_t task = first; task < last; ++task) use.backward(call, task, own.get());
    });
    torch::stable::parallel_for(0, call.batch * call.height, 1, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) use.collect(call, row);
    });
    if (bytes == 8) {
      add_tables(call, static_cast<double*>(grad_table.mutable_data_ptr()));
    } else {
      add_tables(call, static_cast<float*>(grad_table.mutable_data_ptr()));
    }
  }
  return std::make_tuple(grad_query, grad_key, grad_value, grad_table);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("neighborhood_attention", TORCH_BOX(&neighborhood_attention));
  m.impl("neighborhood_attention_backward", TORCH_BOX(&neighborhood_attention_backward));
}

}  // namespace swin_dense
