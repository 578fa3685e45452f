// Bilinear samples of maps that are 0 outside, and how threads share the channels of a row.
//
// A sample at (y, x), in positions of its map, mixes the four positions around it. Corners outside
// the map are left out. A sample that is not a number makes everything that reads it NaN.
//
// A team is 1, 2, 4, ... 32 neighbouring threads of a warp that have a row of channels between
// them. Each places one sample: where its corners lie and what they weigh is worked out once, and
// the team reads it from shared memory.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <limits>
#include <type_traits>

#include "launch.cuh"

namespace swin_dense {

constexpr int kWarp = 32;
constexpr int kCorners = 4;  // top left, top right, bottom left, bottom right
constexpr int kFour = 4;     // samples that a team takes back at a time
constexpr int64_t kMostPositions = 1 << 30;  // of all maps; their numbers are 32-bit

// In which sums over numbers of type T are kept.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;

struct Map {
  int height, width, start;  // its first position
};

template <class A>
struct alignas(16) Corners {
  int position[kCorners];  // or -1: not in the map
  A weight[kCorners];

  __device__ void leave_out() {
#pragma unroll
    for (int c = 0; c < kCorners; ++c) position[c] = -1, weight[c] = A(0);
  }
};

// How far a sample lies beyond its top left corner.
template <class A>
struct Sample {
  A y, x;

  __device__ A weight(int corner) const {
    return (corner / 2 ? y : A(1) - y) * (corner % 2 ? x : A(1) - x);
  }
  // What flows back to y, x and the factor of the sample; p are the products of the gradient with
  // each corner.
  __device__ A by_y(const A (&p)[kCorners]) const {
    return (A(1) - x) * (p[2] - p[0]) + x * (p[3] - p[1]);
  }
  __device__ A by_x(const A (&p)[kCorners]) const {
    return (A(1) - y) * (p[1] - p[0]) + y * (p[3] - p[2]);
  }
  __device__ A by_factor(const A (&p)[kCorners]) const {
    return weight(0) * p[0] + weight(1) * p[1] + weight(2) * p[2] + weight(3) * p[3];
  }
};

// Whatever lies further out has no corner in the map either, and fits an integer.
template <class A>
__device__ A to_reach(A at, int size) {
  const A low = at > A(-2) ? at : A(-2), high = static_cast<A>(size + 1);
  return low < high ? low : high;
}

template <class A>
__device__ Sample<A> place(A y, A x, A factor, const Map& map, Corners<A>& to) {
  const bool number = (y == y && x == x) || map.height == 0 || map.width == 0;
  const A down = to_reach(y, map.height), right = to_reach(x, map.width);
  const int top = static_cast<int>(floor(down)), left = static_cast<int>(floor(right));
  Sample<A> sample{down - static_cast<A>(top), right - static_cast<A>(left)};
  if (!number) sample.y = sample.x = y + x;
#pragma unroll
  for (int c = 0; c < kCorners; ++c) {
    const int row = top + c / 2, column = left + c % 2;
    const bool inside = row >= 0 && row < map.height && column >= 0 && column < map.width;
    to.position[c] = inside ? map.start + row * map.width + column : -1;
    to.weight[c] = inside ? sample.weight(c) * factor : A(0);
  }
  if (!number) to.position[0] = map.start, to.weight[0] = sample.y * factor;
  return sample;
}

struct Team {
  int lanes, lane;  // how many threads, which of them
  int number;       // of the team in its block
  int first, step;  // slots of shared memory

