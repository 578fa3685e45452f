// Bilinear samples of a map that is 0 outside: where they lie, and what each corner weighs.
//
// A sample at (y, x), in positions of the map, mixes the four positions around it. Corners outside
// the map are left out. A sample that is not a number makes everything that reads it NaN.
#pragma once

#include "../stored.h"
#include "lanes.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

constexpr int kSamples = 64;  // placed side by side
constexpr int kCorners = 4;   // top left, top right, bottom left, bottom right

// So many channels as whole registers.
template <class T>
int64_t padded(int64_t channels) {
  return (channels + Wide<T>::lanes - 1) / Wide<T>::lanes * Wide<T>::lanes;
}

template <class V>
SWIN_DENSE_INLINE V load_ints(const int32_t* from) {
  V x;
  std::memcpy(&x, from, sizeof(V));
  return x;
}
template <class V>
SWIN_DENSE_INLINE void store_ints(int32_t* to, V x) {
  std::memcpy(to, &x, sizeof(V));
}

template <class S>
struct Samples {
  S y[kSamples], x[kSamples];  // in positions; below, how far beyond the top left corner
  int32_t height[kSamples], width[kSamples], start[kSamples];  // of its map: sizes, first position
  int32_t corner[kCorners][kSamples];                          // position, or -1: not in the map
  S weight[kCorners][kSamples];

  // From y, x and the maps to the corners and their weights. What lies between `count` and whole
  // registers is placed too, for nobody.
  void place(int64_t count) {
    for (int64_t s = 0; s < count; s += Wide<S>::lanes) place_register(s);
  }

 private:
  typedef typename Wide<S>::Register V;
  typedef typename Wide<S>::Ints Ints;
  static SWIN_DENSE_INLINE V numbers_of(Ints x) { return __builtin_convertvector(x, V); }
  // Of numbers, or of a comparison of numbers: -1 where it holds, in lanes as wide as theirs.
  template <class X>
  static SWIN_DENSE_INLINE Ints ints_of(X x) {
    return __builtin_convertvector(x, Ints);
  }

  // Whatever lies further out has no corner in the map either, and fits an integer.
  static SWIN_DENSE_INLINE V clamp(V at, V size) {
    const V least = all(S(-2)), most = size + S(1);
    const V low = at > least ? at : least;
    return low < most ? low : most;
  }
  static SWIN_DENSE_INLINE Ints below(V at) {
    const Ints toward_zero = ints_of(at);
    return toward_zero + ints_of(at < numbers_of(toward_zero));
  }

  SWIN_DENSE_INLINE void place_register(int64_t s) {
    const Ints rows = load_ints<Ints>(height + s), columns = load_ints<Ints>(width + s);
    const Ints begin = load_ints<Ints>(start + s);
    const V at_y = load(y + s), at_x = load(x + s);
    const V bottom = numbers_of(rows), end = numbers_of(columns);
    const auto number = ((at_y == at_y) & (at_x == at_x)) | (bottom == S(0)) | (end == S(0));
    const V down = clamp(at_y, bottom), right = clamp(at_x, end);
    const Ints top = below(down), left = below(right);
    const V dy = number ? down - numbers_of(top) : at_y + at_x;
    const V dx = number ? right - numbers_of(left) : at_y + at_x;
    store(y + s, dy);
    store(x + s, dx);
    const Ints up = (top >= 0) & (top < rows), low = (top >= -1) & (top < rows - 1);
    const Ints near = (left >= 0) & (left < columns), far = (left >= -1) & (left < columns - 1);
    const Ints first = begin + top * columns + left;
    store_ints(corner[0] + s, ints_of(number) ? first | ~(up & near) : begin);
    store_ints(corner[1] + s, (first + 1) | ~(up & far));
    store_ints(corner[2] + s, (first + columns) | ~(low & near));
    store_ints(corner[3] + s, (first + columns + 1) | ~(low & far));
    store(weight[0] + s, (S(1) - dy) * (S(1) - dx));
    store(weight[1] + s, (S(1) - dy) * dx);
    store(weight[2] + s, dy * (S(1) - dx));
    store(weight[3] + s, dy * dx);
  }
};

#define SWIN_DENSE_BY_STORED(run, ...)                    \
  switch (call.stored) {                                  \
    case Stored::float32: return run<float>(__VA_ARGS__); \
    case Stored::bfloat16: return run<Bf16>(__VA_ARGS__); \
    case Stored::float16: return run<Half>(__VA_ARGS__);  \
    case Stored::float64: return run<double>(__VA_ARGS__); \
  }

}  // namespace
}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
