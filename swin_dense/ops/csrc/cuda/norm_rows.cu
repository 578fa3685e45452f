// Layer norm of the rows of a matrix, on CUDA; the meaning is reference/rows.py. A warp takes a row,
// whose numbers its lanes hold in registers.
#include <torch/csrc/stable/library.h>

#include "rows.cuh"

namespace swin_dense {
namespace {

constexpr int kLanes = 32, kWarps = kThreads / kLanes;
constexpr unsigned kAll = 0xffffffffu;

__device__ float sum_of_warp(float x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

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

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("norm_rows", TORCH_BOX(&norm_rows));
  m.impl("norm_rows_backward", TORCH_BOX(&norm_rows_backward));
}

}  // namespace swin_dense
