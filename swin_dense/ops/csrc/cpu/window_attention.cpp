// Window attention on the CPU: checks, shares of the work, and which level does it.
//
// The arithmetic is in levels/window_attention.cpp. Windows and heads are independent, so the
// forward splits them evenly. The backward adds up the gradients that all windows share in a
// number of parts that depends on the sizes only, and those in their order: the result is the
// same for any number of threads.
#include "window_attention.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <tuple>
#include <vector>

#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kTasks = 64;         // of the backward, at least, where there are as many
constexpr int64_t kHeads = 4;          // of one task: neighbours in memory
constexpr int64_t kPartial = 8 << 20;  // floats that all parts of the bias' gradient may take

// Memory a thread keeps from call to call, for what it needs only during one.
class Kept {
 public:
  float* at_least(int64_t count) {
    if (count > count_) {
      data_.reset();
      count_ = 0;  // the next line may throw, and a later call find nothing here
      data_.reset(static_cast<float*>(::operator new[](count * sizeof(float), kAlignment)));
      count_ = count;
    }
    return data_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* data) const { ::operator delete[](data, kAlignment); }
  };
  std::unique_ptr<float[], Free> data_;
  int64_t count_ = 0;
};

thread_local Kept scratch_of_thread, bias_of_call, parts_of_call;

// (N, L, L) -> (N, L, row), with what no softmax sees behind every row.
const float* spread(const float* bias, const WindowAttention& call, int64_t row) {
  const int64_t length = call.length(), rows = call.heads * length;
  if (row == length) return bias;
  float* to = bias_of_call.at_least(rows * row);
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * row, bias + i * length, length * sizeof(float));
    std::fill(to + i * row + length, to + (i + 1) * row, -std::numeric_limits<float>::infinity());
  }
  return to;
}

void check(const Tensor& qkv, const Tensor& bias, const Tensor& pad, const Tensor& scale,
           int64_t window, int64_t shift) {
  STD_TORCH_CHECK(qkv.dim() == 6 && qkv.size(3) == 3 && qkv.size(4) > 0 && qkv.size(5) > 0 &&
                      qkv.size(1) > 0 && qkv.size(2) > 0,
                  "window_attention: qkv must be (B, H, W, 3, heads, head_dim).");
  STD_TORCH_CHECK(qkv.size(1) * qkv.size(2) < std::numeric_limits<int32_t>::max(),
                  "window_attention: a map has fewer than 2^31 tokens.");
  STD_TORCH_CHECK(qkv.scalar_type() == ScalarType::Float ||
                      qkv.scalar_type() == ScalarType::BFloat16,
                  "window_attention: the CPU kernel computes in float32 and bfloat16.");
  STD_TORCH_CHECK(window >= 1 && shift >= 0 && shift < window,
                  "window_attention: the shift must be smaller than the window.");
  const int64_t heads = qkv.size(4), length = window * window;
  STD_TORCH_CHECK(bias.dim() == 3 && bias.size(0) == heads && bias.size(1) == length &&
                      bias.size(2) == length && bias.scalar_type() == ScalarType::Float,
                  "window_attention: bias must be (heads, L, L), float32.");
  STD_TORCH_CHECK(pad.dim() == 3 && pad.size(0) == 3 && pad.size(1) == heads &&
                      pad.size(2) == qkv.size(5) && pad.scalar_type() == qkv.scalar_type(),
                  "window_attention: pad_qkv must be (3, heads, head_dim), of qkv's dtype.");
  STD_TORCH_CHECK(
      scale.dim() == 1 && scale.size(0) == heads && scale.scalar_type() == ScalarType::Float,
      "window_attention: scale must be (heads,), float32.");
}

WindowAttention describe(const Tensor& qkv, const Tensor& pad, const Tensor& scale, int64_t window,
                         int64_t shift, bool cosine) {
  WindowAttention call{};
  call.batch = qkv.size(0), call.height = qkv.size(1), call.width = qkv.size(2);
  call.heads = qkv.size(4), call.head_dim = qkv.size(5);
  call.window = window, call.shift = shift, call.cosine = cosine;
  call.half = qkv.scalar_type() == ScalarType::BFloat16;
  call.qkv = qkv.const_data_ptr(), call.pad = pad.const_data_ptr();
  call.scale = static_cast<const float*>(scale.const_data_ptr());
  return call;
}

