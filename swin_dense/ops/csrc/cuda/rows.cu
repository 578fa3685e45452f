// Layer norm, GELU and residual sums over the rows of a matrix, on CUDA; what each means is said by
// reference/rows.py. All of it is reading and writing, so each number is read and written once.
//
// Layer norm: a warp takes a row, whose numbers its lanes hold in registers. The rest: a thread
// takes a run of columns and goes down the rows, with what belongs to the columns in registers;
// that is also how sums over rows are made, each thread's first, then in a fixed order.
#include <torch/csrc/stable/library.h>
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

constexpr int kLanes = 32, kWarps = kThreads / kLanes;
constexpr int kRun = 4;      // neighbouring numbers that a thread moves at once, where it can
constexpr int kBlocks = 2112;  // that share the rows: sixteen for each of a large GPU's processors
constexpr unsigned kAll = 0xffffffffu;

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

__device__ float sum_of_warp(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

// --- Layer norm: a row for a warp ----------------------------------------------------------------

// Calls body(i, column) for the runs of a lane: N of them at most, or any number if N is 0.
template <int V, int N, class Body>
__device__ void each_run(int columns, int lane, const Body& body) {
  if constexpr (N > 0) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int column = (i * kLanes + lane) * V;
      if (column < columns) body(i, column);
    }
  } else {
    for (int column = lane * V; column < columns; column += kLanes * V) body(0, column);
  }
}

// A row less its mean, over its deviation. Of N runs in registers, or read again when asked for.
template <class X, int V, int N>
struct Row {
  const X* from;
  float mean, inverse, kept[N > 0 ? N : 1][V];

  __device__ Row(const X* from, int columns, int lane, float eps) : from(from) {
    float sum = 0.f, squares = 0.f;
    each_run<V, N>(columns, lane, [&](int i, int column) {
      read<V>(from + column, kept[i]);
#pragma unroll
      for (int v = 0; v < V; ++v) sum += kept[i][v];
    });
    mean = sum_of_warp(sum) / static_cast<float>(columns);
    each_run<V, N>(columns, lane, [&](int i, int column) {
      float x[V];
      get(i, column, x);
#pragma unroll
      for (int v = 0; v < V; ++v) squares += (x[v] - mean) * (x[v] - mean);
    });
    inverse = 1.f / sqrtf(sum_of_warp(squares) / static_cast<float>(columns) + eps);
  }
  __device__ void get(int i, int column, float (&to)[V]) const {
    if constexpr (N > 0) {
#pragma unroll
      for (int v = 0; v < V; ++v) to[v] = kept[i][v];
    } else {
      read<V>(from + column, to);
    }
  }
  __device__ void unit(int i, int column, float (&to)[V]) const {
    get(i, column, to);
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = (to[v] - mean) * inverse;
  }
};

template <class X, class Y>
struct Norm {
  Shape shape;
  float eps;
  const X* x;
  const float *weight, *bias;
  Y* out;
};

template <class X, class Y, int V, int N>
__global__ void __launch_bounds__(kThreads) norm(Norm<X, Y> call) {
  const int lane = threadIdx.x % kLanes, columns = call.shape.columns;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  for (int64_t r = first; r < call.shape.rows; r += static_cast<int64_t>(gridDim.x) * kWarps) {
    const Row<X, V, N> row(call.x + r * columns, columns, lane, call.eps);
    Y* out = call.out + r * columns;
    each_run<V, N>(columns, lane, [&](int i, int column) {
      float x[V], weight[V], bias[V];
      row.unit(i, column, x);
      read<V>(call.weight + column, weight), read<V>(call.bias + column, bias);
#pragma unroll
      for (int v = 0; v < V; ++v) x[v] = x[v] * weight[v] + bias[v];
      write<V>(out + column, x);
    });
  }
}

template <class X, class Y>
struct NormBack {
  Shape shape;
  float eps;
  const Y* grad;
  const X *x, *to;  // `to` may be null
  const float* weight;
  X* out;
  float* slots;  // of each block, (2, C): the gradients of weight and bias; null if N is 0
  float2* stats;  // of each row, mean and 1 / deviation; null if N is not 0
};

