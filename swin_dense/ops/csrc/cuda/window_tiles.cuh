// What window attention is made of: tiles of 64 tokens of a window in shared memory, products of
// two tiles, and the way between a tile and the map.
//
// A block is four warps. Of every product of 64 rows a warp computes 16, its strip, and holds it
// in registers as the tensor cores do: a lane has columns 2 c and 2 c + 1 of every eight, of the
// rows r and r + 8, where r = lane / 4, c = lane % 4. float32 is kept in the same order, so that
// all that is no product is one code.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "tensor_core.cuh"

namespace swin_dense {

constexpr int kTile = 64;
constexpr int kBlock = 128;
constexpr int kBiasStride = kTile + 8;  // two rows of a half-warp's reads share no bank
constexpr int kOutside = -1;            // place of a token that lies outside the map
constexpr int kNothing = -2;            // place of a row after the window's last token
constexpr float kSmallestNorm = 1e-12f;

// The sizes of a call. `down` and `across` are height and width, rounded up to whole windows.
struct Plan {
  int height, width, heads, dim, window, shift, length, down, across;
  int windows;  // of all images
  bool cosine;
  bool whole;        // every row of `dim` numbers can be read and written 16 bytes at a time
  int tiles;         // of a window; each is the queries of other blocks
  int groups, each;  // the windows are dealt to so many groups of so many
  // Only where warps have strips, see window_strips.cuh.
  int rows;        // of queries in a block, 16 for each warp
  int padded;      // keys of a window, rounded up
  int keys;        // in shared memory at a time
  int from, some;  // windows of each group that come before this launch, and in it
};

// What a block does: some windows, one head, one tile of the rows.
struct Job {
  int head, tile, group, begin, end;
  __device__ explicit Job(const Plan& plan) {
    head = blockIdx.x % plan.heads;
    tile = blockIdx.x / plan.heads % plan.tiles;
    group = blockIdx.x / plan.heads / plan.tiles;
    begin = group * plan.each;
    end = begin + plan.each < plan.windows ? begin + plan.each : plan.windows;
  }
};

struct Window {
  int row, column;  // of its first token, on the map as the shift has turned it
  int64_t image;    // the number of its image's first token
  bool torn;        // it holds tokens that may not see one another
  bool ragged;      // it reaches over the border of the map

  __device__ Window(const Plan& plan, int number) {
    const int many = plan.across / plan.window;
    column = number % many * plan.window;
    const int above = number / many, rows = plan.down / plan.window;
    row = above % rows * plan.window;
    image = static_cast<int64_t>(above / rows) * plan.height * plan.width;
    look(plan);
  }

  // Goes on to the window with the next number.
  __device__ void move_on(const Plan& plan) {
    column += plan.window;
    if (column == plan.across) column = 0, row += plan.window;
    if (row == plan.down) row = 0, image += static_cast<int64_t>(plan.height) * plan.width;
    look(plan);
  }

 private:
  __device__ void look(const Plan& plan) {
    torn = plan.shift > 0 &&
           (row + plan.window == plan.down || column + plan.window == plan.across);
    const int bottom = row + plan.shift + plan.window, right = column + plan.shift + plan.window;
    ragged = (plan.height < plan.down && bottom > plan.height) ||
             (plan.width < plan.across && right > plan.width);
  }
};

// Where a token of a window is.
struct Spot {
  int place;   // in the image, or kOutside or kNothing
  int region;  // tokens of a torn window see those of their own

  // What comes after the last token stands for it, so that it sees something and no NaN comes up.
  __device__ Spot(const Plan& plan, const Window& window, int wanted) {
    const int token = wanted < plan.length ? wanted : plan.length - 1;
    *this = Spot(plan, window, token / plan.window, token % plan.window);
    if (wanted >= plan.length) place = kNothing;
  }

  // Of the token in that row and column of the window.
  __device__ Spot(const Plan& plan, const Window& window, int down, int right) {
    const int turned_y = window.row + down, turned_x = window.column + right;
    int y = turned_y + plan.shift, x = turned_x + plan.shift;
    if (y >= plan.down) y -= plan.down;
    if (x >= plan.across) x -= plan.across;
    place = y < plan.height && x < plan.width ? y * plan.width + x : kOutside;
    region = (turned_y >= plan.down - plan.shift) * 2 + (turned_x >= plan.across - plan.shift);
  }
};

// About each row of a tile.
struct Rows {
  int place[kTile], region[kTile];  // see Spot
  float factor[kTile];   // what the tile's row is short of length 1; 1 if that is not asked
  float inverse[kTile];  // 1 / norm of the token; only if length 1 is asked

