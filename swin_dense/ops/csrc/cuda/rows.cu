// GELU and residual sums over the rows of a matrix, on CUDA; the meaning is reference/rows.py. A
// thread takes a run of columns and goes down the rows, with what belongs to the columns in
// registers.
#include <torch/csrc/stable/library.h>

#include "rows.cuh"

namespace swin_dense {
namespace {

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
  m.impl("gelu_rows", TORCH_BOX(&gelu_rows));
  m.impl("gelu_rows_backward", TORCH_BOX(&gelu_rows_backward));
  m.impl("add_rows", TORCH_BOX(&add_rows));
  m.impl("scale_rows", TORCH_BOX(&scale_rows));
}

}  // namespace swin_dense