template <class X, class Y, int V, int N>
__global__ void __launch_bounds__(kThreads) norm_back(NormBack<X, Y> call) {
  extern __shared__ float sums[];  // (2, C)
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const int columns = call.shape.columns;
  const float each = 1.f / static_cast<float>(columns);
  float by_weight[N > 0 ? N : 1][V] = {}, by_bias[N > 0 ? N : 1][V] = {};
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * kWarps + warp; r < call.shape.rows;
       r += static_cast<int64_t>(gridDim.x) * kWarps) {
    const Row<X, V, N> row(call.x + r * columns, columns, lane, call.eps);
    const Y* grad = call.grad + r * columns;
    float given[N > 0 ? N : 1][V];  // to the unit row, in registers
    float mean = 0.f, along = 0.f;
    const auto by_unit = [&](int column, float (&g)[V]) {
      float weight[V];
      read<V>(grad + column, g), read<V>(call.weight + column, weight);
#pragma unroll
      for (int v = 0; v < V; ++v) g[v] *= weight[v];
    };
    each_run<V, N>(columns, lane, [&](int i, int column) {
      float unit[V];
      row.unit(i, column, unit);
      if constexpr (N > 0) {
        float g[V];
        read<V>(grad + column, g);
#pragma unroll
        for (int v = 0; v < V; ++v) by_weight[i][v] += g[v] * unit[v], by_bias[i][v] += g[v];
      }
      by_unit(column, given[i]);
#pragma unroll
      for (int v = 0; v < V; ++v) mean += given[i][v], along += given[i][v] * unit[v];
    });
    mean = sum_of_warp(mean) * each, along = sum_of_warp(along) * each;
    each_run<V, N>(columns, lane, [&](int i, int column) {
      float unit[V], to[V] = {}, out[V];
      row.unit(i, column, unit);
      if (N == 0) by_unit(column, given[i]);
      if (call.to != nullptr) read<V>(call.to + r * columns + column, to);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        out[v] = (given[i][v] - mean - unit[v] * along) * row.inverse + to[v];
      }
      write<V>(call.out + r * columns + column, out);
    });
    if (N == 0 && lane == 0) call.stats[r] = float2{row.mean, row.inverse};
  }
  if constexpr (N > 0) {
    for (int turn = 0; turn < kWarps; ++turn) {  // the warps one after another
      if (warp == turn) {
        each_run<V, N>(columns, lane, [&](int i, int column) {
#pragma unroll
          for (int v = 0; v < V; ++v) {
            float &one = sums[column + v], &other = sums[columns + column + v];
            one = turn == 0 ? by_weight[i][v] : one + by_weight[i][v];
            other = turn == 0 ? by_bias[i][v] : other + by_bias[i][v];
          }
        });
      }
      __syncthreads();
    }
    for (int i = threadIdx.x; i < 2 * columns; i += kThreads) {
      call.slots[static_cast<int64_t>(blockIdx.x) * 2 * columns + i] = sums[i];
    }
  }
}

// --- The rest: down the columns ------------------------------------------------------------------

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

constexpr float kHalfRoot = 0.70710678118654752f, kBell = 0.39894228040143268f;  // 1/√2, 1/√2π

template <class Y>
struct Gelu {
  static constexpr int kSums = 0;
  const Y* x;
  const float* bias;
  Y* out;

  template <int V>
  __device__ Held<V> hold(int column) const {
    return hold_bias<V>(bias, column);
  }
  template <int V>
  __device__ void row(int64_t, int64_t at, const Held<V>& held, float (&)[1][V]) const {
    float a[V];
    read<V>(x + at, a);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      a[v] += held.bias[v];
      a[v] *= 0.5f * erfcf(-a[v] * kHalfRoot);
    }
    write<V>(out + at, a);
  }
};

template <class Y>
struct GeluBack {
  static constexpr int kSums = 1;
  const Y *grad, *x;
  const float* bias;
  Y *active, *out;

  template <int V>
  __device__ Held<V> hold(int column) const {
    return hold_bias<V>(bias, column);
  }
  template <int V>
  __device__ void row(int64_t, int64_t at, const Held<V>& held, float (&sums)[1][V]) const {
    float a[V], g[V];
    read<V>(x + at, a), read<V>(grad + at, g);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float u = a[v] + held.bias[v], below = 0.5f * erfcf(-u * kHalfRoot);
      a[v] = u * below;
      g[v] *= below + u * (kBell * expf(-0.5f * u * u));
      sums[0][v] += g[v];
    }
    write<V>(active + at, a), write<V>(out + at, g);
  }
};

