// Window attention where each warp of a block has a strip of 16 queries, and a block the places of
// all tokens of a window.
//
// A strip meets the keys in runs, of so many that their logits fit into registers. The bias lies
// as lanes read it: four numbers for each lane of each strip, eight keys after eight keys. It is
// laid so in shared memory, once for all windows of a block, or once for a call in global memory.
#pragma once

#include "window_logits.cuh"

namespace swin_dense {

constexpr int kStrip = 16;
constexpr size_t kHalfShared = 164 * 1024 / 2 - 1024;  // bytes of a block, two at once on sm_80

inline int round_up(int count, int step) { return (count + step - 1) / step * step; }

// A part of the block's shared memory. Where it lies is an argument of the kernel, so that it takes
// no register.
template <class X>
struct Part {
  unsigned offset;

  __device__ operator X*() const {
    extern __shared__ uint4 memory[];
    return reinterpret_cast<X*>(reinterpret_cast<char*>(memory) + offset);
  }
};

// Deals out shared memory.
struct Share {
  unsigned size = 0;

  template <class X>
  Part<X> take(int64_t count) {
    const Part<X> part{size};
    size += static_cast<unsigned>((count * sizeof(X) + 15) / 16 * 16);
    return part;
  }
};

// About the tokens of a window, in shared memory.
struct Tokens {
  int count;
  Part<int> place;       // see Spot
  Part<uint8_t> region;  // see Spot
  // Of the token in its window, which is the same for all; the last one's after it.
  Part<uint8_t> down, right;

  Tokens(Share& share, const Plan& plan)
      : count(std::max(plan.tiles * plan.rows, plan.padded)),
        place(share.take<int>(count)),
        region(share.take<uint8_t>(count)),
        down(share.take<uint8_t>(count)),
        right(share.take<uint8_t>(count)) {}

  // For all windows of a block; a token is always of the same thread.
  __device__ void start(const Plan& plan) const {
    for (int token = threadIdx.x; token < count; token += blockDim.x) {
      const int real = token < plan.length ? token : plan.length - 1;
      down[token] = real / plan.window, right[token] = real % plan.window;
    }
  }

  __device__ void lay(const Plan& plan, const Window& window) const {
    for (int token = threadIdx.x; token < count; token += blockDim.x) {
      const Spot spot(plan, window, down[token], right[token]);
      place[token] = token < plan.length ? spot.place : kNothing;
      region[token] = static_cast<uint8_t>(spot.region);
    }
  }
};

// Starts to bring rows, which then lie as in a Tile; they are there after wait_for_copies and
// __syncthreads. Each of several parts lies `step` numbers after the one before.
template <class T, int D, int parts>
__device__ void bring(T* const (&to)[parts], int rows, const int* places, const Source<T>& source,
                      int64_t step, const Plan& plan) {
  constexpr int kPiece = Tile<T, D>::kPiece, kPerRow = D / kPiece, kStride = Tile<T, D>::kStride;
  if (plan.whole) {
    for (int item = threadIdx.x; item < rows * kPerRow; item += blockDim.x) {
      const int row = item / kPerRow, first = item % kPerRow * kPiece, place = places[row];
      const T* from = place >= 0 ? source.map + place * source.stride : source.outside;
      const bool there = place != kNothing && from != nullptr && first < plan.dim;
      from = there ? from + first : source.map;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        start_copy(to[part] + row * kStride + first, from + part * step, there);
      }
    }
  } else {
#pragma unroll 1
    for (int item = threadIdx.x; item < rows * D; item += blockDim.x) {
      const T* from = source.at(places[item / D]);
      const int d = item % D;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        T& number = to[part][item / D * kStride + d];
        number = from != nullptr && d < plan.dim ? from[part * step + d] : T(0.f);
      }
    }
  }
}

// Brings rows near length 1, by the block.
template <class T, int D>
__device__ void normalise_rows(T* to, int rows, float* factors, float* inverses) {
  for (int row = threadIdx.x; row < rows; row += blockDim.x) {
    const Length length = normalise<T, D>(to + row * Tile<T, D>::kStride);
    factors[row] = length.factor;
    if (inverses != nullptr) inverses[row] = length.inverse;
  }
}

