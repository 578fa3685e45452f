// Numbers side by side in one register, as many as the level this file is compiled for holds.
//
// Every source of this folder is compiled once per level (setup.py) with that level's
// instructions allowed and SWIN_DENSE_LEVEL set to its name. All it shares with the other levels
// are plain structs, and everything here has internal linkage: an inline function of the standard
// library compiled for AVX-512 could be the copy that the linker keeps for everybody.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#define SWIN_DENSE_INLINE inline __attribute__((always_inline))

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kTileRows = 6, kTileColumns = 4;  // a tile fills 24 of 32 registers
#elif defined(__AVX2__)
constexpr int kBytes = 32, kTileRows = 4, kTileColumns = 3;  // 12 of 16
#else
constexpr int kBytes = 16, kTileRows = 4, kTileColumns = 3;
#endif
constexpr int kLanes = kBytes / 4;

typedef float Float __attribute__((vector_size(kBytes)));
typedef double Double __attribute__((vector_size(kBytes)));
typedef int32_t Int __attribute__((vector_size(kBytes)));
typedef uint32_t Unsigned __attribute__((vector_size(kBytes)));
typedef uint16_t Narrow __attribute__((vector_size(kBytes / 2)));

constexpr int64_t whole(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

SWIN_DENSE_INLINE Float load(const float* from) {
  Float x;
  std::memcpy(&x, from, kBytes);
  return x;
}
SWIN_DENSE_INLINE void store(float* to, Float x) { std::memcpy(to, &x, kBytes); }
SWIN_DENSE_INLINE Float all(float x) { return x - Float{}; }  // "- 0" also keeps -0 and NaN

// bfloat16 is the upper half of a float.
struct Bf16 {
  uint16_t bits;
};
SWIN_DENSE_INLINE float wide(float x) { return x; }
SWIN_DENSE_INLINE float wide(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
SWIN_DENSE_INLINE Float load(const Bf16* from) {
  Narrow x;
  std::memcpy(&x, from, kBytes / 2);
  return (Float)(__builtin_convertvector(x, Unsigned) << 16);
}
SWIN_DENSE_INLINE void store(Bf16* to, Float x) {
  const Unsigned bits = (Unsigned)x;
  const Unsigned even = bits + 0x7fffu + ((bits >> 16) & 1u);  // round to the nearest, ties to even
  const Unsigned out = (x == x) ? even : Unsigned{} + 0x7fc00000u;
  const Narrow narrow = __builtin_convertvector(out >> 16, Narrow);
  std::memcpy(to, &narrow, kBytes / 2);
}

// float16: a sign, 5 bits of exponent, 10 of fraction.
struct Half {
  uint16_t bits;
};
#if defined(__AVX512F__)
SWIN_DENSE_INLINE Float load(const Half* from) {
  __m256i x;
  std::memcpy(&x, from, kBytes / 2);
  return (Float)_mm512_cvtph_ps(x);
}
SWIN_DENSE_INLINE void store(Half* to, Float x) {
  const __m256i narrow = _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(to, &narrow, kBytes / 2);
}
#elif defined(__F16C__)
SWIN_DENSE_INLINE Float load(const Half* from) {
  __m128i x;
  std::memcpy(&x, from, kBytes / 2);
  return (Float)_mm256_cvtph_ps(x);
}
SWIN_DENSE_INLINE void store(Half* to, Float x) {
  const __m128i narrow = _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(to, &narrow, kBytes / 2);
}
#else
SWIN_DENSE_INLINE Float load(const Half* from) {
  Narrow x;
  std::memcpy(&x, from, kBytes / 2);
  const Unsigned wide = __builtin_convertvector(x, Unsigned), size = (wide & 0x7fffu) << 13;
  // The exponents differ by 112; a product is right for numbers below the normal ones, too.
  const Unsigned number = (Unsigned)((Float)size * 5.192296858534828e33f);
  const Unsigned out = (wide & 0x7fffu) >= 0x7c00u ? size | 0x7f800000u : number;
  return (Float)(out | ((wide & 0x8000u) << 16));
}
SWIN_DENSE_INLINE void store(Half* to, Float x) {
  const Unsigned bits = (Unsigned)x, size = bits & 0x7fffffffu;
  // To the nearest, ties to even; below the normal numbers a sum with 0.5 rounds at the last bit.
  const Unsigned normal = (size + 0xfffu + ((size >> 13) & 1u) - (112u << 23)) >> 13;
  const Unsigned small = (Unsigned)((Float)size + 0.5f) - 0x3f000000u;
  Unsigned out = size < 0x38800000u ? small : normal;
  out = size >= 0x477ff000u ? Unsigned{} + 0x7c00u : out;
  out = (x == x) ? out : Unsigned{} + 0x7e00u;
  const Narrow narrow = __builtin_convertvector(out | ((bits >> 16) & 0x8000u), Narrow);
  std::memcpy(to, &narrow, kBytes / 2);
}
#endif

SWIN_DENSE_INLINE Double load(const double* from) {
  Double x;
  std::memcpy(&x, from, kBytes);
  return x;
}
SWIN_DENSE_INLINE void store(double* to, Double x) { std::memcpy(to, &x, kBytes); }
SWIN_DENSE_INLINE Double all(double x) { return x - Double{}; }

// How a number is computed with once it is loaded: its scalar, its register, an integer for each
// lane of that, how many lanes.
template <class T>
struct Wide {
  typedef float Scalar;
  typedef Float Register;
  typedef Int Ints;
  static constexpr int lanes = kLanes;
};
template <>
struct Wide<double> {
  typedef double Scalar;
  typedef Double Register;
  typedef int32_t Ints __attribute__((vector_size(kBytes / 2)));
  static constexpr int lanes = kLanes / 2;
};

// The first `count` lanes only, or all if there are more; the others are 0.
template <class T>
SWIN_DENSE_INLINE typename Wide<T>::Register load_some(const T* from, int64_t count) {
  if (count >= Wide<T>::lanes) return load(from);
  T some[Wide<T>::lanes] = {};
  std::memcpy(some, from, count * sizeof(T));
  return load(some);
}
template <class T>
SWIN_DENSE_INLINE void store_some(T* to, typename Wide<T>::Register x, int64_t count) {
  if (count >= Wide<T>::lanes) return store(to, x);
  T some[Wide<T>::lanes];
  store(some, x);
  std::memcpy(to, some, count * sizeof(T));
}

SWIN_DENSE_INLINE Float maximum(Float a, Float b) { return a > b ? a : b; }

#if defined(__clang__)
#define SWIN_DENSE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SWIN_DENSE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Int{__VA_ARGS__})
#endif

template <int...>
struct Lanes {};
template <int n, int... rest>
struct Count : Count<n - 1, n - 1, rest...> {};
template <int... lanes>
struct Count<0, lanes...> {
  typedef Lanes<lanes...> type;
};
typedef Count<kLanes>::type Every;

// Lane l of the result is lane l of `a` where bit `step` of l is 0, else lane l - step of `b`.
template <int step, int... l>
SWIN_DENSE_INLINE Float lower_blocks(Float a, Float b, Lanes<l...>) {
  return SWIN_DENSE_SHUFFLE(a, b, ((l & step) ? l - step + kLanes : l)...);
}
template <int step, int... l>
SWIN_DENSE_INLINE Float upper_blocks(Float a, Float b, Lanes<l...>) {
  return SWIN_DENSE_SHUFFLE(a, b, ((l & step) ? l + kLanes : l + step)...);
}
template <int step, int... l>
SWIN_DENSE_INLINE Float across(Float a, Lanes<l...>) {
  return SWIN_DENSE_SHUFFLE(a, a, (l ^ step)...);
}

template <int step>
struct Fold {
  static SWIN_DENSE_INLINE Float sum(Float x) {
    return Fold<step / 2>::sum(x + across<step>(x, Every()));
  }
  static SWIN_DENSE_INLINE Float max(Float x) {
    return Fold<step / 2>::max(maximum(x, across<step>(x, Every())));
  }
  // Rows x columns of a block change places, one bit of their number at a time.
  static SWIN_DENSE_INLINE void transpose(Float* rows) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & step) continue;
      const Float a = rows[i], b = rows[i + step];
      rows[i] = lower_blocks<step>(a, b, Every());
      rows[i + step] = upper_blocks<step>(a, b, Every());
    }
    Fold<step / 2>::transpose(rows);
  }
};
template <>
struct Fold<0> {
  static SWIN_DENSE_INLINE Float sum(Float x) { return x; }
  static SWIN_DENSE_INLINE Float max(Float x) { return x; }
  static SWIN_DENSE_INLINE void transpose(Float*) {}
};

