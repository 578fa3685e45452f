// RoIAlign on the CPU, both directions; the meaning is reference.roi_align.
//
// Lanes are channels: 64 bytes of channels of one image are laid side by side in a scratch map
// (position, lane), so that every tap is one vector instruction. An average over a bin is a
// product of two small one-dimensional weightings (rows, then columns), computed once per box
// and used for all channels. One task owns one scratch map, so the backward adds in a fixed
// order whatever the number of threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
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

constexpr double kMostSamples = 65536;  // along one side of one bin
constexpr int kNowhere = -2;            // argmax of a bin whose maximum lies at no sample

// What one bin reads along one axis: `count` neighbouring positions from `first`.
struct Taps {
  int64_t first = 0, count = 0, weights = 0;  // weights: where they begin in Boxes::pool
};

// One sample inside the map: between positions `low` and `high`.
template <class A>
struct Sample {
  int64_t low, high;
  A fraction, coordinate;
};

template <class A>
Sample<A> locate(A coordinate, int64_t size) {
  const A clamped = coordinate > A(0) ? coordinate : A(0);
  const int64_t low = std::min(static_cast<int64_t>(clamped), size - 1);
  const int64_t high = std::min(low + 1, size - 1);
  return {low, high, high > low ? clamped - A(low) : A(0), coordinate};
}

template <class A>
struct Axis {
  std::vector<Taps> bins;
  std::vector<int64_t> samples;  // begin of each bin's samples in Boxes::samples, and the end
  int64_t grid = 0;              // samples per bin, those outside of the map included
  int64_t first = 0, last = 0;   // positions any bin reads: [first, last)
};

template <class A>
struct Box {
  int64_t image = -1;
  bool finite = false;  // the box is a box and its image exists
  Axis<A> rows, columns;
};

template <class A>
struct Boxes {
  std::vector<Box<A>> all;
  std::vector<A> pool;
  std::vector<Sample<A>> samples;
  std::vector<std::vector<int64_t>> of_image;
  std::vector<int64_t> first_row, last_row;  // per image
  int64_t widest = 0;
};

struct Plan {
  int64_t images, channels, height, width, pooled_height, pooled_width;
  double scale;
  int64_t sampling_ratio;
  bool take_max, aligned;
  int64_t bins() const { return pooled_height * pooled_width; }
};

template <class A>
void lay_axis(Axis<A>& axis, Boxes<A>& boxes, A start, A length, int64_t bins, int64_t size,
              const Plan& plan) {
  const A bin = length / A(bins);
  axis.grid = plan.sampling_ratio > 0
                  ? plan.sampling_ratio
                  : static_cast<int64_t>(std::min(std::ceil(bin), A(kMostSamples)));
  axis.first = size, axis.last = 0;
  axis.bins.resize(bins);
  for (int64_t b = 0; b < bins; ++b) {
    axis.samples.push_back(static_cast<int64_t>(boxes.samples.size()));
    Taps& taps = axis.bins[b];
    const size_t from = boxes.samples.size();
    for (int64_t s = 0; s < axis.grid; ++s) {
      const A at = start + A(b) * bin + (A(s) + A(0.5)) * bin / A(axis.grid);
      if (size > 0 && at >= A(-1) && at <= A(size)) boxes.samples.push_back(locate(at, size));
    }
    if (boxes.samples.size() == from) continue;
    taps.first = boxes.samples[from].low;
    taps.count = boxes.samples.back().high + 1 - taps.first;
    taps.weights = static_cast<int64_t>(boxes.pool.size());
    boxes.pool.resize(boxes.pool.size() + taps.count, A(0));
    A* weights = boxes.pool.data() + taps.weights - taps.first;
    for (size_t s = from; s < boxes.samples.size(); ++s) {
      const Sample<A>& sample = boxes.samples[s];
      weights[sample.low] += A(1) - sample.fraction;
      weights[sample.high] += sample.fraction;
    }
    axis.first = std::min(axis.first, taps.first);
    axis.last = std::max(axis.last, taps.first + taps.count);
    if (!plan.take_max) boxes.samples.resize(from);
  }
  axis.samples.push_back(static_cast<int64_t>(boxes.samples.size()));
  if (axis.last == 0) axis.first = 0;
}

