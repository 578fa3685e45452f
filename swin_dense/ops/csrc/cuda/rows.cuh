// How kernels go over the rows of a matrix: neighbouring numbers moved at once, sums over rows in a
// fixed order, and what the host checks and launches. All of it is reading and writing, so each
// number is read and written once.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <initializer_list>
#include <optional>
#include <type_traits>
#include <vector>

#include "add_up.cuh"
#include "launch.cuh"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
typedef const std::optional<Tensor> Maybe;

constexpr int kRun = 4;        // neighbouring numbers that a thread moves at once, where it can
constexpr int kBlocks = 2112;  // that share the rows: sixteen for each of a large GPU's processors

struct Shape {
  int64_t rows;
  int columns;
};

// V neighbouring numbers, as float32.
template <int V, class T>
__device__ void read(const T* from, float (&to)[V]) {
  if constexpr (V == 1) {
    to[0] = static_cast<float>(*from);
  } else if constexpr (sizeof(T) == sizeof(float)) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  } else {
    alignas(8) T four[kRun];
    *reinterpret_cast<uint2*>(four) = *reinterpret_cast<const uint2*>(from);
#pragma unroll
    for (int v = 0; v < kRun; ++v) to[v] = static_cast<float>(four[v]);
  }
}

template <int V, class T>
__device__ void write(T* to, const float (&from)[V]) {
  if constexpr (V == 1) {
    *to = static_cast<T>(from[0]);
  } else if constexpr (sizeof(T) == sizeof(float)) {
    *reinterpret_cast<float4*>(to) = float4{from[0], from[1], from[2], from[3]};
  } else {
    alignas(8) T four[kRun];
#pragma unroll
    for (int v = 0; v < kRun; ++v) four[v] = static_cast<T>(from[v]);
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(four);
  }
}

// F has the number of its sums over rows, hold(column) -> what it needs of the columns, and
// row(r, column, held, sums).
template <class F, int V>
__global__ void __launch_bounds__(kThreads)
    down_columns(F f, Shape shape, int span, int lines, float* slots) {
  constexpr int kSets = F::kSums > 0 ? F::kSums : 1;
  __shared__ float parts[kSets * V][kThreads];
  const int line = threadIdx.x / span;
  const int column = (static_cast<int>(blockIdx.x) * span + static_cast<int>(threadIdx.x) % span) * V;
  const bool here = column < shape.columns;
  float sums[kSets][V] = {};
  if (here) {
    const auto held = f.template hold<V>(column);
    for (int64_t r = static_cast<int64_t>(blockIdx.y) * lines + line; r < shape.rows;
         r += static_cast<int64_t>(gridDim.y) * lines) {
      f.template row<V>(r, r * shape.columns + column, held, sums);
    }
  }
  if constexpr (F::kSums > 0) {
#pragma unroll
    for (int i = 0; i < kSets * V; ++i) parts[i][threadIdx.x] = sums[i / V][i % V];
    __syncthreads();
    if (line > 0 || !here) return;
    float* slot = slots + static_cast<int64_t>(blockIdx.y) * kSets * shape.columns + column;
#pragma unroll
    for (int i = 0; i < kSets * V; ++i) {
      float sum = sums[i / V][i % V];
      for (int l = 1; l < lines; ++l) sum += parts[i][threadIdx.x + l * span];
      slot[i / V * shape.columns + i % V] = sum;
    }
  }
}

template <int V>
struct Held {
  float bias[V];
};

template <int V>
__device__ Held<V> hold_bias(const float* bias, int column) {
  Held<V> held{};
  if (bias != nullptr) read<V>(bias + column, held.bias);
  return held;
}

template <class T>
constexpr ScalarType kType = std::is_same_v<T, float>           ? ScalarType::Float
                             : std::is_same_v<T, c10::BFloat16> ? ScalarType::BFloat16
                                                                : ScalarType::Half;

Shape shape_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 2 && x.size(1) < (1 << 30), "rows: matrices have two axes.");
  return {x.size(0), static_cast<int>(x.size(1))};
}