  __device__ void lay(const Plan& plan, const Window& window, int tile, int row) {
    const Spot spot(plan, window, tile * kTile + row);
    place[row] = spot.place, region[row] = spot.region;
    factor[row] = 1.f;
  }
};

template <class T, int D>
struct Tile {
  static constexpr int kPiece = 16 / sizeof(T);  // numbers in 16 bytes
  // A piece of slack per row: eight rows of a column of pieces lie in different banks.
  static constexpr int kStride = D + kPiece;
  T row[kTile][kStride];
};

// Numbers of the window's tokens: a map with `stride` numbers per token, and one row for the
// tokens outside of it; none of it means zeros.
template <class T>
struct Source {
  const T* map;
  int64_t stride;
  const T* outside;
  __device__ const T* at(int place) const {
    return place >= 0 ? map + place * stride : place == kOutside ? outside : nullptr;
  }
};

// A thread's share of a tile on its way from the map, if rows are whole; taken apart from put, so
// that what several tiles wait for is under way at the same time.
template <class T, int D>
struct Pieces {
  static constexpr int kPiece = Tile<T, D>::kPiece, kPerRow = D / kPiece;
  static constexpr int kMine = kTile * kPerRow / kBlock;
  uint4 mine[kMine];

  __device__ void take(const Rows& rows, const Source<T>& source, const Plan& plan) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int item = i * kBlock + threadIdx.x, first = item % kPerRow * kPiece;
      const T* from = source.at(rows.place[item / kPerRow]);
      mine[i] = uint4{0, 0, 0, 0};
      if (from != nullptr && first < plan.dim) {
        mine[i] = *reinterpret_cast<const uint4*>(from + first);
      }
    }
  }

  __device__ void put(Tile<T, D>& tile) const {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int item = i * kBlock + threadIdx.x;
      *reinterpret_cast<uint4*>(&tile.row[item / kPerRow][item % kPerRow * kPiece]) = mine[i];
    }
  }
};

// The same for rows that are not whole, number by number.
template <class T, int D>
__device__ void copy(Tile<T, D>& tile, const Rows& rows, const Source<T>& source,
                     const Plan& plan) {
#pragma unroll 1
  for (int item = threadIdx.x; item < kTile * D; item += kBlock) {
    const T* from = source.at(rows.place[item / D]);
    const int d = item % D;
    tile.row[item / D][d] = from != nullptr && d < plan.dim ? from[d] : T(0.f);
  }
}

struct Length {
  float inverse, factor;  // 1 / norm of the token; what its row is short of length 1
};

// Brings a row near length 1: times a power of two, which rounds nothing away, and the rest of
// the way is the row's factor.
template <class T, int D>
__device__ Length normalise(T* row) {
  constexpr int kPiece = Tile<T, D>::kPiece;
  alignas(16) T numbers[kPiece];
  float sum = 0.f;
  for (int d = 0; d < D; d += kPiece) {
    *reinterpret_cast<uint4*>(numbers) = *reinterpret_cast<const uint4*>(row + d);
#pragma unroll
    for (int e = 0; e < kPiece; ++e) {
      sum += static_cast<float>(numbers[e]) * static_cast<float>(numbers[e]);
    }
  }
  const float inverse = 1.f / fmaxf(sqrtf(sum), kSmallestNorm);
  const float power = __uint_as_float(__float_as_uint(inverse) & 0x7f800000u);
  for (int d = 0; d < D; d += kPiece) {
    *reinterpret_cast<uint4*>(numbers) = *reinterpret_cast<const uint4*>(row + d);
#pragma unroll
    for (int e = 0; e < kPiece; ++e) {
      numbers[e] = static_cast<T>(static_cast<float>(numbers[e]) * power);
    }
    *reinterpret_cast<uint4*>(row + d) = *reinterpret_cast<const uint4*>(numbers);
  }
  return {inverse, power > 0.f ? inverse / power : 0.f};
}

// The bias of a tile of queries and one of keys; it also takes away the keys that do not exist.
__device__ inline void put_bias(float (&to)[kTile][kBiasStride], const float* of_head, int length,
                                int query_tile, int key_tile) {
  constexpr int kBatch = 8;  // reads under way at the same time
  const int column = threadIdx.x % kTile, key = key_tile * kTile + column;
#pragma unroll 1
  for (int row = threadIdx.x / kTile; row < kTile; row += kBlock / kTile * kBatch) {
    float values[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int query = query_tile * kTile + row + i * (kBlock / kTile);
      values[i] = key < length ? 0.f : -INFINITY;
      if (query < length && key < length) values[i] = of_head[query * length + key];
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) to[row + i * (kBlock / kTile)][column] = values[i];
  }
}

struct Lane {
  int row, column;  // of the strip's first number, which is one of the tile
  __device__ Lane()
      : row(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4), column(threadIdx.x % 4 * 2) {}
};

template <int eights>
using Strip = float[eights][4];
constexpr int kEights = kTile / 8;

