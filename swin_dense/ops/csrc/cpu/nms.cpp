// Non-maximum suppression on the CPU; the meaning is reference.nms.
//
// Boxes are taken in the order of their scores, a block at a time. A block is settled within
// itself, then its survivors are held against all later boxes, which are packed anew. With labels
// this is done for the boxes of each by themselves. Compiled without contraction (setup.py): the
// overlap has to round exactly as in the reference.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "vector_level.h"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kBlock = 256;
constexpr int64_t kTile = 32;  // boxes that are tested together, all coordinates in registers

// Boxes in structure-of-arrays form, padded to whole tiles; nobody reads what comes of the padding.
template <class A>
struct Boxes {
  std::vector<A> x1, y1, x2, y2, area;
  std::vector<int64_t> rank;  // by score, among all boxes

  void resize(int64_t count) {
    const int64_t padded = (count + kTile - 1) / kTile * kTile;
    for (auto* v : {&x1, &y1, &x2, &y2, &area}) v->resize(padded);
    rank.resize(padded);
  }
  void move(int64_t from, int64_t to) {
    x1[to] = x1[from], y1[to] = y1[from], x2[to] = x2[from], y2[to] = y2[from];
    area[to] = area[from], rank[to] = rank[from];
  }
};

template <class A>
struct View {
  const A *x1, *y1, *x2, *y2, *area;
};

// dead[j] |= overlap(survivor, j) > threshold, for the whole tiles in [begin, end).
template <class A>
struct Suppress {
  static SWIN_DENSE_INLINE void run(View<A> kept, int64_t kept_count, View<A> boxes, uint8_t* dead,
                                    int64_t begin, int64_t end, A threshold, A offset) {
    using Int = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
    // Cheaper than a division and never misses a box that the division would suppress.
    const A nearly = threshold * (A(1) - 8 * std::numeric_limits<A>::epsilon());
    for (int64_t tile = begin; tile < end; tile += kTile) {
      const A* x1 = boxes.x1 + tile;
      const A* y1 = boxes.y1 + tile;
      const A* x2 = boxes.x2 + tile;
      const A* y2 = boxes.y2 + tile;
      const A* area = boxes.area + tile;
      Int gone[kTile];
      for (int64_t j = 0; j < kTile; ++j) gone[j] = dead[tile + j] ? 1 : 0;
      for (int64_t i = 0; i < kept_count; ++i) {
        const A ix1 = kept.x1[i], iy1 = kept.y1[i], ix2 = kept.x2[i], iy2 = kept.y2[i];
        const A iarea = kept.area[i];
        Int close = 0;
        for (int64_t j = 0; j < kTile; ++j) {
          const A left = x1[j] > ix1 ? x1[j] : ix1, top = y1[j] > iy1 ? y1[j] : iy1;
          const A right = x2[j] < ix2 ? x2[j] : ix2, bottom = y2[j] < iy2 ? y2[j] : iy2;
          A w = right - left + offset, h = bottom - top + offset;
          w = w > A(0) ? w : A(0), h = h > A(0) ? h : A(0);
          const A inter = w * h;
          const A joint = iarea + area[j] - inter;
          close |= Int(inter > nearly * joint) & ~gone[j];
        }
        if (!close) continue;
        for (int64_t j = 0; j < kTile; ++j) {
          const A left = x1[j] > ix1 ? x1[j] : ix1, top = y1[j] > iy1 ? y1[j] : iy1;
          const A right = x2[j] < ix2 ? x2[j] : ix2, bottom = y2[j] < iy2 ? y2[j] : iy2;
          A w = right - left + offset, h = bottom - top + offset;
          w = w > A(0) ? w : A(0), h = h > A(0) ? h : A(0);
          const A inter = w * h;
          gone[j] |= Int(inter / (iarea + area[j] - inter) > threshold);
        }
      }
      for (int64_t j = 0; j < kTile; ++j) dead[tile + j] = uint8_t(gone[j]);
    }
  }
};

// Indices by decreasing score; equal scores keep their order, NaN counts as -inf.
template <class A, class T>
std::vector<int64_t> by_score(const T* scores, int64_t count, int64_t stride) {
  std::vector<std::pair<A, int64_t>> keys(count);
  for (int64_t i = 0; i < count; ++i) {
    const A score = static_cast<A>(scores[i * stride]);
    keys[i] = {score == score ? score : -std::numeric_limits<A>::infinity(), i};
  }
  std::sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  std::vector<int64_t> order(count);
  for (int64_t i = 0; i < count; ++i) order[i] = keys[i].second;
  return order;
}

template <class A>
View<A> view(const Boxes<A>& b, int64_t from) {
  return {b.x1.data() + from, b.y1.data() + from, b.x2.data() + from, b.y2.data() + from,
          b.area.data() + from};
}

// Ranks by score, run after run of those that may suppress one another.
struct Runs {
  std::vector<int64_t> ranks, ends;
};

Runs by_label(const std::vector<int64_t>& order, const std::optional<Tensor>& labels) {
  const auto count = static_cast<int64_t>(order.size());
  Runs runs{std::vector<int64_t>(count), {}};
  std::iota(runs.ranks.begin(), runs.ranks.end(), int64_t(0));
  if (!labels.has_value()) {
    runs.ends.push_back(count);
    return runs;
  }
  const int64_t* data = labels->const_data_ptr<int64_t>();
  const int64_t stride = labels->stride(0);
  std::vector<std::pair<int64_t, int64_t>> keys(count);
  for (int64_t i = 0; i < count; ++i) keys[i] = {data[order[i] * stride], i};
  std::sort(keys.begin(), keys.end());
  for (int64_t i = 0; i < count; ++i) {
    runs.ranks[i] = keys[i].second;
    if (i + 1 == count || keys[i].first != keys[i + 1].first) runs.ends.push_back(i + 1);
  }
  return runs;
}