  __device__ explicit Team(int lanes) : lanes(lanes) {
    lane = threadIdx.x & (lanes - 1), number = static_cast<int>(threadIdx.x) / lanes;
    step = kWarp / lanes;
    first = (threadIdx.x & ~(kWarp - 1)) + (number & (step - 1));
  }
  // Of the team's sample i. Teams of a warp lie side by side: what they read at the same time is
  // in different banks.
  __device__ int slot(int i) const { return first + i * step; }
  // Which of `lanes` samples this thread gets the sums of, in the backward.
  __device__ int mine() const {
    const int quarter = lanes / kFour;
    return (lane & (quarter - 1)) * kFour + lane / quarter;
  }
};

// Threads for a row so long, if each takes `each` channels.
inline int lanes_for(int64_t channels, int each, int least) {
  int lanes = least;
  while (lanes < kWarp && lanes * each < channels) lanes *= 2;
  return lanes;
}

template <int bytes>
struct WordOf;
template <>
struct WordOf<8> {
  using Type = uint2;
};
template <>
struct WordOf<16> {
  using Type = uint4;
};

template <class T, int V>
struct Piece {
  using Word = typename WordOf<sizeof(T) * V>::Type;
  alignas(16) T x[V];
};

// Whether four floats are added in one instruction. Where they are not, neighbouring threads had
// better add to neighbouring numbers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kAddsFour = false;
#else
constexpr bool kAddsFour = true;
#endif

// Only where that is so.
__device__ inline void add_four(float* to, const float4& x) {
#ifdef CUDA_ON_CPU
  atomicAdd(reinterpret_cast<float4*>(to), x);
#elif __CUDA_ARCH__ >= 900
  // No reader waits for it, so that the compiler may go on with what comes after it.
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w));
#endif
}

// The V channels of a thread, of V * lanes that the team takes of a row at a time: in a run, read
// and written in one instruction if rows are laid out for it (wide), else every `lanes`-th.
template <int V, bool wide>
struct Share {
  int lane, lanes;

  __device__ explicit Share(const Team& team) : lane(team.lane), lanes(team.lanes) {}
  __device__ int channel(int i) const { return wide ? lane * V + i : i * lanes + lane; }

  // `left` channels from `row` on; zeros for those that are not there, or if none is wanted.
  template <class T>
  __device__ void read(const T* row, int left, bool wanted, Piece<T, V>& to) const {
    if constexpr (wide) {
      using Word = typename Piece<T, V>::Word;
      Word word = Word();
      if (wanted && channel(0) < left) {
        word = __ldg(reinterpret_cast<const Word*>(row + channel(0)));
      }
      *reinterpret_cast<Word*>(to.x) = word;
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) to.x[i] = wanted && channel(i) < left ? row[channel(i)] : T(0.f);
    }
  }

  template <class T, class A>
  __device__ void write(T* row, int left, const A (&from)[V]) const {
    if constexpr (wide) {
      using Word = typename Piece<T, V>::Word;
      Piece<T, V> piece;
#pragma unroll
      for (int i = 0; i < V; ++i) piece.x[i] = static_cast<T>(from[i]);
      if (channel(0) >= left) return;
      *reinterpret_cast<Word*>(row + channel(0)) = *reinterpret_cast<const Word*>(piece.x);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (channel(i) < left) row[channel(i)] = static_cast<T>(from[i]);
      }
    }
  }

  // Other threads may add to the same numbers.
  template <class A>
  __device__ void add(A* row, int left, const A (&from)[V], A weight) const {
    if constexpr (wide) {
      static_assert(V == 4 && std::is_same_v<A, float>);
      if (channel(0) >= left) return;
      add_four(row + channel(0), float4{weight * from[0], weight * from[1], weight * from[2],
                                        weight * from[3]});
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (channel(i) < left) atomicAdd(row + channel(i), weight * from[i]);
      }
    }
  }

  // Adds a sample to `sum`. `base` is where the row of position 0 is, `stride` leads to the next.
  template <class T, class A>
  __device__ void add_sample(const Corners<A>& corners, const T* base, int stride, int left,
                             A (&sum)[V]) const {
    Piece<T, V> rows[kCorners];
#pragma unroll
    for (int c = 0; c < kCorners; ++c) {
      const int position = corners.position[c];
      read(base + static_cast<int64_t>(position) * stride, left, position >= 0, rows[c]);
    }
#pragma unroll
    for (int c = 0; c < kCorners; ++c) {
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += corners.weight[c] * static_cast<A>(rows[c].x[i]);
    }
  }

  // The way back of a sample whose gradient is `given`: corners get their share of it, and its
  // products with them are added to `products`, as far as this thread's channels go.
  template <class T, class A>
  __device__ void take_back(const Corners<A>& corners, const T* base, A* by_base, int stride,
                            int left, const Piece<T, V>& given, A (&products)[kCorners]) const {
    Piece<T, V> rows[kCorners];
#pragma unroll
    for (int c = 0; c < kCorners; ++c) {
      const int position = corners.position[c];
      read(base + static_cast<int64_t>(position) * stride, left, position >= 0, rows[c]);
    }
    A grad[V];
#pragma unroll
    for (int i = 0; i < V; ++i) grad[i] = static_cast<A>(given.x[i]);
#pragma unroll
    for (int c = 0; c < kCorners; ++c) {
      if (corners.position[c] < 0) continue;
#pragma unroll
      for (int i = 0; i < V; ++i) products[c] += grad[i] * static_cast<A>(rows[c].x[i]);
      add(by_base + static_cast<int64_t>(corners.position[c]) * stride, left, grad,
          corners.weight[c]);
    }
  }
};