// 16 rows times 8 for each of `eights`, transposed; both lie as in a Tile.
template <class T, int D, int eights>
__device__ void product(Strip<eights>& out, const T* rows, const T* columns) {
  constexpr int kStride = Tile<T, D>::kStride;
#pragma unroll
  for (int n = 0; n < eights; ++n) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.f;
  if constexpr (sizeof(T) == 2) {
    const int lane = threadIdx.x % 32;
    const T* left = rows + lane % 16 * kStride + lane / 16 * 8;
    const T* right = columns + (lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      uint32_t a[4], b[4];
      load_blocks<false>(a, left + d);
#pragma unroll
      for (int n = 0; n < eights; n += 2) {
        load_blocks<false>(b, right + n * 8 * kStride + d);
        multiply_add<T>(out[n], a, b[0], b[1]);
        multiply_add<T>(out[n + 1], a, b[2], b[3]);
      }
    }
  } else {
    const int r = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll 1
    for (int d = 0; d < D; d += 4) {
      const float4 upper = *reinterpret_cast<const float4*>(rows + r * kStride + d);
      const float4 lower = *reinterpret_cast<const float4*>(rows + (r + 8) * kStride + d);
#pragma unroll
      for (int n = 0; n < eights; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float* column = columns + (n * 8 + c * 2 + e) * kStride + d;
          const float4 y = *reinterpret_cast<const float4*>(column);
          out[n][e] += upper.x * y.x + upper.y * y.y + upper.z * y.z + upper.w * y.w;
          out[n][2 + e] += lower.x * y.x + lower.y * y.y + lower.z * y.z + lower.w * y.w;
        }
      }
    }
  }
}

// Adds a strip of weights times 8 rows of values for each of `eights`, which lie as in a Tile.
template <class T, int D, int eights>
__device__ void add_weighted(Strip<D / 8>& sum, const Strip<eights>& weights, const T* values) {
  constexpr int kStride = Tile<T, D>::kStride;
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int n = 0; n < eights; n += 2) {
      const float(&left)[4] = weights[n], (&right)[4] = weights[n + 1];
      const uint32_t a[4] = {pack<T>(left[0], left[1]), pack<T>(left[2], left[3]),
                             pack<T>(right[0], right[1]), pack<T>(right[2], right[3])};
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        uint32_t b[4];
        load_blocks<true>(b, values + (n * 8 + lane % 16) * kStride + d + lane / 16 * 8);
        multiply_add<T>(sum[d / 8], a, b[0], b[1]);
        multiply_add<T>(sum[d / 8 + 1], a, b[2], b[3]);
      }
    }
  } else {
#pragma unroll
    for (int n = 0; n < eights; ++n) {
#pragma unroll 1
      for (int c = 0; c < 4; ++c) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float upper = __shfl_sync(~0u, weights[n][e], lane / 4 * 4 + c);
          const float lower = __shfl_sync(~0u, weights[n][2 + e], lane / 4 * 4 + c);
          const float* value = values + (n * 8 + c * 2 + e) * kStride + lane % 4 * 2;
#pragma unroll
          for (int m = 0; m < D / 8; ++m) {
            const float2 y = *reinterpret_cast<const float2*>(value + m * 8);
            sum[m][0] += upper * y.x, sum[m][1] += upper * y.y;
            sum[m][2] += lower * y.x, sum[m][3] += lower * y.y;
          }
        }
      }
    }
  }
}

// The same of the warp's rows of a tile, and of all of another.
template <class T, int D>
__device__ void product(Strip<kEights>& out, const Tile<T, D>& rows, const Tile<T, D>& columns) {
  product<T, D>(out, rows.row[threadIdx.x / 32 * 16], columns.row[0]);
}

template <class T, int D>
__device__ void add_weighted(Strip<D / 8>& sum, const Strip<kEights>& weights,
                             const Tile<T, D>& values) {
  add_weighted<T, D>(sum, weights, values.row[0]);
}

// A row of a strip lies in four lanes.
__device__ inline float sum_of_four(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ inline float most_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

// What the lanes of a warp have, added up in always the same order.
__device__ inline float sum_of_warp(float x) {
  for (int step = 1; step <= 16; step *= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}

// Word i of lane c goes to word c of lane i, in every four lanes.
__device__ inline void transpose(uint32_t (&words)[4]) {
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool second = threadIdx.x & step;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const uint32_t got = __shfl_xor_sync(~0u, second ? words[i] : words[i + step], step);
      if (second) words[i] = got;
      else words[i + step] = got;
    }
  }
}

// Writes one row of the strip, the upper or the lower of the lane's two, if there is where to.
template <class T, int D>
__device__ void write_row(const Strip<D / 8>& strip, int half, T* to, const Plan& plan) {
  const int c = threadIdx.x % 4;
  if constexpr (sizeof(T) == 2) {
    if (plan.whole) {
#pragma unroll
      for (int n = 0; n < D / 8; n += 4) {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          words[i] = pack<T>(strip[n + i][half * 2], strip[n + i][half * 2 + 1]);
        }
        transpose(words);
        const int first = (n + c) * 8;
        if (to == nullptr || first >= plan.dim) continue;
        *reinterpret_cast<uint4*>(to + first) = uint4{words[0], words[1], words[2], words[3]};
      }
      return;
    }
  }
  if (to == nullptr) return;
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    const int first = n * 8 + c * 2;
    if (first < plan.dim) to[first] = static_cast<T>(strip[n][half * 2]);
    if (first + 1 < plan.dim) to[first + 1] = static_cast<T>(strip[n][half * 2 + 1]);
  }
}

}  // namespace swin_dense