template <class A>
Boxes<A> lay_boxes(const Tensor& rois, const Plan& plan) {
  const A* data = static_cast<const A*>(rois.const_data_ptr());
  const int64_t row = rois.stride(0), column = rois.stride(1);
  Boxes<A> boxes;
  boxes.all.resize(rois.size(0));
  boxes.of_image.resize(plan.images);
  boxes.first_row.assign(plan.images, plan.height);
  boxes.last_row.assign(plan.images, 0);
  for (size_t r = 0; r < boxes.all.size(); ++r) {
    const A* roi = data + static_cast<int64_t>(r) * row;
    Box<A>& box = boxes.all[r];
    const A image = roi[0], shift = plan.aligned ? A(0.5) : A(0), scale = A(plan.scale);
    const A x1 = roi[column] * scale - shift, y1 = roi[2 * column] * scale - shift;
    A width = roi[3 * column] * scale - shift - x1, height = roi[4 * column] * scale - shift - y1;
    box.finite = image > A(-1) && image < A(plan.images) && std::isfinite(x1) &&
                 std::isfinite(y1) && std::isfinite(width) && std::isfinite(height);
    if (!box.finite) continue;
    box.image = static_cast<int64_t>(image);
    const A least = plan.aligned ? A(0) : A(1);
    width = std::max(width, least), height = std::max(height, least);
    lay_axis(box.rows, boxes, y1, height, plan.pooled_height, plan.height, plan);
    lay_axis(box.columns, boxes, x1, width, plan.pooled_width, plan.width, plan);
    boxes.of_image[box.image].push_back(static_cast<int64_t>(r));
    boxes.widest = std::max(boxes.widest, box.columns.last - box.columns.first);
    if (box.columns.last > 0 && box.rows.last > 0) {
      auto& first = boxes.first_row[box.image];
      auto& last = boxes.last_row[box.image];
      first = std::min(first, box.rows.first), last = std::max(last, box.rows.last);
    }
  }
  return boxes;
}

