// Neighborhood attention on CUDA; the meaning is reference.neighborhood_attention.
//
// A warp takes a query of a head: its lanes share the channels of a product, then the keys of the
// softmax, then the channels of the sum. The backward keeps, of each query, what gives a weight
// back from its logit, and a warp takes a key with all queries that see it. Nothing is added up by
// atomics: every result is the same in every run.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <tuple>
#include <vector>

#include "bilinear.cuh"

namespace swin_dense {
namespace {

using torch::stable::Tensor;

constexpr int kWarps = 4;                  // of a block, at most
constexpr int kBlocks = 1024;              // that share the queries of a head in the backward
constexpr size_t kShared = 48 * 1024;      // bytes of a block
constexpr int kLargest = 27;               // window whose tables of float64 fit that
constexpr unsigned kAll = 0xffffffffu;
constexpr int kKept = 3;                   // numbers of a query: largest logit, 1 / sum, mean

struct Sizes {
  int64_t batch;
  int height, width, heads, channels, window, down, across;
  double scale;

  __host__ __device__ int side() const { return 2 * window - 1; }
  __host__ __device__ int seen() const { return window * window; }
  __host__ __device__ int64_t positions() const { return batch * height * width; }
};

// One axis of a map: what a place sees there, and who sees it.
struct Axis {
  int number, rest, count, window, dilation;

  __device__ Axis(int place, int length, int window, int dilation)
      : number(place / dilation),
        rest(place % dilation),
        count((length - rest + dilation - 1) / dilation),
        window(window),
        dilation(dilation) {}
  // The first that number `of` of the class sees, as a number of the class.
  __device__ int begin(int of) const {
    const int middle = of - window / 2, last = count - window;
    return middle < 0 ? 0 : middle < last ? middle : last;
  }
  __device__ int place(int of) const { return of * dilation + rest; }
  // First and last that see this place: windows begin and end in the order of their queries.
  __device__ int lowest() const {
    int of = number - window + 1 < 0 ? 0 : number - window + 1;
    while (begin(of) + window <= number) ++of;
    return of;
  }
  __device__ int highest() const {
    int of = number + window - 1 < count ? number + window - 1 : count - 1;
    while (begin(of) > number) --of;
    return of;
  }
};

// Maps (B, H, W, N, D), positions `step` numbers apart.
template <class T>
struct Map3 {
  const T* data;
  int64_t step;

  __device__ const T* at(const Sizes& sizes, int64_t position, int head) const {
    return data + position * step + static_cast<int64_t>(head) * sizes.channels;
  }
};

template <class T>
struct Inputs {
  Map3<T> query, key, value, grad;
  const Sum<T>* table;
};

template <class A>
__device__ A sum_of_warp(A x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

template <class A>
__device__ A max_of_warp(A x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const A other = __shfl_xor_sync(kAll, x, step);
    x = other > x ? other : x;
  }
  return x;
}

template <class T>
__device__ Sum<T> product(const T* a, const T* b, int channels, int lane) {
  Sum<T> sum = 0;
  for (int c = lane; c < channels; c += kWarp) {
    sum += static_cast<Sum<T>>(a[c]) * static_cast<Sum<T>>(b[c]);
  }
  return sum_of_warp(sum);
}

// A query of a head, and the window it sees.
struct Query {
  int64_t image, position;
  Axis rows, columns;
  int top, left, below, right;  // first row and column seen; their places in the table