// Every lane holds the sum, or the maximum, of all lanes.
SWIN_DENSE_INLINE Float sum_of(Float x) { return Fold<kLanes / 2>::sum(x); }
SWIN_DENSE_INLINE Double sum_of(Double x) {
  double sum = 0;
  for (int l = 0; l < kLanes / 2; ++l) sum += x[l];
  return all(sum);
}
SWIN_DENSE_INLINE Float max_of(Float x) { return Fold<kLanes / 2>::max(x); }

// e^x for x <= 0, to 1 unit in the last place; 0 below the smallest normal number; NaN for NaN.
SWIN_DENSE_INLINE Float exp_of_negative(Float x) {
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number
  const Float shifted = x * 1.44269504f + magic;
  const Float n = shifted - magic;
  const Float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  Float p = r * 0.001381454f + 0.00836874525f;  // fitted on [-ln 2 / 2, ln 2 / 2]
  p = p * r + 0.0416683908f;
  p = p * r + 0.166665204f;
  p = p * r + 0.499999934f;
  p = p * (r * r) + r + 1.f;
  const Float scaled = (Float)((Unsigned)p + ((Unsigned)shifted << 23));
  const Float positive = x < -87.33f ? Float{} : scaled;
  return x == x ? positive : x;
}

// to (columns, rows) in whole registers from (rows, columns), each times `factor`. Both sides are
// scratch whose rows are whole registers; `from` is read, and `to` written, beyond the counts.
SWIN_DENSE_INLINE void transpose(const float* from, int64_t from_row, int64_t rows,
                                 int64_t columns, float* to, int64_t to_row, float factor) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    for (int64_t c = 0; c < columns; c += kLanes) {
      Float block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) block[i] = load(from + (r + i) * from_row + c) * factor;
      Fold<kLanes / 2>::transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(to + (c + i) * to_row + r, block[i]);
    }
  }
}