Tensor window_attention(const Tensor qkv_, const Tensor bias_, const Tensor pad_,
                        const Tensor scale_, int64_t window, int64_t shift, bool cosine) {
  check(qkv_, bias_, pad_, scale_, window, shift);
  const Tensor qkv = torch::stable::contiguous(qkv_), bias = torch::stable::contiguous(bias_);
  const Tensor pad = torch::stable::contiguous(pad_), scale = torch::stable::contiguous(scale_);
  WindowAttention call = describe(qkv, pad, scale, window, shift, cosine);
  const std::vector<int64_t> shape{call.batch, call.height, call.width,
                                   call.heads * call.head_dim};
  Tensor out = torch::stable::new_empty(qkv, shape);
  if (out.numel() == 0) return out;
  const WindowAttentionLevel& use = SWIN_DENSE_BEST(window_attention);
  const int64_t row = use.whole(call.length());
  call.bias = spread(static_cast<const float*>(bias.const_data_ptr()), call, row);
  call.out = out.mutable_data_ptr();
  const int64_t scratch = use.scratch(call);
  torch::stable::parallel_for(0, call.windows() * call.heads, 1, [&](int64_t first, int64_t last) {
    use.forward(call, first, last, scratch_of_thread.at_least(scratch));
  });
  return out;
}

// The sum over all parts, in their order: `count` floats of each, `stride` apart.
void add_parts(const float* parts, int64_t number, int64_t stride, int64_t count, float* to) {
  std::memcpy(to, parts, count * sizeof(float));
  for (int64_t part = 1; part < number; ++part) {
    const float* from = parts + part * stride;
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> window_attention_backward(
    const Tensor grad_, const Tensor qkv_, const Tensor bias_, const Tensor pad_,
    const Tensor scale_, int64_t window, int64_t shift, bool cosine) {
  check(qkv_, bias_, pad_, scale_, window, shift);
  const Tensor grad = torch::stable::contiguous(grad_), qkv = torch::stable::contiguous(qkv_);
  const Tensor bias = torch::stable::contiguous(bias_), pad = torch::stable::contiguous(pad_);
  const Tensor scale = torch::stable::contiguous(scale_);
  WindowAttention call = describe(qkv, pad, scale, window, shift, cosine);
  const int64_t heads = call.heads, length = call.length(), dim = call.head_dim;
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == call.batch && grad.size(1) == call.height &&
                      grad.size(2) == call.width && grad.size(3) == heads * dim &&
                      grad.scalar_type() == qkv.scalar_type(),
                  "window_attention_backward: grad must be (B, H, W, heads * head_dim), of qkv's "
                  "dtype.");
  Tensor grad_qkv = torch::stable::empty_like(qkv);
  const std::vector<int64_t> squares{heads, length, length}, pads{3, heads, dim}, one{heads};
  Tensor grad_bias = torch::stable::new_zeros(bias, squares);
  Tensor grad_pad = torch::stable::new_zeros(bias, pads);  // in float32 until the end
  Tensor grad_scale = torch::stable::new_zeros(scale, one);
  const auto results = [&] {
    return std::make_tuple(grad_qkv, grad_bias, torch::stable::to(grad_pad, qkv.scalar_type()),
                           grad_scale);
  };
  if (qkv.numel() == 0) return results();

  const WindowAttentionLevel& use = SWIN_DENSE_BEST(window_attention);
  const int64_t row = use.whole(length), wide = use.whole(dim);
  const int64_t rest = 2 * wide + use.whole(1);
  call.bias = spread(static_cast<const float*>(bias.const_data_ptr()), call, row);
  call.grad = grad.const_data_ptr();
  call.grad_qkv = grad_qkv.mutable_data_ptr();
  const int64_t groups = (heads + kHeads - 1) / kHeads, size = heads * length * row;
  call.parts = std::min({(kTasks + groups - 1) / groups, call.windows(), kPartial / size});
  call.parts = std::max<int64_t>(call.parts, 1);
  call.part_bias = parts_of_call.at_least(call.parts * (size + heads * rest));
  call.part_rest = call.part_bias + call.parts * size;

  const int64_t scratch = use.scratch(call);
  torch::stable::parallel_for(0, call.parts * groups, 1, [&](int64_t first, int64_t last) {
    float* own = scratch_of_thread.at_least(scratch);
    for (int64_t task = first; task < last; ++task) {
      const int64_t head = task % groups * kHeads;
      use.backward(call, task / groups, head, std::min(head + kHeads, heads), own);
    }
  });

  float* by_bias = static_cast<float*>(grad_bias.mutable_data_ptr());
  torch::stable::parallel_for(0, heads * length, 64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      add_parts(call.part_bias + i * row, call.parts, size, length, by_bias + i * length);
    }
  });
  float* by_pad = static_cast<float*>(grad_pad.mutable_data_ptr());
  float* by_scale = static_cast<float*>(grad_scale.mutable_data_ptr());
  for (int64_t head = 0; head < heads; ++head) {
    const float* from = call.part_rest + head * rest;
    const int64_t stride = heads * rest;
    add_parts(from, call.parts, stride, dim, by_pad + (heads + head) * dim);
    add_parts(from + wide, call.parts, stride, dim, by_pad + (2 * heads + head) * dim);
    add_parts(from + 2 * wide, call.parts, stride, 1, by_scale + head);
  }
  return results();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("window_attention", TORCH_BOX(&window_attention));
  m.impl("window_attention_backward", TORCH_BOX(&window_attention_backward));
}

}  // namespace swin_dense
