// The columns of a deformable convolution on the CPU: checks, and shares of the work.
//
// The arithmetic is in levels/deform_columns.cpp. Outputs are independent; what they add to the
// input is shared out by channels, so that each sum is made by one thread, in one order.
#include "deform_columns.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "tensor_checks.h"
#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
typedef const std::optional<Tensor> Maybe;

constexpr int64_t kOutputs = 64;   // of one task, at least
constexpr int64_t kChannels = 32;  // of one task of the input's gradient, at most
constexpr int64_t kPositions = 1 << 30;  // of a map; their numbers are 32-bit

DeformColumns describe(const Tensor& input, const Tensor& offset, Maybe& mask, int64_t kernel_width,
                       const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
                       const std::vector<int64_t>& dilation, int64_t first,
                       const Tensor& columns) {
  STD_TORCH_CHECK(input.dim() == 4 && offset.dim() == 6 && offset.size(3) == 2 &&
                      offset.size(0) == input.size(0) && offset.size(1) > 0 &&
                      input.size(3) % offset.size(1) == 0 && kernel_width > 0,
                  "deform_columns: input must be (B, H, W, C), offset (B, G, K, 2, Ho, Wo), G a "
                  "divisor of C.");
  STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                  "deform_columns: stride, padding and dilation must be two numbers each.");
  STD_TORCH_CHECK(input.size(1) * input.size(2) < kPositions,
                  "deform_columns: a map has fewer than 2^30 positions.");
  DeformColumns call{};
  call.batch = input.size(0), call.height = input.size(1), call.width = input.size(2);
  call.channels = input.size(3);
  call.groups = offset.size(1), call.kernel = offset.size(2), call.kernel_width = kernel_width;
  call.out_height = offset.size(4), call.out_width = offset.size(5);
  for (int axis = 0; axis < 2; ++axis) {
    call.stride[axis] = stride[axis], call.padding[axis] = padding[axis];
    call.dilation[axis] = dilation[axis];
  }
  call.stored = stored_as(input, "deform_columns");
  const ScalarType exact = summed_as(call.stored);
  check_dense(input, input.scalar_type(), input.numel(), "deform_columns: input");
  check_dense(offset, exact, offset.numel(), "deform_columns: offset");
  call.input = input.const_data_ptr(), call.offset = offset.const_data_ptr();
  if (mask.has_value()) {
    check_dense(*mask, exact, offset.numel() / 2, "deform_columns: mask");
    call.mask = mask->const_data_ptr();
  }
  STD_TORCH_CHECK(columns.dim() == 3 && columns.size(1) == call.kernel &&
                      columns.size(2) == call.channels,
                  "deform_columns: columns must be (P, K, C).");
  check_dense(columns, input.scalar_type(), columns.numel(), "deform_columns: columns");
  call.first = first, call.positions = columns.size(0);
  STD_TORCH_CHECK(
      first >= 0 && first + call.positions <= call.batch * call.out_height * call.out_width,
      "deform_columns: there are no such positions.");
  return call;
}

void deform_columns(const Tensor input, const Tensor offset, Maybe mask, int64_t kernel_width,
                    std::vector<int64_t> stride, std::vector<int64_t> padding,
                    std::vector<int64_t> dilation, int64_t first, Tensor out) {
  DeformColumns call =
      describe(input, offset, mask, kernel_width, stride, padding, dilation, first, out);
  call.out = out.mutable_data_ptr();
  const DeformColumnsLevel& use = SWIN_DENSE_BEST(deform_columns);
  torch::stable::parallel_for(0, call.positions, kOutputs, [&](int64_t begin, int64_t end) {
    use.forward(call, begin, end);
  });
}

void deform_columns_backward(const Tensor grad, const Tensor input, const Tensor offset, Maybe mask,
                             int64_t kernel_width, std::vector<int64_t> stride,
                             std::vector<int64_t> padding, std::vector<int64_t> dilation,
                             int64_t first, Tensor grad_input, Tensor grad_offset,
                             Maybe grad_mask) {
  DeformColumns call =
      describe(input, offset, mask, kernel_width, stride, padding, dilation, first, grad);
  const ScalarType exact = summed_as(call.stored);
  check_dense(grad_input, exact, input.numel(), "deform_columns_backward: grad_input");
  check_dense(grad_offset, exact, offset.numel(), "deform_columns_backward: grad_offset");
  call.grad = grad.const_data_ptr();
  call.grad_input = grad_input.mutable_data_ptr();
  call.grad_offset = grad_offset.mutable_data_ptr();
  if (mask.has_value() && grad_mask.has_value()) {
    check_dense(*grad_mask, exact, mask->numel(), "deform_columns_backward: grad_mask");
    call.grad_mask = grad_mask->mutable_data_ptr();
  }
  const DeformColumnsLevel& use = SWIN_DENSE_BEST(deform_columns);
  torch::stable::parallel_for(0, call.positions, kOutputs, [&](int64_t begin, int64_t end) {
    use.backward_places(call, begin, end);
  });
  const int64_t share = call.channels / call.groups, slices = (share + kChannels - 1) / kChannels;
  torch::stable::parallel_for(0, call.groups * slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t from = task / slices * share, at = task % slices * kChannels;
      use.backward_input(call, from + at, from + std::min(at + kChannels, share));
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("deform_columns", TORCH_BOX(&deform_columns));
  m.impl("deform_columns_backward", TORCH_BOX(&deform_columns_backward));
}

}  // namespace swin_dense
