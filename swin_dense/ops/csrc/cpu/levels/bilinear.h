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

template <class S>
struct Samples;
template <class S>
void place_all(Samples<S>& samples, int64_t count);

template <class S>
struct Samples {
  S y[kSamples], x[kSamples];  // in positions; below, how far beyond the top left corner
  int32_t height[kSamples], width[kSamples], start[kSamples];  // of its map: sizes, first position
  int32_t corner[kCorners][kSamples];                          // position, or -1: not in the map
  S weight[kCorners][kSamples];

  // From y, x and the maps to the corners and their weights.
  void place(int64_t count) { place_all(*this, count); }

  void place_alone(int64_t count) {
    for (int64_t s = 0; s < count; ++s) {
      const bool empty = height[s] == 0 || width[s] == 0;
      const bool number = (y[s] == y[s] && x[s] == x[s]) || empty;
      // Whatever lies further out has no corner in the map either, and fits an integer.
      const S down = clamp(y[s], height[s]), right = clamp(x[s], width[s]);
      const int32_t top = below(down), left = below(right);
      y[s] = number ? down - static_cast<S>(top) : y[s] + x[s];
      x[s] = number ? right - static_cast<S>(left) : y[s];
      const bool rows[2] = {top >= 0 && top < height[s], top >= -1 && top < height[s] - 1};
      const bool columns[2] = {left >= 0 && left < width[s], left >= -1 && left < width[s] - 1};
      const S vertical[2] = {1 - y[s], y[s]}, horizontal[2] = {1 - x[s], x[s]};
      const int32_t first = start[s] + top * width[s] + left;
#pragma GCC unroll 4
      for (int c = 0; c < kCorners; ++c) {
        const int32_t position = first + (c / 2 ? width[s] : 0) + c % 2;
        corner[c][s] = rows[c / 2] && columns[c % 2] ? position : -1;
        weight[c][s] = vertical[c / 2] * horizontal[c % 2];
      }
      corner[0][s] = number ? corner[0][s] : start[s];
    }
  }

 private:
  static SWIN_DENSE_INLINE S clamp(S at, int32_t size) {
    const S low = at > S(-2) ? at : S(-2), high = static_cast<S>(size + 1);
    return low < high ? low : high;
  }
  static SWIN_DENSE_INLINE int32_t below(S at) {
    const int32_t toward_zero = static_cast<int32_t>(at);
    return toward_zero - (at < static_cast<S>(toward_zero) ? 1 : 0);
  }
};

#define SWIN_DENSE_BY_STORED(run, ...)                    \
  switch (call.stored) {                                  \
    case Stored::float32: return run<float>(__VA_ARGS__); \
    case Stored::bfloat16: return run<Bf16>(__VA_ARGS__); \
    case Stored::float16: return run<Half>(__VA_ARGS__);  \
    case Stored::float64: return run<double>(__VA_ARGS__); \
  }

template <class S>
void place_all(Samples<S>& samples, int64_t count) {
  samples.place_alone(count);
}

SWIN_DENSE_INLINE Int load_ints(const int32_t* from) {
  Int x;
  std::memcpy(&x, from, kBytes);
  return x;
}
SWIN_DENSE_INLINE void store_ints(int32_t* to, Int x) { std::memcpy(to, &x, kBytes); }
SWIN_DENSE_INLINE Float floats_of(Int x) { return __builtin_convertvector(x, Float); }

// The same in registers. What lies between `count` and whole registers is placed too, for nobody.
template <>
SWIN_DENSE_INLINE void place_all(Samples<float>& at, int64_t count) {
  for (int64_t s = 0; s < count; s += kLanes) {
    const Float y = load(at.y + s), x = load(at.x + s);
    const Int height = load_ints(at.height + s), width = load_ints(at.width + s);
    const Int start = load_ints(at.start + s);
    const Int number = ((y == y) & (x == x)) | (height == 0) | (width == 0);
    const Float bottom = floats_of(height) + 1.f, end = floats_of(width) + 1.f;
    Float down = y > -2.f ? y : all(-2.f), right = x > -2.f ? x : all(-2.f);
    down = down < bottom ? down : bottom;
    right = right < end ? right : end;
    Int top = __builtin_convertvector(down, Int), left = __builtin_convertvector(right, Int);
    top += down < floats_of(top);  // a comparison is -1 where it holds
    left += right < floats_of(left);
    const Float dy = number ? down - floats_of(top) : y + x;
    const Float dx = number ? right - floats_of(left) : y + x;
    store(at.y + s, dy);
    store(at.x + s, dx);
    const Int up = (top >= 0) & (top < height), low = (top >= -1) & (top < height - 1);
    const Int near = (left >= 0) & (left < width), far = (left >= -1) & (left < width - 1);
    const Int first = start + top * width + left;
    store_ints(at.corner[0] + s, number ? first | ~(up & near) : start);
    store_ints(at.corner[1] + s, (first + 1) | ~(up & far));
    store_ints(at.corner[2] + s, (first + width) | ~(low & near));
    store_ints(at.corner[3] + s, (first + width + 1) | ~(low & far));
    store(at.weight[0] + s, (1.f - dy) * (1.f - dx));
    store(at.weight[1] + s, (1.f - dy) * dx);
    store(at.weight[2] + s, dy * (1.f - dx));
    store(at.weight[3] + s, dy * dx);
  }
}

}  // namespace
}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