template <class A>
struct Aligned {
  explicit Aligned(int64_t lanes)
      : data(static_cast<A*>(::operator new[](std::max<int64_t>(lanes, 1) * 64,
                                              std::align_val_t(64)))) {}
  ~Aligned() { ::operator delete[](data, std::align_val_t(64)); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  A* data;
};

// (lane, position) in any strides <-> (position, lane) packed. Absent lanes are zero.
template <class T, class A>
struct Gather {
  static SWIN_DENSE_INLINE void run(const T* source, int64_t lane_stride, int64_t position_stride,
                                    int64_t count, int64_t lanes, A* scratch) {
    constexpr int L = kLanes<A>;
    if (lane_stride == 1 && lanes == L) {
      for (int64_t p = 0; p < count; ++p) {
        const T* from = source + p * position_stride;
        for (int k = 0; k < L; ++k) scratch[p * L + k] = static_cast<A>(from[k]);
      }
      return;
    }
    constexpr int64_t kStrip = 16;
    for (int64_t begin = 0; begin < count; begin += kStrip) {
      const int64_t end = begin + kStrip < count ? begin + kStrip : count;
      for (int64_t k = 0; k < L; ++k) {
        const T* from = source + k * lane_stride;
        for (int64_t p = begin; p < end; ++p) {
          scratch[p * L + k] = k < lanes ? static_cast<A>(from[p * position_stride]) : A(0);
        }
      }
    }
  }
};

template <class T, class A>
struct Scatter {
  static SWIN_DENSE_INLINE void run(const A* scratch, int64_t count, int64_t lanes, T* target,
                                    int64_t lane_stride) {
    constexpr int L = kLanes<A>;
    constexpr int64_t kStrip = 16;
    for (int64_t begin = 0; begin < count; begin += kStrip) {
      const int64_t end = begin + kStrip < count ? begin + kStrip : count;
      for (int64_t k = 0; k < lanes; ++k) {
        T* to = target + k * lane_stride;
        for (int64_t p = begin; p < end; ++p) to[p] = static_cast<T>(scratch[p * L + k]);
      }
    }
  }
};

// One box, one group of lanes: out (bins, lane) from map (position, lane). `line` is scratch.
template <class A>
struct Average {
  static SWIN_DENSE_INLINE void run(const Box<A>* box, const A* pool, const A* map, int64_t width,
                                    A* __restrict line, A* __restrict out) {
    constexpr int L = kLanes<A>;
    const int64_t grid = box->rows.grid * box->columns.grid;
    const A samples = grid > 0 ? A(box->rows.grid) * A(box->columns.grid) : A(1);
    const int64_t first = box->columns.first, last = box->columns.last;
    for (const Taps& row : box->rows.bins) {
      const A* down = pool + row.weights;
      for (int64_t x = first; x < last; ++x) {
        A sum[L] = {};
        const A* from = map + (row.first * width + x) * L;
        for (int64_t y = 0; y < row.count; ++y, from += width * L) {
          const A weight = down[y];
          for (int k = 0; k < L; ++k) sum[k] += weight * from[k];
        }
        for (int k = 0; k < L; ++k) line[(x - first) * L + k] = sum[k];
      }
      for (const Taps& column : box->columns.bins) {
        const A* across = pool + column.weights;
        const A* from = line + (column.first - first) * L;
        A sum[L] = {};
        for (int64_t x = 0; x < column.count; ++x, from += L) {
          const A weight = across[x];
          for (int k = 0; k < L; ++k) sum[k] += weight * from[k];
        }
        for (int k = 0; k < L; ++k) out[k] = sum[k] / samples;
        out += L;
      }
    }
  }
};

template <class A>
struct AverageBackward {
  static SWIN_DENSE_INLINE void run(const Box<A>* box, const A* pool, const A* grad, int64_t width,
                                    A* __restrict line, A* __restrict map) {
    constexpr int L = kLanes<A>;
    const A samples = A(box->rows.grid) * A(box->columns.grid);
    const int64_t first = box->columns.first, reach = box->columns.last - first;
    for (const Taps& row : box->rows.bins) {
      if (row.count == 0 || reach == 0) {
        grad += box->columns.bins.size() * L;
        continue;
      }
      for (int64_t i = 0; i < reach * L; ++i) line[i] = A(0);
      for (const Taps& column : box->columns.bins) {
        A share[L];
        for (int k = 0; k < L; ++k) share[k] = grad[k] / samples;
        grad += L;
        const A* across = pool + column.weights;
        A* to = line + (column.first - first) * L;
        for (int64_t x = 0; x < column.count; ++x, to += L) {
          const A weight = across[x];
          for (int k = 0; k < L; ++k) to[k] += weight * share[k];
        }
      }
      const A* down = pool + row.weights;
      for (int64_t y = 0; y < row.count; ++y) {
        const A weight = down[y];
        A* to = map + ((row.first + y) * width + first) * L;
        for (int64_t i = 0; i < reach * L; ++i) to[i] += weight * line[i];
      }
    }
  }
};

// The largest sample of a bin; ties go to the first in reading order, NaN wins over numbers. A
// sample outside of the map is worth 0 and comes after those inside.
template <class A>
struct Maximum {
  static SWIN_DENSE_INLINE void run(const Box<A>* box, const Sample<A>* samples, const A* map,
                                    int64_t width, A* __restrict out, A* __restrict argmax_y,
                                    A* __restrict argmax_x) {
    constexpr int L = kLanes<A>;
    const int64_t grid = box->rows.grid * box->columns.grid;
    for (size_t i = 0; i < box->rows.bins.size(); ++i) {
      for (size_t j = 0; j < box->columns.bins.size(); ++j) {
        A best[L], best_y[L], best_x[L];
        for (int k = 0; k < L; ++k) {
          best[k] = -std::numeric_limits<A>::infinity(), best_y[k] = best_x[k] = A(kNowhere);
        }
        int64_t seen = 0;
        for (int64_t s = box->rows.samples[i]; s < box->rows.samples[i + 1]; ++s) {
          const Sample<A>& y = samples[s];
          const A ly = y.fraction, hy = A(1) - ly, at_y = y.coordinate;
          for (int64_t t = box->columns.samples[j]; t < box->columns.samples[j + 1]; ++t, ++seen) {
            const Sample<A>& x = samples[t];
            const A lx = x.fraction, hx = A(1) - lx, at_x = x.coordinate;
            const A w1 = hy * hx, w2 = hy * lx, w3 = ly * hx, w4 = ly * lx;
            const A* a = map + (y.low * width + x.low) * L;
            const A* b = map + (y.low * width + x.high) * L;
            const A* c = map + (y.high * width + x.low) * L;
            const A* d = map + (y.high * width + x.high) * L;
            for (int k = 0; k < L; ++k) {
              const A value = w1 * a[k] + w2 * b[k] + w3 * c[k] + w4 * d[k];
              // Not "value > best": the first sample is taken whatever it is, and so is NaN.
              const bool better = (value > best[k]) | ((value != value) & (best[k] == best[k])) |
                                  (seen == 0);
              best[k] = better ? value : best[k];
              best_y[k] = better ? at_y : best_y[k];
              best_x[k] = better ? at_x : best_x[k];
            }
          }
        }
        for (int k = 0; k < L; ++k) {
          const bool outside = ((seen < grid) | (seen == 0)) & (best[k] < A(0));
          out[k] = outside ? A(0) : best[k];
          argmax_y[k] = outside ? A(kNowhere) : best_y[k];
          argmax_x[k] = outside ? A(kNowhere) : best_x[k];
        }
        out += L, argmax_y += L, argmax_x += L;
      }
    }
  }
};

template <class A>
void maximum_backward(const A* grad, const A* argmax_y, const A* argmax_x, int64_t bins,
                      int64_t lanes, const Plan& plan, A* map) {
  constexpr int L = kLanes<A>;
  for (int64_t b = 0; b < bins; ++b) {
    for (int64_t k = 0; k < lanes; ++k) {
      const A y = argmax_y[k * bins + b], x = argmax_x[k * bins + b], g = grad[b * L + k];
      if (!(y >= A(-1) && y <= A(plan.height) && x >= A(-1) && x <= A(plan.width))) continue;
      const Sample<A> v = locate(y, plan.height), h = locate(x, plan.width);
      A* upper = map + v.low * plan.width * L + k;
      A* lower = map + v.high * plan.width * L + k;
      upper[h.low * L] += (A(1) - v.fraction) * (A(1) - h.fraction) * g;
      upper[h.high * L] += (A(1) - v.fraction) * h.fraction * g;
      lower[h.low * L] += v.fraction * (A(1) - h.fraction) * g;
      lower[h.high * L] += v.fraction * h.fraction * g;
    }
  }
}

// Calls body(image, first lane, lanes) for every group of lanes of every image.
template <class A, class Body>
void for_each_group(const Plan& plan, const Body& body) {
  constexpr int64_t L = kLanes<A>;
  const int64_t groups = (plan.channels + L - 1) / L;
  torch::stable::parallel_for(0, plan.images * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % groups * L;
      body(task / groups, first, std::min(L, plan.channels - first));
    }
  });
}