  __device__ Query(const Sizes& sizes, int64_t position)
      : image(position / (static_cast<int64_t>(sizes.height) * sizes.width)),
        position(position),
        rows(static_cast<int>(position / sizes.width % sizes.height), sizes.height, sizes.window,
             sizes.down),
        columns(static_cast<int>(position % sizes.width), sizes.width, sizes.window,
                sizes.across) {
    top = rows.begin(rows.number), left = columns.begin(columns.number);
    below = top - rows.number + sizes.window - 1;
    right = left - columns.number + sizes.window - 1;
  }
  __device__ int64_t key(const Sizes& sizes, int k) const {
    const int y = rows.place(top + k / sizes.window), x = columns.place(left + k % sizes.window);
    return (image * sizes.height + y) * sizes.width + x;
  }
  __device__ int bias(const Sizes& sizes, int k) const {
    return (below + k / sizes.window) * sizes.side() + right + k % sizes.window;
  }
};

// The weights of all keys of a query, in shared memory; every lane returns what makes a weight of
// a logit.
template <class T>
__device__ void attend(const Sizes& sizes, const Inputs<T>& in, const Query& query, int head,
                       int lane, Sum<T>* weights, Sum<T>& largest, Sum<T>& inverse) {
  using A = Sum<T>;
  const T* q = in.query.at(sizes, query.position, head);
  const A* table = in.table + static_cast<int64_t>(head) * sizes.side() * sizes.side();
  __syncwarp();  // nobody reads the last ones any more
  for (int k = 0; k < sizes.seen(); ++k) {
    const T* key = in.key.at(sizes, query.key(sizes, k), head);
    const A logit = product(q, key, sizes.channels, lane) * static_cast<A>(sizes.scale) +
                    table[query.bias(sizes, k)];
    if (lane == k % kWarp) weights[k] = logit;
  }
  __syncwarp();
  largest = -std::numeric_limits<A>::infinity();
  for (int k = lane; k < sizes.seen(); k += kWarp) {
    largest = weights[k] > largest ? weights[k] : largest;
  }
  largest = max_of_warp(largest);
  A sum = 0;
  for (int k = lane; k < sizes.seen(); k += kWarp) {
    weights[k] = exp(weights[k] - largest);
    sum += weights[k];
  }
  inverse = A(1) / sum_of_warp(sum);
  for (int k = lane; k < sizes.seen(); k += kWarp) weights[k] *= inverse;
  __syncwarp();
}

// What shares of the keys of a query make of a map.
template <class T>
__device__ void mix(const Sizes& sizes, const Map3<T>& map, const Query& query, int head, int lane,
                    const Sum<T>* shares, Sum<T> factor, T* to) {
  for (int c = lane; c < sizes.channels; c += kWarp) {
    Sum<T> sum = 0;
    for (int k = 0; k < sizes.seen(); ++k) {
      sum += shares[k] * static_cast<Sum<T>>(map.at(sizes, query.key(sizes, k), head)[c]);
    }
    to[c] = static_cast<T>(sum * factor);
  }
}

template <class T>
__global__ void forward(Sizes sizes, Inputs<T> in, T* out) {
  using A = Sum<T>;
  extern __shared__ double memory[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  A* weights = reinterpret_cast<A*>(memory) + warp * sizes.seen();
  const int64_t items = sizes.positions() * sizes.heads;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * warps + warp; item < items;
       item += static_cast<int64_t>(gridDim.x) * warps) {
    const Query query(sizes, item / sizes.heads);
    const int head = static_cast<int>(item % sizes.heads);
    A largest, inverse;
    attend(sizes, in, query, head, lane, weights, largest, inverse);
    mix(sizes, in.value, query, head, lane, weights, A(1), out + item * sizes.channels);
  }
}

// Queries: their own gradient, what is kept of them, and a block's share of the table's.
template <class T>
__global__ void backward_queries(Sizes sizes, Inputs<T> in, T* by_query, Sum<T>* kept,
                                 Sum<T>* slots) {
  using A = Sum<T>;
  extern __shared__ double memory[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const int head = blockIdx.y, entries = sizes.side() * sizes.side();
  A* weights = reinterpret_cast<A*>(memory) + warp * (2 * sizes.seen() + entries);
  A* by_logits = weights + sizes.seen();
  A* by_table = by_logits + sizes.seen();
  for (int i = lane; i < entries; i += kWarp) by_table[i] = A(0);
  for (int64_t position = static_cast<int64_t>(blockIdx.x) * warps + warp;
       position < sizes.positions(); position += static_cast<int64_t>(gridDim.x) * warps) {
    const Query query(sizes, position);
    A largest, inverse;
    attend(sizes, in, query, head, lane, weights, largest, inverse);
    const T* grad = in.grad.at(sizes, position, head);
    for (int k = 0; k < sizes.seen(); ++k) {
      const T* value = in.value.at(sizes, query.key(sizes, k), head);
      const A by_weight = product(grad, value, sizes.channels, lane);
      if (lane == k % kWarp) by_logits[k] = by_weight;
    }
    __syncwarp();
    A mean = 0;
    for (int k = lane; k < sizes.seen(); k += kWarp) mean += weights[k] * by_logits[k];
    mean = sum_of_warp(mean);
    for (int k = lane; k < sizes.seen(); k += kWarp) {
      by_logits[k] = weights[k] * (by_logits[k] - mean);
      by_table[query.bias(sizes, k)] += by_logits[k];  // no two keys have one entry
    }
    __syncwarp();
    const int64_t item = position * sizes.heads + head;
    mix(sizes, in.key, query, head, lane, by_logits, static_cast<A>(sizes.scale),
        by_query + item * sizes.channels);
    if (lane == 0) {
      kept[item * kKept] = largest, kept[item * kKept + 1] = inverse;
      kept[item * kKept + 2] = mean;
    }
  }
  __syncthreads();
  A* to = slots + (static_cast<int64_t>(blockIdx.x) * sizes.heads + head) * entries;
  const A* first = reinterpret_cast<A*>(memory) + 2 * sizes.seen();
  for (int i = threadIdx.x; i < entries; i += blockDim.x) {
    A sum = 0;
    for (int w = 0; w < warps; ++w) sum += first[w * (2 * sizes.seen() + entries) + i];
    to[i] = sum;
  }
}

// Keys: what all queries that see one give to it and to its value.
template <class T>
__global__ void backward_keys(Sizes sizes, Inputs<T> in, const Sum<T>* kept, T* by_key,
                              T* by_value) {
  using A = Sum<T>;
  extern __shared__ double memory[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  // A lane reads and writes its own channels only.
  A* key_sums = reinterpret_cast<A*>(memory) + warp * 2 * sizes.channels;
  A* value_sums = key_sums + sizes.channels;
  const int64_t items = sizes.positions() * sizes.heads;
  const A scale = static_cast<A>(sizes.scale);
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * warps + warp; item < items;
       item += static_cast<int64_t>(gridDim.x) * warps) {
    const int64_t position = item / sizes.heads;
    const int head = static_cast<int>(item % sizes.heads);
    const Query self(sizes, position);
    const T* key = in.key.at(sizes, position, head);
    const T* value = in.value.at(sizes, position, head);
    const A* table = in.table + static_cast<int64_t>(head) * sizes.side() * sizes.side();
    for (int c = lane; c < sizes.channels; c += kWarp) key_sums[c] = value_sums[c] = A(0);
    const int last_row = self.rows.highest(), last_column = self.columns.highest();
    for (int row = self.rows.lowest(); row <= last_row; ++row) {
      for (int column = self.columns.lowest(); column <= last_column; ++column) {
        const int64_t from = (self.image * sizes.height + self.rows.place(row)) * sizes.width +
                             self.columns.place(column);
        const T* query = in.query.at(sizes, from, head);
        const T* grad = in.grad.at(sizes, from, head);
        const int entry = (self.rows.number - row + sizes.window - 1) * sizes.side() +
                          self.columns.number - column + sizes.window - 1;
        const A* of = kept + (from * sizes.heads + head) * kKept;
        const A logit = product(query, key, sizes.channels, lane) * scale + table[entry];
        const A weight = exp(logit - of[0]) * of[1];
        const A by_weight = product(grad, value, sizes.channels, lane);
        const A by_logit = weight * (by_weight - of[2]) * scale;
        for (int c = lane; c < sizes.channels; c += kWarp) {
          key_sums[c] += by_logit * static_cast<A>(query[c]);
          value_sums[c] += weight * static_cast<A>(grad[c]);
        }
      }
    }
    for (int c = lane; c < sizes.channels; c += kWarp) {
      by_key[item * sizes.channels + c] = static_cast<T>(key_sums[c]);
      by_value[item * sizes.channels + c] = static_cast<T>(value_sums[c]);
    }
  }
}

template <class A>
__global__ void add_tables(const A* slots, int blocks, int64_t entries, A* to) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < entries;
       i += stride) {
    A sum = 0;
    for (int block = 0; block < blocks; ++block) sum += slots[block * entries + i];
    to[i] = sum;
  }
}

// Dense but for the distance between positions, as q, k and v of one projection are.
Tensor with_even_steps(const Tensor& x) {
  const int64_t step = x.stride(2);
  const bool even = x.stride(4) == 1 && x.stride(3) == x.size(4) &&
                    step >= x.size(3) * x.size(4) && x.stride(1) == x.size(2) * step &&
                    x.stride(0) == x.size(1) * x.size(2) * step;
  return even ? x : torch::stable::contiguous(x);
}

Sizes describe(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& table,
               int64_t window, int64_t down, int64_t across, double scale) {
  STD_TORCH_CHECK(query.dim() == 5, "neighborhood_attention: query must be (B, H, W, N, D).");
  for (const Tensor* other : {&key, &value}) {
    bool same = other->dim() == 5 && other->scalar_type() == query.scalar_type() &&
                other->get_device_index() == query.get_device_index();
    for (int64_t axis = 0; same && axis < 5; ++axis) same = other->size(axis) == query.size(axis);
    STD_TORCH_CHECK(same, "neighborhood_attention: key and value must be of query's shape, dtype "
                          "and device.");
  }
  STD_TORCH_CHECK(window >= 1 && window % 2 == 1 && window <= kLargest,
                  "neighborhood_attention: on CUDA a window is odd and at most 27.");
  STD_TORCH_CHECK(down >= 1 && across >= 1 && query.size(3) > 0 && query.size(4) > 0 &&
                      down <= query.size(1) / window && across <= query.size(2) / window,
                  "neighborhood_attention: window times dilation is at most the side of the map.");
  const int64_t most = std::numeric_limits<int>::max() / 4;
  STD_TORCH_CHECK(query.size(1) < most && query.size(2) < most && query.size(3) < (1 << 16) &&
                      query.size(4) <= 1024,
                  "neighborhood_attention: on CUDA a head has at most 1024 channels, and there "
                  "are fewer than 65536 heads.");
  const int64_t side = 2 * window - 1;
  STD_TORCH_CHECK(table.dim() == 3 && table.size(0) == query.size(3) && table.size(1) == side &&
                      table.size(2) == side && table.scalar_type() == summed_as(query) &&
                      table.get_device_index() == query.get_device_index(),
                  "neighborhood_attention: table must be (N, 2 * window - 1, 2 * window - 1), "
                  "float32, or float64 where query is.");
  return Sizes{query.size(0),
               static_cast<int>(query.size(1)),
               static_cast<int>(query.size(2)),
               static_cast<int>(query.size(3)),
               static_cast<int>(query.size(4)),
               static_cast<int>(window),
               static_cast<int>(down),
               static_cast<int>(across),
               scale};
}

template <class T>
Map3<T> map_of(const Tensor& x) {
  return {static_cast<const T*>(x.const_data_ptr()), x.stride(2)};
}

// As many warps of a block as have room for so many bytes each.
int warps_for(size_t bytes) {
  int warps = kWarps;
  while (warps > 1 && warps * bytes > kShared) warps /= 2;
  return warps;
}

unsigned grid_for(int64_t items, int warps) {
  return static_cast<unsigned>(std::min<int64_t>((items + warps - 1) / warps, 1 << 20));
}

Tensor neighborhood_attention(const Tensor query_, const Tensor key_, const Tensor value_,
                              const Tensor table_, int64_t window, int64_t down, int64_t across,
                              double scale) {
  const Sizes sizes = describe(query_, key_, value_, table_, window, down, across, scale);
  const torch::stable::accelerator::DeviceGuard guard(query_.get_device_index());
  Tensor out = torch::stable::new_empty(query_, query_.sizes());
  if (out.numel() == 0) return out;
  const Tensor query = with_even_steps(query_), key = with_even_steps(key_);
  const Tensor value = with_even_steps(value_), table = torch::stable::contiguous(table_);
  const cudaStream_t stream = current_stream(query);
  by_dtype(query, [&](auto zero) {
    using T = decltype(zero);
    using A = Sum<T>;
    const Inputs<T> in{map_of<T>(query), map_of<T>(key), map_of<T>(value), {nullptr, 0},
                       static_cast<const A*>(table.const_data_ptr())};
    const size_t each = sizes.seen() * sizeof(A);
    const int warps = warps_for(each);
    const unsigned blocks = grid_for(sizes.positions() * sizes.heads, warps);
    auto* to = static_cast<T*>(out.mutable_data_ptr());
    forward<T><<<blocks, warps * kWarp, warps * each, stream>>>(sizes, in, to);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> neighborhood_attention_backward(
    const Tensor grad_, const Tensor query_, const Tensor key_, const Tensor value_,
    const Tensor table_, int64_t window, int64_t down, int64_t across, double scale) {
  const Sizes sizes = describe(query_, key_, value_, table_, window, down, across, scale);
  STD_TORCH_CHECK(grad_.dim() == 5 && grad_.numel() == query_.numel() &&
                      grad_.scalar_type() == query_.scalar_type() &&
                      grad_.get_device_index() == query_.get_device_index(),
                  "neighborhood_attention_backward: grad must be of query's shape and dtype.");
  const torch::stable::accelerator::DeviceGuard guard(query_.get_device_index());
  Tensor by_query = torch::stable::new_empty(query_, query_.sizes());
  Tensor by_key = torch::stable::new_empty(query_, query_.sizes());
  Tensor by_value = torch::stable::new_empty(query_, query_.sizes());
  Tensor by_table = torch::stable::new_zeros(table_, table_.sizes());
  if (query_.numel() == 0) return {by_query, by_key, by_value, by_table};
  const Tensor query = with_even_steps(query_), key = with_even_steps(key_);
  const Tensor value = with_even_steps(value_), grad = torch::stable::contiguous(grad_);
  const Tensor table = torch::stable::contiguous(table_);
  const int64_t items = sizes.positions() * sizes.heads;
  const int64_t entries = static_cast<int64_t>(sizes.side()) * sizes.side();
  const cudaStream_t stream = current_stream(query);
  by_dtype(query, [&](auto zero) {
    using T = decltype(zero);
    using A = Sum<T>;
    const Inputs<T> in{map_of<T>(query), map_of<T>(key), map_of<T>(value),
                       {static_cast<const T*>(grad.const_data_ptr()),
                        static_cast<int64_t>(sizes.heads) * sizes.channels},
                       static_cast<const A*>(table.const_data_ptr())};
    const size_t each = (2 * sizes.seen() + entries) * sizeof(A);
    const int warps = warps_for(each);
    const unsigned blocks = std::min<unsigned>(grid_for(sizes.positions(), warps), kBlocks);
    const std::vector<int64_t> kept_shape{items, kKept}, slot_shape{blocks, sizes.heads * entries};
    Tensor kept = torch::stable::new_empty(table, kept_shape);
    Tensor slots = torch::stable::new_empty(table, slot_shape);
    auto* of_queries = static_cast<A*>(kept.mutable_data_ptr());
    auto* of_blocks = static_cast<A*>(slots.mutable_data_ptr());
    const dim3 grid(blocks, static_cast<unsigned>(sizes.heads));
    auto* to_query = static_cast<T*>(by_query.mutable_data_ptr());
    backward_queries<T><<<grid, warps * kWarp, warps * each, stream>>>(sizes, in, to_query,
                                                                       of_queries, of_blocks);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const size_t sums = 2 * sizes.channels * sizeof(A);
    const int more = warps_for(sums);
    const unsigned others = grid_for(items, more);
    auto* to_key = static_cast<T*>(by_key.mutable_data_ptr());
    auto* to_value = static_cast<T*>(by_value.mutable_data_ptr());
    backward_keys<T><<<others, more * kWarp, more * sums, stream>>>(sizes, in, of_queries, to_key,
                                                                    to_value);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    auto* to_table = static_cast<A*>(by_table.mutable_data_ptr());
    const int64_t all = sizes.heads * entries;
    const int count = static_cast<int>(blocks);
    add_tables<A><<<blocks_for(all), kThreads, 0, stream>>>(of_blocks, count, all, to_table);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {by_query, by_key, by_value, by_table};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("neighborhood_attention", TORCH_BOX(&neighborhood_attention));
  m.impl("neighborhood_attention_backward", TORCH_BOX(&neighborhood_attention_backward));
}

}  // namespace swin_dense
