// Multi-scale deformable attention on the CPU: checks, and shares of the work.
//
// The arithmetic is in levels/ms_deform_attn.cpp. Queries are independent, and so are, in the
// backward, the maps of each head of each image: nothing depends on the number of threads.
#include "ms_deform_attn.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "tensor_checks.h"
#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kQueries = 16;        // of one task of the forward, at least
constexpr int64_t kPositions = 1 << 30;  // of all maps; their numbers are 32-bit

// The sizes of the maps, checked against the number of positions.
class Maps {
 public:
  Maps(const Tensor& shapes, int64_t keys) {
    const Tensor sizes = torch::stable::contiguous(shapes);
    const auto* size = static_cast<const int64_t*>(sizes.const_data_ptr());
    int64_t start = 0;
    for (int64_t map = 0; map < sizes.size(0); ++map) {
      const int64_t height = size[2 * map], width = size[2 * map + 1];
      STD_TORCH_CHECK(height >= 0 && width >= 0 && height < kPositions && width < kPositions &&
                          height * width < kPositions,
                      "ms_deform_attn: sizes of maps are from 0 to 2^30 positions.");
      heights_.push_back(static_cast<int32_t>(height));
      widths_.push_back(static_cast<int32_t>(width));
      starts_.push_back(static_cast<int32_t>(start));
      start += height * width;
      largest_ = std::max(largest_, height * width);
      STD_TORCH_CHECK(start < kPositions, "ms_deform_attn: maps have fewer than 2^30 positions.");
    }
    STD_TORCH_CHECK(start == keys, "ms_deform_attn: spatial_shapes must add up to value's keys.");
  }

  void describe(MsDeformAttn& call) const {
    call.height = heights_.data(), call.width = widths_.data(), call.start = starts_.data();
  }
  int64_t largest() const { return largest_; }

 private:
  std::vector<int32_t> heights_, widths_, starts_;
  int64_t largest_ = 0;
};

MsDeformAttn describe(const Tensor& value, const Tensor& shapes, const Tensor& locations,
                      const Tensor& weights) {
  STD_TORCH_CHECK(value.dim() == 4 && locations.dim() == 6 && weights.dim() == 5,
                  "ms_deform_attn: value must be (B, K, N, D), sampling_locations (B, Q, N, L, P, "
                  "2), attention_weights (B, Q, N, L, P).");
  MsDeformAttn call{};
  call.batch = value.size(0), call.keys = value.size(1);
  call.heads = value.size(2), call.channels = value.size(3);
  call.queries = weights.size(1), call.maps = weights.size(3), call.points = weights.size(4);
  call.stored = stored_as(value, "ms_deform_attn");
  const ScalarType exact = summed_as(call.stored);
  STD_TORCH_CHECK(locations.scalar_type() == exact && weights.scalar_type() == exact,
                  "ms_deform_attn: sampling_locations and attention_weights must be float32, or "
                  "float64 where value is.");
  STD_TORCH_CHECK(weights.size(0) == call.batch && weights.size(2) == call.heads &&
                      locations.size(5) == 2,
                  "ms_deform_attn: attention_weights must be (B, Q, N, L, P).");
  for (int64_t axis = 0; axis < 5; ++axis) {
    STD_TORCH_CHECK(locations.size(axis) == weights.size(axis),
                    "ms_deform_attn: there must be one location for each weight.");
  }
  STD_TORCH_CHECK(shapes.dim() == 2 && shapes.size(0) == call.maps && shapes.size(1) == 2 &&
                      shapes.scalar_type() == ScalarType::Long,
                  "ms_deform_attn: spatial_shapes must be (L, 2), int64.");
  return call;
}

Tensor ms_deform_attn(const Tensor value_, const Tensor shapes, const Tensor locations_,
                      const Tensor weights_) {
  MsDeformAttn call = describe(value_, shapes, locations_, weights_);
  const Maps maps(shapes, call.keys);
  maps.describe(call);
  const Tensor value = torch::stable::contiguous(value_);
  const Tensor locations = torch::stable::contiguous(locations_);
  const Tensor weights = torch::stable::contiguous(weights_);
  call.value = value.const_data_ptr();
  call.locations = locations.const_data_ptr(), call.weights = weights.const_data_ptr();
  const std::vector<int64_t> shape{call.batch, call.queries, call.heads * call.channels};
  Tensor out = torch::stable::new_empty(value, shape);
  if (out.numel() == 0) return out;
  call.out = out.mutable_data_ptr();
  const MsDeformAttnLevel& use = SWIN_DENSE_BEST(ms_deform_attn);
  torch::stable::parallel_for(
      0, call.batch * call.queries, kQueries,
      [&](int64_t first, int64_t last) { use.forward(call, first, last); });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(const Tensor grad_, const Tensor value_,
                                                           const Tensor shapes,
                                                           const Tensor locations_,
                                                           const Tensor weights_) {
  MsDeformAttn call = describe(value_, shapes, locations_, weights_);
  const Maps maps(shapes, call.keys);
  maps.describe(call);
  STD_TORCH_CHECK(grad_.dim() == 3 && grad_.size(0) == call.batch &&
                      grad_.size(1) == call.queries &&
                      grad_.size(2) == call.heads * call.channels &&
                      grad_.scalar_type() == value_.scalar_type(),
                  "ms_deform_attn_backward: grad must be (B, Q, heads * channels), of value's "
                  "dtype.");
  const Tensor grad = torch::stable::contiguous(grad_), value = torch::stable::contiguous(value_);
  const Tensor locations = torch::stable::contiguous(locations_);
  const Tensor weights = torch::stable::contiguous(weights_);
  Tensor grad_value = torch::stable::empty_like(value);
  Tensor grad_locations = torch::stable::empty_like(locations);
  Tensor grad_weights = torch::stable::empty_like(weights);
  call.value = value.const_data_ptr(), call.grad = grad.const_data_ptr();
  call.locations = locations.const_data_ptr(), call.weights = weights.const_data_ptr();
  call.grad_value = grad_value.mutable_data_ptr();
  call.grad_locations = grad_locations.mutable_data_ptr();
  call.grad_weights = grad_weights.mutable_data_ptr();
  const MsDeformAttnLevel& use = SWIN_DENSE_BEST(ms_deform_attn);
  const int64_t scratch = use.scratch(call, maps.largest());
  const int64_t tasks = call.batch * call.heads * call.maps;
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) {
    const std::unique_ptr<char[]> own(new char[scratch]);
    use.backward(call, first, last, own.get());
  });
  return std::make_tuple(grad_value, grad_locations, grad_weights);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&ms_deform_attn));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&ms_deform_attn_backward));
}

}  // namespace swin_dense