template <class T>
T* matrix(const Tensor& x, const Shape& shape) {
  STD_TORCH_CHECK(x.dim() == 2 && x.size(0) == shape.rows && x.size(1) == shape.columns &&
                      x.is_contiguous() && x.scalar_type() == kType<T>,
                  "rows: matrices must be dense, of one shape, and of the types of the call.");
  return static_cast<T*>(x.mutable_data_ptr());
}

template <class T>
T* matrix(Maybe& x, const Shape& shape) {
  return x.has_value() ? matrix<T>(*x, shape) : nullptr;
}

const float* floats(Maybe& x, int64_t count) {
  if (!x.has_value()) return nullptr;
  STD_TORCH_CHECK(x->numel() == count && x->is_contiguous() &&
                      x->scalar_type() == ScalarType::Float,
                  "rows: weight and bias must have one float32 for each column, factor for each "
                  "row.");
  return static_cast<const float*>(x->const_data_ptr());
}

// Calls body with a zero of what runs through the network and one of what products are of.
template <class Body>
void by_types(const Tensor& x, const Tensor& y, const Body& body) {
  const ScalarType wide = x.scalar_type(), narrow = y.scalar_type();
  const bool same = wide == narrow;
  if (same && wide == ScalarType::Float) return body(0.f, 0.f);
  if (narrow == ScalarType::BFloat16) {
    if (same) return body(c10::BFloat16(0.f), c10::BFloat16(0.f));
    if (wide == ScalarType::Float) return body(0.f, c10::BFloat16(0.f));
  }
  if (narrow == ScalarType::Half) {
    if (same) return body(c10::Half(0.f), c10::Half(0.f));
    if (wide == ScalarType::Float) return body(0.f, c10::Half(0.f));
  }
  STD_TORCH_CHECK(false, "rows: of float32, or of 16 bits with products of float32 or the same.");
}

// Whether runs of kRun numbers can be moved at once.
bool in_runs(const Shape& shape, std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers) {
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  }
  return shape.columns % kRun == 0;
}

unsigned blocks_of_rows(const Shape& shape, int64_t at_once) {
  return static_cast<unsigned>(std::min<int64_t>((shape.rows + at_once - 1) / at_once, kBlocks));
}

Tensor zeros(const Tensor& like, int64_t sets, const Shape& shape) {
  return torch::stable::new_zeros(like, {sets, shape.columns}, ScalarType::Float);
}

// Goes down the columns; what F sums is added to `sums`, (F::kSums, C).
template <class F>
void go_down(const F& f, const Shape& shape, bool runs, const Tensor& like, float* sums) {
  if (shape.rows == 0 || shape.columns == 0) return;
  const int across = runs ? shape.columns / kRun : shape.columns;
  const int tiles = (across + kThreads - 1) / kThreads, span = (across + tiles - 1) / tiles;
  const int lines = kThreads / span;
  const unsigned down = std::max(blocks_of_rows(shape, lines) / tiles, 1u);
  const auto items = static_cast<int64_t>(F::kSums) * shape.columns;
  Tensor slots = torch::stable::new_empty(like, {F::kSums > 0 ? down : 0u, items},
                                          ScalarType::Float);
  float* parts = F::kSums > 0 ? static_cast<float*>(slots.mutable_data_ptr()) : nullptr;
  const cudaStream_t stream = current_stream(like);
  const dim3 grid(tiles, down);
  const int threads = span * lines;
  if (runs) {
    down_columns<F, kRun><<<grid, threads, 0, stream>>>(f, shape, span, lines, parts);
  } else {
    down_columns<F, 1><<<grid, threads, 0, stream>>>(f, shape, span, lines, parts);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  if constexpr (F::kSums > 0) add_slots(slots, down, items, sums, stream);
}

float* numbers(const Tensor& sums) { return static_cast<float*>(sums.mutable_data_ptr()); }

}  // namespace
}  // namespace swin_dense