template <class X, class Y>
struct Add {
  static constexpr int kSums = 0;
  const X* to;
  const Y* y;
  const float *bias, *factor;
  X* out;

  template <int V>
  __device__ Held<V> hold(int column) const {
    return hold_bias<V>(bias, column);
  }
  template <int V>
  __device__ void row(int64_t r, int64_t at, const Held<V>& held, float (&)[1][V]) const {
    const float times = factor == nullptr ? 1.f : factor[r];
    float a[V], b[V];
    read<V>(to + at, a), read<V>(y + at, b);
#pragma unroll
    for (int v = 0; v < V; ++v) a[v] += (b[v] + held.bias[v]) * times;
    write<V>(out + at, a);
  }
};

template <class X, class Y>
struct Scale {
  static constexpr int kSums = 1;
  const X* x;
  const float* factor;
  Y* out;

  template <int V>
  __device__ Held<V> hold(int) const {
    return {};
  }
  template <int V>
  __device__ void row(int64_t r, int64_t at, const Held<V>&, float (&sums)[1][V]) const {
    const float times = factor == nullptr ? 1.f : factor[r];
    float a[V];
    read<V>(x + at, a);
#pragma unroll
    for (int v = 0; v < V; ++v) a[v] *= times, sums[0][v] += a[v];
    write<V>(out + at, a);
  }
};

// The gradients of a norm's weight and bias, of rows that no warp holds.
template <class X, class Y>
struct NormSums {
  static constexpr int kSums = 2;
  const Y* grad;
  const X* x;
  const float2* stats;

  template <int V>
  __device__ Held<V> hold(int) const {
    return {};
  }
  template <int V>
  __device__ void row(int64_t r, int64_t at, const Held<V>&, float (&sums)[2][V]) const {
    const float2 of = stats[r];
    float a[V], g[V];
    read<V>(x + at, a), read<V>(grad + at, g);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      sums[0][v] += g[v] * (a[v] - of.x) * of.y, sums[1][v] += g[v];
    }
  }
};

// --- The host's part -----------------------------------------------------------------------------

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

template <int number>
using Number = std::integral_constant<int, number>;