// Sets stays[rank] of the boxes that are kept; `left` holds them, best first, with their ranks.
template <class A>
void suppress(Boxes<A>& left, int64_t count, A threshold, A offset, uint8_t* stays) {
  std::vector<uint8_t> dead;
  Boxes<A> survivors;
  while (count > 0) {
    const int64_t block = std::min(kBlock, count);
    const int64_t padded = (count + kTile - 1) / kTile * kTile;
    dead.assign(padded, 0);
    survivors.resize(block);
    int64_t survived = 0;
    for (int64_t i = 0; i < block; ++i) {
      if (dead[i]) continue;
      stays[left.rank[i]] = 1;
      survivors.x1[survived] = left.x1[i], survivors.y1[survived] = left.y1[i];
      survivors.x2[survived] = left.x2[i], survivors.y2[survived] = left.y2[i];
      survivors.area[survived++] = left.area[i];
      const int64_t end = std::min((block + kTile - 1) / kTile * kTile, padded);
      vectorised<Suppress<A>>(view(left, i), int64_t(1), view(left, 0), dead.data(),
                              i / kTile * kTile, end, threshold, offset);
    }
    if (block == count) return;
    const int64_t first = block / kTile, last = padded / kTile;
    const int64_t grain = 1 + (1 << 17) / (kTile * std::max<int64_t>(survived, 1));
    torch::stable::parallel_for(first, last, grain, [&](int64_t begin, int64_t end) {
      vectorised<Suppress<A>>(view(survivors, 0), survived, view(left, 0), dead.data(),
                              begin * kTile, end * kTile, threshold, offset);
    });
    int64_t remaining = 0;
    for (int64_t i = block; i < count; ++i) {
      if (!dead[i]) left.move(i, remaining++);
    }
    count = remaining;
  }
}

template <class T, class A>
std::vector<int64_t> keep(const Tensor& boxes, const Tensor& scores,
                          const std::optional<Tensor>& labels, A threshold, A offset) {
  const int64_t count = boxes.size(0);
  const auto* data = static_cast<const T*>(boxes.const_data_ptr());
  const int64_t row = boxes.stride(0), column = boxes.stride(1);
  const auto order =
      by_score<A>(static_cast<const T*>(scores.const_data_ptr()), count, scores.stride(0));
  const Runs runs = by_label(order, labels);

  std::vector<uint8_t> stays(count, 0);
  Boxes<A> left;
  int64_t begin = 0;
  for (const int64_t end : runs.ends) {
    left.resize(end - begin);
    for (int64_t i = 0; i < end - begin; ++i) {
      const int64_t rank = runs.ranks[begin + i];
      const T* box = data + order[rank] * row;
      const A x1 = static_cast<A>(box[0]), y1 = static_cast<A>(box[column]);
      const A x2 = static_cast<A>(box[2 * column]), y2 = static_cast<A>(box[3 * column]);
      left.x1[i] = x1, left.y1[i] = y1, left.x2[i] = x2, left.y2[i] = y2;
      left.area[i] = (x2 - x1 + offset) * (y2 - y1 + offset);
      left.rank[i] = rank;
    }
    suppress(left, end - begin, threshold, offset, stays.data());
    begin = end;
  }

  std::vector<int64_t> kept;
  for (int64_t rank = 0; rank < count; ++rank) {
    if (stays[rank]) kept.push_back(order[rank]);
  }
  return kept;
}

Tensor nms(const Tensor boxes, const Tensor scores, double iou_threshold, int64_t offset,
           const std::optional<Tensor> labels) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && scores.dim() == 1 &&
                      scores.size(0) == boxes.size(0) &&
                      scores.scalar_type() == boxes.scalar_type(),
                  "nms: boxes (N, 4) and scores (N,) of one dtype are needed.");
  STD_TORCH_CHECK(!labels.has_value() ||
                      (labels->dim() == 1 && labels->size(0) == boxes.size(0) &&
                       labels->scalar_type() == ScalarType::Long),
                  "nms: labels are (N,), int64.");
  std::vector<int64_t> kept;
  switch (boxes.scalar_type()) {
    case ScalarType::Double:
      kept = keep<double, double>(boxes, scores, labels, iou_threshold, double(offset));
      break;
    case ScalarType::Float:
      kept = keep<float, float>(boxes, scores, labels, float(iou_threshold), float(offset));
      break;
    case ScalarType::Half:
      kept = keep<c10::Half, float>(boxes, scores, labels, float(iou_threshold), float(offset));
      break;
    case ScalarType::BFloat16:
      kept = keep<c10::BFloat16, float>(boxes, scores, labels, float(iou_threshold), float(offset));
      break;
    default:
      STD_TORCH_CHECK(false, "nms: boxes must be float64, float32, float16 or bfloat16.");
  }
  const int64_t size = static_cast<int64_t>(kept.size());
  Tensor out = torch::stable::new_empty(boxes, {size}, ScalarType::Long);
  if (size > 0) std::copy(kept.begin(), kept.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) { m.impl("nms", TORCH_BOX(&nms)); }

}  // namespace swin_dense