template <class T, class A>
void forward(const Tensor& features, const Boxes<A>& boxes, const Plan& plan, T* out, A* argmax_y,
             A* argmax_x) {
  constexpr int64_t L = kLanes<A>;
  const T* data = static_cast<const T*>(features.const_data_ptr());
  const int64_t bins = plan.bins();
  const auto step = features.strides();
  for_each_group<A>(plan, [&](int64_t image, int64_t channel, int64_t lanes) {
    const int64_t top = boxes.first_row[image], bottom = boxes.last_row[image];
    const int64_t rows = std::max<int64_t>(bottom - top, 0);
    Aligned<A> map(rows * plan.width), line(boxes.widest), pooled(bins), ys(bins), xs(bins);
    const T* plane = data + image * step[0] + channel * step[1];
    if (step[2] == plan.width * step[3]) {
      vectorised<Gather<T, A>>(plane + top * step[2], step[1], step[3], rows * plan.width, lanes,
                               map.data);
    } else {
      for (int64_t y = 0; y < rows; ++y) {
        vectorised<Gather<T, A>>(plane + (top + y) * step[2], step[1], step[3], plan.width, lanes,
                                 map.data + y * plan.width * L);
      }
    }
    const A* origin = map.data - top * plan.width * L;
    for (const int64_t r : boxes.of_image[image]) {
      const Box<A>* box = &boxes.all[r];
      const int64_t at = (r * plan.channels + channel) * bins;
      if (plan.take_max) {
        vectorised<Maximum<A>>(box, boxes.samples.data(), origin, plan.width, pooled.data, ys.data,
                               xs.data);
        vectorised<Scatter<A, A>>(static_cast<const A*>(ys.data), bins, lanes, argmax_y + at, bins);
        vectorised<Scatter<A, A>>(static_cast<const A*>(xs.data), bins, lanes, argmax_x + at, bins);
      } else {
        vectorised<Average<A>>(box, boxes.pool.data(), origin, plan.width, line.data, pooled.data);
      }
      vectorised<Scatter<T, A>>(static_cast<const A*>(pooled.data), bins, lanes, out + at, bins);
    }
  });
  for (size_t r = 0; r < boxes.all.size(); ++r) {
    if (boxes.all[r].finite) continue;
    const int64_t at = static_cast<int64_t>(r) * plan.channels * bins, size = plan.channels * bins;
    std::fill_n(out + at, size, static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
    if (plan.take_max) {
      std::fill_n(argmax_y + at, size, A(kNowhere));
      std::fill_n(argmax_x + at, size, A(kNowhere));
    }
  }
}

template <class T, class A>
void backward(const Tensor& grad, const A* argmax_y, const A* argmax_x, const Boxes<A>& boxes,
              const Plan& plan, T* out) {
  constexpr int64_t L = kLanes<A>;
  const T* data = static_cast<const T*>(grad.const_data_ptr());
  const int64_t bins = plan.bins(), area = plan.height * plan.width;
  for_each_group<A>(plan, [&](int64_t image, int64_t channel, int64_t lanes) {
    const int64_t top = boxes.first_row[image], bottom = boxes.last_row[image];
    const int64_t rows = std::max<int64_t>(bottom - top, 0);
    Aligned<A> map(rows * plan.width), line(boxes.widest), pooled(bins);
    std::fill_n(map.data, rows * plan.width * L, A(0));
    A* origin = map.data - top * plan.width * L;
    for (const int64_t r : boxes.of_image[image]) {
      const int64_t at = (r * plan.channels + channel) * bins;
      vectorised<Gather<T, A>>(data + at, bins, int64_t(1), bins, lanes, pooled.data);
      if (plan.take_max) {
        maximum_backward(pooled.data, argmax_y + at, argmax_x + at, bins, lanes, plan, origin);
      } else {
        vectorised<AverageBackward<A>>(&boxes.all[r], boxes.pool.data(),
                                       static_cast<const A*>(pooled.data), plan.width, line.data,
                                       origin);
      }
    }
    T* plane = out + (image * plan.channels + channel) * area;
    for (int64_t k = 0; k < lanes; ++k) {
      const int64_t above = (rows > 0 ? top : plan.height) * plan.width;
      std::fill_n(plane + k * area, above, static_cast<T>(0.f));
      if (rows > 0) {
        std::fill(plane + k * area + bottom * plan.width, plane + (k + 1) * area,
                  static_cast<T>(0.f));
      }
    }
    vectorised<Scatter<T, A>>(static_cast<const A*>(map.data), rows * plan.width, lanes,
                              plane + (rows > 0 ? top * plan.width : 0), area);
  });
}

// Calls body with a zero of the features' type and one of the type that sums are kept in.
template <class Body>
void by_dtype(ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Double:
      return body(double(0), double(0));
    case ScalarType::Float:
      return body(float(0), float(0));
    case ScalarType::Half:
      return body(c10::Half(0.f), float(0));
    case ScalarType::BFloat16:
      return body(c10::BFloat16(0.f), float(0));
    default:
      STD_TORCH_CHECK(false,
                      "roi_align: features must be float64, float32, float16 or bfloat16.");
  }
}