// Calls body with V, and the number of runs of a lane, 0 if it is too large for registers.
template <class Body>
void by_runs(const Shape& shape, bool runs, const Body& body) {
  constexpr int at_once = kLanes * kRun;
  constexpr Number<kRun> run;
  if (!runs) return body(Number<1>(), Number<0>());
  if (shape.columns <= at_once) return body(run, Number<1>());
  if (shape.columns <= 2 * at_once) return body(run, Number<2>());
  if (shape.columns <= 4 * at_once) return body(run, Number<4>());
  if (shape.columns <= 8 * at_once) return body(run, Number<8>());
  return body(run, Number<0>());
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

void norm_rows(const Tensor x, const Tensor weight, const Tensor bias, double eps, Tensor out) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Shape shape = shape_of(x);
  by_types(x, out, [&](auto wide, auto narrow) {
    using X = decltype(wide);
    using Y = decltype(narrow);
    const Norm<X, Y> call{shape,
                          static_cast<float>(eps),
                          matrix<X>(x, shape),
                          floats(weight, shape.columns),
                          floats(bias, shape.columns),
                          matrix<Y>(out, shape)};
    if (shape.rows == 0 || shape.columns == 0) return;
    const bool runs = in_runs(shape, {call.x, call.weight, call.bias, call.out});
    const cudaStream_t stream = current_stream(x);
    const unsigned blocks = blocks_of_rows(shape, kWarps);
    by_runs(shape, runs, [&](auto v, auto n) {
      constexpr int V = decltype(v)::value, N = decltype(n)::value;
      norm<X, Y, V, N><<<blocks, kThreads, 0, stream>>>(call);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
}

Tensor norm_rows_backward(const Tensor grad, const Tensor x, const Tensor weight, double eps,
                          Maybe to, Tensor out) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Shape shape = shape_of(x);
  Tensor total = zeros(x, 2, shape);
  by_types(x, grad, [&](auto wide, auto narrow) {
    using X = decltype(wide);
    using Y = decltype(narrow);
    NormBack<X, Y> call{shape,
                        static_cast<float>(eps),
                        matrix<Y>(grad, shape),
                        matrix<X>(x, shape),
                        matrix<X>(to, shape),
                        floats(weight, shape.columns),
                        matrix<X>(out, shape),
                        nullptr,
                        nullptr};
    if (shape.rows == 0 || shape.columns == 0) return;
    const bool runs = in_runs(shape, {call.grad, call.x, call.to, call.weight, call.out});
    const cudaStream_t stream = current_stream(x);
    const unsigned blocks = blocks_of_rows(shape, kWarps);
    by_runs(shape, runs, [&](auto v, auto n) {
      constexpr int V = decltype(v)::value, N = decltype(n)::value;
      const int64_t items = 2 * static_cast<int64_t>(shape.columns);
      Tensor room = torch::stable::new_empty(
          x, {N > 0 ? static_cast<int64_t>(blocks) : shape.rows, N > 0 ? items : 2},
          ScalarType::Float);
      if (N > 0) {
        call.slots = numbers(room);
      } else {
        call.stats = reinterpret_cast<float2*>(numbers(room));
      }
      const size_t shared = N > 0 ? items * sizeof(float) : 0;
      norm_back<X, Y, V, N><<<blocks, kThreads, shared, stream>>>(call);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      if (N > 0) {
        add_slots(room, blocks, items, numbers(total), stream);
      } else {
        const NormSums<X, Y> sums{call.grad, call.x, call.stats};
        go_down(sums, shape, runs, x, numbers(total));
      }
    });
  });
  return total;
}

void gelu_rows(const Tensor x, Maybe bias, Tensor out) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Shape shape = shape_of(x);
  by_types(out, out, [&](auto, auto narrow) {
    using Y = decltype(narrow);
    const Gelu<Y> call{matrix<Y>(x, shape), floats(bias, shape.columns), matrix<Y>(out, shape)};
    go_down(call, shape, in_runs(shape, {call.x, call.bias, call.out}), x, nullptr);
  });
}

Tensor gelu_rows_backward(const Tensor grad, const Tensor x, Maybe bias, Tensor active,
                          Tensor out) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Shape shape = shape_of(x);
  Tensor total = zeros(x, 1, shape);
  by_types(x, grad, [&](auto, auto narrow) {
    using Y = decltype(narrow);
    const GeluBack<Y> call{matrix<Y>(grad, shape), matrix<Y>(x, shape),
                           floats(bias, shape.columns), matrix<Y>(active, shape),
                           matrix<Y>(out, shape)};
    const bool runs = in_runs(shape, {call.grad, call.x, call.bias, call.active, call.out});
    go_down(call, shape, runs, x, numbers(total));
  });
  return total;
}

void add_rows(const Tensor to, const Tensor y, Maybe bias, Maybe factor, Tensor out) {
  const torch::stable::accelerator::DeviceGuard guard(to.get_device_index());
  const Shape shape = shape_of(to);
  by_types(to, y, [&](auto wide, auto narrow) {
    using X = decltype(wide);
    using Y = decltype(narrow);
    const Add<X, Y> call{matrix<X>(to, shape), matrix<Y>(y, shape), floats(bias, shape.columns),
                         floats(factor, shape.rows), matrix<X>(out, shape)};
    go_down(call, shape, in_runs(shape, {call.to, call.y, call.bias, call.out}), to, nullptr);
  });
}

Tensor scale_rows(const Tensor x, Maybe factor, Tensor out) {
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  const Shape shape = shape_of(x);
  Tensor total = zeros(x, 1, shape);
  by_types(x, out, [&](auto wide, auto narrow) {
    using X = decltype(wide);
    using Y = decltype(narrow);
    const Scale<X, Y> call{matrix<X>(x, shape), floats(factor, shape.rows), matrix<Y>(out, shape)};
    go_down(call, shape, in_runs(shape, {call.x, call.out}), x, numbers(total));
  });
  return total;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("norm_rows", TORCH_BOX(&norm_rows));
  m.impl("norm_rows_backward", TORCH_BOX(&norm_rows_backward));
  m.impl("gelu_rows", TORCH_BOX(&gelu_rows));
  m.impl("gelu_rows_backward", TORCH_BOX(&gelu_rows_backward));
  m.impl("add_rows", TORCH_BOX(&add_rows));
  m.impl("scale_rows", TORCH_BOX(&scale_rows));
}

}  // namespace swin_dense