// From the threads' parts of the sums of four samples to whole sums in the first place, those of
// sample lane / (lanes / 4). All threads of the warp have to come.
template <class A>
__device__ void hand_out(const Team& team, A (&sums)[kFour][kCorners]) {
  const int half = team.lanes / 2, quarter = team.lanes / 4;
  // Each time, half of the sums go to the other half of the threads.
#pragma unroll
  for (int c = 0; c < kCorners; ++c) {
    const bool later = team.lane & half;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const A given = later ? sums[s][c] : sums[s + 2][c];
      const A kept = later ? sums[s + 2][c] : sums[s][c];
      sums[s][c] = kept + __shfl_xor_sync(~0u, given, half);
    }
  }
#pragma unroll
  for (int c = 0; c < kCorners; ++c) {
    const bool later = team.lane & quarter;
    const A given = later ? sums[0][c] : sums[1][c], kept = later ? sums[1][c] : sums[0][c];
    sums[0][c] = kept + __shfl_xor_sync(~0u, given, quarter);
  }
  for (int step = quarter / 2; step > 0; step /= 2) {
#pragma unroll
    for (int c = 0; c < kCorners; ++c) sums[0][c] += __shfl_xor_sync(~0u, sums[0][c], step);
  }
}

// Goes through the first `count` samples of the team, four at a time: take_four(first, sums) adds
// this thread's products. `mine` becomes the products of sample team.mine(). All threads of the
// warp have to come, with one count.
template <class A, class TakeFour>
__device__ void collect(const Team& team, int count, A (&mine)[kCorners],
                        const TakeFour& take_four) {
  const int quarter = team.lanes / kFour;
#pragma unroll
  for (int c = 0; c < kCorners; ++c) mine[c] = A(0);
#pragma unroll 1
  for (int i = 0; i < quarter && i * kFour < count; ++i) {
    A sums[kFour][kCorners] = {};
    take_four(i * kFour, sums);
    hand_out(team, sums);
    if ((team.lane & (quarter - 1)) != i) continue;
#pragma unroll
    for (int c = 0; c < kCorners; ++c) mine[c] = sums[0][c];
  }
}

// Calls body with a zero of the tensor's type.
template <class Body>
void by_dtype(const torch::stable::Tensor& tensor, const Body& body) {
  using torch::headeronly::ScalarType;
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return body(double(0));
    case ScalarType::Float:
      return body(float(0));
    case ScalarType::Half:
      return body(c10::Half(0.f));
    case ScalarType::BFloat16:
      return body(c10::BFloat16(0.f));
    default:
      STD_TORCH_CHECK(false, "bilinear samples are of float64, float32, float16 or bfloat16.");
  }
}

inline torch::headeronly::ScalarType summed_as(const torch::stable::Tensor& tensor) {
  using torch::headeronly::ScalarType;
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Whether rows of so many channels begin at multiples of 16 bytes, and hold whole runs of `each`.
template <class... Pointers>
bool in_runs(int64_t channels, int each, Pointers... pointers) {
  return channels % each == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace swin_dense