void check_rois(const Tensor& rois, ScalarType sums) {
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5 && rois.scalar_type() == sums,
                  "roi_align: rois must be (K, 5), float64 for float64 features, else float32.");
}

std::tuple<Tensor, Tensor, Tensor> roi_align(const Tensor features, const Tensor rois,
                                             int64_t pooled_height, int64_t pooled_width,
                                             double spatial_scale, int64_t sampling_ratio,
                                             bool take_max, bool aligned) {
  STD_TORCH_CHECK(features.dim() == 4, "roi_align: features must be (B, C, H, W).");
  const Plan plan{features.size(0), features.size(1), features.size(2), features.size(3),
                  pooled_height, pooled_width, spatial_scale, sampling_ratio, take_max, aligned};
  const ScalarType sums =
      features.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check_rois(rois, sums);
  const std::vector<int64_t> shape{rois.size(0), plan.channels, pooled_height, pooled_width};
  const std::vector<int64_t> none{0};
  Tensor out = torch::stable::new_empty(features, shape);
  Tensor argmax_y = torch::stable::new_empty(features, take_max ? shape : none, sums);
  Tensor argmax_x = torch::stable::new_empty(features, take_max ? shape : none, sums);
  if (out.numel() == 0) return {out, argmax_y, argmax_x};
  by_dtype(features.scalar_type(), [&](auto zero, auto sum) {
    using T = decltype(zero);
    using A = decltype(sum);
    forward<T, A>(features, lay_boxes<A>(rois, plan), plan, static_cast<T*>(out.mutable_data_ptr()),
                  static_cast<A*>(argmax_y.mutable_data_ptr()),
                  static_cast<A*>(argmax_x.mutable_data_ptr()));
  });
  return {out, argmax_y, argmax_x};
}

