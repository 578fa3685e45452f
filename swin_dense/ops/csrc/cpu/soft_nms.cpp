// Soft non-maximum suppression on the CPU; the meaning is reference.soft_nms.
//
// Scores decay instead of boxes vanishing, so every round depends on the one before: the rounds
// run one after the other, the boxes of a round in vectors. Compiled without contraction
// (setup.py): the overlap has to round exactly as in the reference.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class A>
struct Boxes {
  std::vector<A> x1, y1, x2, y2, area, score, overlap;
  std::vector<int64_t> index;

  explicit Boxes(int64_t count)
      : x1(count), y1(count), x2(count), y2(count), area(count), score(count), overlap(count),
        index(count) {}
  void move(int64_t from, int64_t to) {
    x1[to] = x1[from], y1[to] = y1[from], x2[to] = x2[from], y2[to] = y2[from];
    area[to] = area[from], score[to] = score[from], index[to] = index[from];
    overlap[to] = overlap[from];
  }
};

template <class A>
struct Overlap {
  static SWIN_DENSE_INLINE void run(const A* __restrict x1, const A* __restrict y1,
                                    const A* __restrict x2, const A* __restrict y2,
                                    const A* __restrict area, A* __restrict overlap, int64_t count,
                                    int64_t best, A offset) {
    const A ix1 = x1[best], iy1 = y1[best], ix2 = x2[best], iy2 = y2[best], iarea = area[best];
    for (int64_t j = 0; j < count; ++j) {
      const A left = x1[j] > ix1 ? x1[j] : ix1, top = y1[j] > iy1 ? y1[j] : iy1;
      const A right = x2[j] < ix2 ? x2[j] : ix2, bottom = y2[j] < iy2 ? y2[j] : iy2;
      A w = right - left + offset, h = bottom - top + offset;
      w = w > A(0) ? w : A(0), h = h > A(0) ? h : A(0);
      const A inter = w * h;
      overlap[j] = inter / (iarea + area[j] - inter);
    }
  }
};

template <class A>
A decay(A overlap, int64_t method, A threshold, A sigma) {
  if (!(overlap == overlap)) return A(1);  // no overlap can be told: leave the score alone
  if (method == 2) return std::exp(-(overlap * overlap) / sigma);
  if (!(overlap >= threshold)) return A(1);
  return method == 1 ? A(1) - overlap : A(0);
}

template <class A>
std::tuple<Tensor, Tensor> run(const Tensor& boxes, const Tensor& scores, A threshold, A sigma,
                               A min_score, int64_t method, A offset) {
  const int64_t total = boxes.size(0);
  const A* data = static_cast<const A*>(boxes.const_data_ptr());
  const A* given = static_cast<const A*>(scores.const_data_ptr());
  const int64_t row = boxes.stride(0), column = boxes.stride(1), step = scores.stride(0);
  Boxes<A> left(total);  // in the order given, so that the first of equal scores is found first
  int64_t count = 0;
  for (int64_t i = 0; i < total; ++i) {
    const A score = given[i * step];
    if (!(score >= min_score)) continue;  // NaN goes too
    const A* box = data + i * row;
    left.x1[count] = box[0], left.y1[count] = box[column];
    left.x2[count] = box[2 * column], left.y2[count] = box[3 * column];
    left.area[count] = (left.x2[count] - left.x1[count] + offset) *
                       (left.y2[count] - left.y1[count] + offset);
    left.score[count] = score, left.index[count++] = i;
  }

  std::vector<A> dets;
  std::vector<int64_t> index;
  while (count > 0) {
    int64_t best = 0;
    for (int64_t j = 1; j < count; ++j) {
      if (left.score[j] > left.score[best]) best = j;
    }
    dets.insert(dets.end(), {left.x1[best], left.y1[best], left.x2[best], left.y2[best],
                             left.score[best]});
    index.push_back(left.index[best]);
    vectorised<Overlap<A>>(
        static_cast<const A*>(left.x1.data()), static_cast<const A*>(left.y1.data()),
        static_cast<const A*>(left.x2.data()), static_cast<const A*>(left.y2.data()),
        static_cast<const A*>(left.area.data()), left.overlap.data(), count, best, offset);
    int64_t remaining = 0;
    for (int64_t j = 0; j < count; ++j) {
      if (j == best) continue;
      // A box apart keeps its score: decay(0) is 1, except for a threshold of 0.
      if (left.overlap[j] != A(0) || threshold <= A(0)) {
        left.score[j] *= decay(left.overlap[j], method, threshold, sigma);
      }
      if (left.score[j] >= min_score) {
        if (remaining != j) left.move(j, remaining);
        ++remaining;
      }
    }
    count = remaining;
  }

  const int64_t size = static_cast<int64_t>(index.size());
  Tensor out = torch::stable::new_empty(boxes, {size, 5});
  Tensor kept = torch::stable::new_empty(boxes, {size}, ScalarType::Long);
  if (size > 0) {
    std::copy(dets.begin(), dets.end(), static_cast<A*>(out.mutable_data_ptr()));
    std::copy(index.begin(), index.end(), kept.mutable_data_ptr<int64_t>());
  }
  return {out, kept};
}

std::tuple<Tensor, Tensor> soft_nms(const Tensor boxes, const Tensor scores, double iou_threshold,
                                    double sigma, double min_score, int64_t method,
                                    int64_t offset) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && scores.dim() == 1 &&
                      scores.size(0) == boxes.size(0) &&
                      scores.scalar_type() == boxes.scalar_type(),
                  "soft_nms: boxes (N, 4) and scores (N,) of one dtype are needed.");
  if (boxes.scalar_type() == ScalarType::Double) {
    return run<double>(boxes, scores, iou_threshold, sigma, min_score, method, double(offset));
  }
  STD_TORCH_CHECK(boxes.scalar_type() == ScalarType::Float,
                  "soft_nms: boxes must be float64 or float32.");
  return run<float>(boxes, scores, float(iou_threshold), float(sigma), float(min_score), method,
                    float(offset));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms)); }

}  // namespace swin_dense
