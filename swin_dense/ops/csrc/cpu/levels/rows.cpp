// Row by row: layer norm, GELU, residual sums and their gradients; reference/rows.py says what
// each means. A row is read once from memory and stays in the first-level cache for what follows.
#include "../rows.h"

#include "lanes.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

template <class T>
SWIN_DENSE_INLINE const T* row_of(const void* matrix, int64_t row, int64_t columns) {
  return static_cast<const T*>(matrix) + row * columns;
}
template <class T>
SWIN_DENSE_INLINE T* row_of(void* matrix, int64_t row, int64_t columns) {
  return static_cast<T*>(matrix) + row * columns;
}

SWIN_DENSE_INLINE void add_some(float* to, Float x, int64_t count) {
  store_some(to, load_some(to, count) + x, count);
}

template <int... l>
SWIN_DENSE_INLINE Int numbers(Lanes<l...>) {
  return Int{l...};
}

struct Stats {
  Float mean, inverse;  // of all channels; 1 / deviation
};

template <class X>
SWIN_DENSE_INLINE Stats stats_of(const X* x, int64_t columns, float eps) {
  Float sum{};
  for (int64_t c = 0; c < columns; c += kLanes) sum += load_some(x + c, columns - c);
  const Float mean = sum_of(sum) / static_cast<float>(columns);
  Float squares{};
  for (int64_t c = 0; c < columns; c += kLanes) {
    Float off = load_some(x + c, columns - c) - mean;
    if (columns - c < kLanes) off = numbers(Every()) < int32_t(columns - c) ? off : Float{};
    squares += off * off;
  }
  const float variance = sum_of(squares)[0] / static_cast<float>(columns);
  return {mean, all(1.f / __builtin_sqrtf(variance + eps))};
}

template <class X, class Y>
void norm(const Rows& call, int64_t first, int64_t last, float*) {
  const int64_t columns = call.columns;
  for (int64_t r = first; r < last; ++r) {
    const X* x = row_of<X>(call.x, r, columns);
    Y* out = row_of<Y>(call.out, r, columns);
    const Stats stats = stats_of(x, columns, call.eps);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      const Float unit = (load_some(x + c, count) - stats.mean) * stats.inverse;
      const Float scaled = unit * load_some(call.weight + c, count);
      store_some(out + c, scaled + load_some(call.bias + c, count), count);
    }
  }
}

// y: gradient of the normed rows. sums: of weight, of bias.
template <class X, class Y>
void norm_backward(const Rows& call, int64_t first, int64_t last, float* sums) {
  const int64_t columns = call.columns;
  for (int64_t r = first; r < last; ++r) {
    const X* x = row_of<X>(call.x, r, columns);
    const Y* y = row_of<Y>(call.y, r, columns);
    const X* to = call.to ? row_of<X>(call.to, r, columns) : nullptr;
    X* out = row_of<X>(call.out, r, columns);
    const Stats stats = stats_of(x, columns, call.eps);
    Float even{}, along{};
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      const Float grad = load_some(y + c, count);
      const Float by_unit = grad * load_some(call.weight + c, count);
      const Float unit = (load_some(x + c, count) - stats.mean) * stats.inverse;
      even += by_unit;
      along += by_unit * unit;
      add_some(sums + c, grad * unit, count);
      add_some(sums + columns + c, grad, count);
    }
    even = sum_of(even) / static_cast<float>(columns);
    along = sum_of(along) / static_cast<float>(columns);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      const Float by_unit = load_some(y + c, count) * load_some(call.weight + c, count);
      const Float unit = (load_some(x + c, count) - stats.mean) * stats.inverse;
      Float by_x = (by_unit - even - unit * along) * stats.inverse;
      if (to) by_x += load_some(to + c, count);
      store_some(out + c, by_x, count);
    }
  }
}

struct Gelu {
  Float value, slope;
};

// x P(X <= x) and its derivative, X of the normal distribution. Above the mean P is 1 - the upper
// tail; the tail is e^(-x^2 / 2) times a polynomial in t, fitted to be right to 1e-8.
SWIN_DENSE_INLINE Gelu gelu_of(Float x) {
  const Float size = x < 0.f ? -x : x;
  const Float t = 1.f / (1.f + size * 0.353553391f);
  Float tail = t * 5.88016736e-2f - 0.218238165f;
  tail = tail * t + 0.122179041f;
  tail = tail * t + 0.307679425f;
  tail = tail * t + 0.130844627f;
  tail = tail * t + 0.321698307f;
  tail = tail * t + 0.277035102f;
  const Float e = exp_of_negative(x * x * -0.5f);
  tail = tail * t * e * 0.5f;
  const Float below = x < 0.f ? tail : 1.f - tail;
  return {x * below, below + x * e * 0.398942280f};
}