// What a lane reads of the bias of a strip and eight keys; keys that do not exist are taken away.
template <class T>
__device__ float4 piece_of_bias(const float* of_head, int length, int strip, int eight, int lane) {
  const int query = strip * kStrip + lane / 4, key = eight * 8 + lane % 4 * 2;
  const auto at = [&](int q, int k) {
    if (k >= length) return -INFINITY;
    return q < length ? of_head[q * length + k] * kUnit<T> : 0.f;
  };
  return float4{at(query, key), at(query, key + 1), at(query + 8, key), at(query + 8, key + 1)};
}

// The bias of the block's strips, into its shared memory.
template <class T>
__device__ void keep_bias(float4* to, const float* bias, const Plan& plan, const Job& job) {
  const float* of_head = bias + static_cast<int64_t>(job.head) * plan.length * plan.length;
  const int eights = plan.padded / 8, strips = plan.rows / kStrip;
#pragma unroll 2
  for (int item = threadIdx.x; item < strips * eights * 32; item += blockDim.x) {
    const int strip = job.tile * strips + item / 32 / eights;
    to[item] = piece_of_bias<T>(of_head, plan.length, strip, item / 32 % eights, item % 32);
  }
}

// The same of all heads and strips, into global memory.
template <class T>
__global__ void lay_bias(const float* bias, Plan plan, int64_t items, float4* to) {
  const int eights = plan.padded / 8, strips = plan.tiles * plan.rows / kStrip;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; item < items; item += step) {
    const int64_t row = item / 32 / eights;
    const float* of_head = bias + row / strips * plan.length * plan.length;
    to[item] = piece_of_bias<T>(of_head, plan.length, static_cast<int>(row % strips),
                                static_cast<int>(item / 32 % eights), static_cast<int>(item % 32));
  }
}

// Pieces of the bias of a call.
__host__ __device__ inline int64_t pieces_of_bias(const Plan& plan) {
  const int64_t strips = static_cast<int64_t>(plan.heads) * plan.tiles * plan.rows / kStrip;
  return strips * (plan.padded / 8) * 32;
}

template <class T>
torch::stable::Tensor laid_bias(const torch::stable::Tensor& bias, const Plan& plan,
                               cudaStream_t stream) {
  const int64_t items = pieces_of_bias(plan);
  torch::stable::Tensor laid = torch::stable::new_empty(bias, {items * 4});
  lay_bias<T><<<blocks_for(items), kThreads, 0, stream>>>(
      bias.const_data_ptr<float>(), plan, items,
      reinterpret_cast<float4*>(laid.mutable_data_ptr<float>()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return laid;
}

// From products of rows that are short of length 1 to those of rows of that length.
template <int eights>
__device__ void to_length(Strip<eights>& products, const float (&of_row)[2],
                          const float* of_columns) {
  const int c = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
    const float first = of_columns[n * 8 + c * 2], second = of_columns[n * 8 + c * 2 + 1];
    products[n][0] *= of_row[0] * first, products[n][1] *= of_row[0] * second;
    products[n][2] *= of_row[1] * first, products[n][3] *= of_row[1] * second;
  }
}

// Logits of products, in the unit that `scale` and `bias` are; `bias` and the regions are those
// of the strip's first key.
template <int eights>
__device__ void to_logits(Strip<eights>& logits, const Strip<eights>& products, float scale,
                          const float4* bias, const uint8_t (&of_row)[2],
                          const uint8_t* of_columns, bool torn) {
  const int c = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
    const float4 added = bias[n * 32];
    logits[n][0] = products[n][0] * scale + added.x;
    logits[n][1] = products[n][1] * scale + added.y;
    logits[n][2] = products[n][2] * scale + added.z;
    logits[n][3] = products[n][3] * scale + added.w;
  }
  if (!torn) return;
#pragma unroll
  for (int n = 0; n < eights; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (of_row[e / 2] != of_columns[n * 8 + c * 2 + e % 2]) logits[n][e] = -INFINITY;
    }
  }
}

}  // namespace swin_dense