// c (rows, columns of registers) = or += sum over k of a(row, k) * b(k, columns).
template <int R, int C>
SWIN_DENSE_INLINE void tile(int64_t count, const float* a, int64_t a_row, int64_t a_k,
                            const float* b, int64_t b_k, float* c, int64_t c_row, bool add) {
  Float sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) sum[r][j] = Float{};
  }
  for (int64_t k = 0; k < count; ++k, a += a_k, b += b_k) {
    Float row[C];
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) row[j] = load(b + j * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Float factor = all(a[r * a_row]);
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) sum[r][j] += factor * row[j];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) {
      float* to = c + r * c_row + j * kLanes;
      store(to, add ? load(to) + sum[r][j] : sum[r][j]);
    }
  }
}

template <int C>
void some_rows(int rows, int64_t count, const float* a, int64_t a_row, int64_t a_k, const float* b,
               int64_t b_k, float* c, int64_t c_row, bool add) {
  switch (rows) {
#define SWIN_DENSE_ROWS(R) \
  case R:                  \
    return tile<R, C>(count, a, a_row, a_k, b, b_k, c, c_row, add);
    SWIN_DENSE_ROWS(1)
    SWIN_DENSE_ROWS(2)
    SWIN_DENSE_ROWS(3)
    SWIN_DENSE_ROWS(4)
    SWIN_DENSE_ROWS(5)
    SWIN_DENSE_ROWS(6)
#undef SWIN_DENSE_ROWS
  }
}

constexpr int64_t kSteps = 128;  // products added up before their sum is added to what is there

// The same for any number of rows, of columns in whole registers, and of products.
inline void multiply(int64_t rows, int64_t columns, int64_t count, const float* a, int64_t a_row,
                     int64_t a_k, const float* b, int64_t b_k, float* c, int64_t c_row, bool add) {
  const int64_t registers = columns / kLanes;
  const int64_t panels = (registers + kTileColumns - 1) / kTileColumns;
  for (int64_t k = 0; k < count; k += kSteps, add = true) {
    const int64_t steps = count - k < kSteps ? count - k : kSteps;
    for (int64_t r = 0; r < rows; r += kTileRows) {
      const int some = static_cast<int>(rows - r < kTileRows ? rows - r : kTileRows);
      const float* left = a + r * a_row + k * a_k;
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t first = registers * p / panels * kLanes;
        const int64_t width = registers * (p + 1) / panels - first / kLanes;
        const float* from = b + k * b_k + first;
        float* to = c + r * c_row + first;
        if (width == 1) some_rows<1>(some, steps, left, a_row, a_k, from, b_k, to, c_row, add);
        if (width == 2) some_rows<2>(some, steps, left, a_row, a_k, from, b_k, to, c_row, add);
        if (width == 3) some_rows<3>(some, steps, left, a_row, a_k, from, b_k, to, c_row, add);
        if (width == 4) some_rows<4>(some, steps, left, a_row, a_k, from, b_k, to, c_row, add);
      }
    }
  }
}

}  // namespace
}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