Tensor roi_align_backward(const Tensor grad, const Tensor rois, const Tensor argmax_y,
                          const Tensor argmax_x, int64_t images, int64_t channels, int64_t height,
                          int64_t width, double spatial_scale, int64_t sampling_ratio,
                          bool take_max, bool aligned) {
  const Plan plan{images, channels, height, width, grad.size(2), grad.size(3),
                  spatial_scale, sampling_ratio, take_max, aligned};
  const ScalarType sums =
      grad.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  check_rois(rois, sums);
  STD_TORCH_CHECK(grad.size(0) == rois.size(0) && grad.size(1) == channels,
                  "roi_align_backward: grad must be (K, C, pooled height, pooled width).");
  STD_TORCH_CHECK(!take_max || (argmax_y.numel() == grad.numel() &&
                                argmax_x.numel() == grad.numel() &&
                                argmax_y.scalar_type() == sums && argmax_x.scalar_type() == sums),
                  "roi_align_backward: the argmax tensors must be those of the forward.");
  const Tensor dense = torch::stable::contiguous(grad);
  const Tensor ys = torch::stable::contiguous(argmax_y), xs = torch::stable::contiguous(argmax_x);
  Tensor out = torch::stable::new_empty(grad, {images, channels, height, width});
  if (out.numel() == 0) return out;
  by_dtype(grad.scalar_type(), [&](auto zero, auto sum) {
    using T = decltype(zero);
    using A = decltype(sum);
    backward<T, A>(dense, static_cast<const A*>(ys.const_data_ptr()),
                   static_cast<const A*>(xs.const_data_ptr()), lay_boxes<A>(rois, plan), plan,
                   static_cast<T*>(out.mutable_data_ptr()));
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}

}  // namespace swin_dense