template <class Y>
SWIN_DENSE_INLINE Float hidden_of(const Rows& call, const Y* row, int64_t c, int64_t count) {
  const Float x = load_some(row + c, count);
  return call.bias ? x + load_some(call.bias + c, count) : x;
}

// x and y are both of y's type here and below: nothing of the residual stream is involved.
template <class Y>
void gelu(const Rows& call, int64_t first, int64_t last, float*) {
  const int64_t columns = call.columns;
  for (int64_t r = first; r < last; ++r) {
    const Y* hidden = row_of<Y>(call.x, r, columns);
    Y* out = row_of<Y>(call.out, r, columns);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      store_some(out + c, gelu_of(hidden_of(call, hidden, c, count)).value, count);
    }
  }
}

// y: gradient of GELU's result. sums: of the gradient of what went into it.
template <class Y>
void gelu_backward(const Rows& call, int64_t first, int64_t last, float* sums) {
  const int64_t columns = call.columns;
  for (int64_t r = first; r < last; ++r) {
    const Y *hidden = row_of<Y>(call.x, r, columns), *grad = row_of<Y>(call.y, r, columns);
    Y *active = row_of<Y>(call.active, r, columns), *out = row_of<Y>(call.out, r, columns);
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      const Gelu gelu = gelu_of(hidden_of(call, hidden, c, count));
      const Float by = load_some(grad + c, count) * gelu.slope;
      store_some(active + c, gelu.value, count);
      store_some(out + c, by, count);
      add_some(sums + c, by, count);
    }
  }
}

// to + factor (y + bias)
template <class X, class Y>
void add(const Rows& call, int64_t first, int64_t last, float*) {
  const int64_t columns = call.columns;
  for (int64_t r = first; r < last; ++r) {
    const X* to = row_of<X>(call.to, r, columns);
    const Y* y = row_of<Y>(call.y, r, columns);
    X* out = row_of<X>(call.out, r, columns);
    const float factor = call.factor ? call.factor[r] : 1.f;
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      store_some(out + c, load_some(to + c, count) + hidden_of(call, y, c, count) * factor, count);
    }
  }
}

// factor x, as y's type. sums: of that.
template <class X, class Y>
void scale(const Rows& call, int64_t first, int64_t last, float* sums) {
  const int64_t columns = call.columns;
  for (int64_t r = first; r < last; ++r) {
    const X* x = row_of<X>(call.x, r, columns);
    Y* out = row_of<Y>(call.out, r, columns);
    const float factor = call.factor ? call.factor[r] : 1.f;
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t count = columns - c;
      const Float scaled = load_some(x + c, count) * factor;
      store_some(out + c, scaled, count);
      add_some(sums + c, scaled, count);
    }
  }
}

// One op for every pair of types.
#define SWIN_DENSE_BY_TYPES(op) \
  [](const Rows& call, int64_t first, int64_t last, float* sums) { \
    if (call.half_x) { \
      return call.half_y ? op<Bf16, Bf16>(call, first, last, sums) \
                         : op<Bf16, float>(call, first, last, sums); \
    } \
    return call.half_y ? op<float, Bf16>(call, first, last, sums) \
                       : op<float, float>(call, first, last, sums); \
  }
#define SWIN_DENSE_BY_TYPE(op) \
  [](const Rows& call, int64_t first, int64_t last, float* sums) { \
    return call.half_y ? op<Bf16>(call, first, last, sums) : op<float>(call, first, last, sums); \
  }

}  // namespace

extern const RowsLevel rows;
const RowsLevel rows = {SWIN_DENSE_BY_TYPES(norm), SWIN_DENSE_BY_TYPES(norm_backward),
                        SWIN_DENSE_BY_TYPE(gelu), SWIN_DENSE_BY_TYPE(gelu_backward),
                        SWIN_DENSE_BY_TYPES(add), SWIN_DENSE_BY_TYPES(scale)};

}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
