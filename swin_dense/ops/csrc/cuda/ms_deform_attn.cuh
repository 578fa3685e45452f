// What both directions of multi-scale deformable attention start with: the sizes of a call, the
// maps as the device finds them, and who does what.
//
// A team has one query of one head; the teams of a block have neighbouring queries, which mostly
// look at neighbouring places, of the same head. The sizes of the maps are read by the kernel: the
// host would have to wait for them.
#pragma once

#include <vector>

#include "bilinear.cuh"

namespace swin_dense {
namespace {

constexpr int kBlock = 128;
constexpr int kBlocks = 4096;   // a few times what a device runs at once
constexpr int kMostMaps = 2048;  // they lie in shared memory

// Letters as in the op: B images, K positions of all maps, Q queries, N heads, D channels of a
// head, L maps, P points.
struct Call {
  int images, keys, queries, heads, channels, maps, points;
  const int64_t* sizes;  // (L, 2)
  int lanes;             // of a team
  int parts, runs;       // of the channels of a head, which have teams of their own; of queries
  unsigned jobs;         // of blocks

  // `each` channels for a thread, and teams for all parts of the channels or one for all.
  void share_out(int each, int least, bool in_parts) {
    lanes = lanes_for(channels, each, least);
    const int teams = kBlock / lanes;
    parts = in_parts ? (channels + lanes * each - 1) / (lanes * each) : 1;
    runs = (queries + teams - 1) / teams;
    const double all = double(images) * runs * heads * parts;
    STD_TORCH_CHECK(all < double(1u << 31), "ms_deform_attn: that is too much for one call.");
    jobs = static_cast<unsigned>(images * runs * heads * parts);
  }
  unsigned blocks() const { return std::max(std::min<unsigned>(jobs, kBlocks), 1u); }
  size_t shared() const { return maps * sizeof(Map); }
  __host__ __device__ int row() const { return heads * channels; }
};

// What a team does.
struct Job {
  int part, head, image;
  bool idle;     // it is there only for the others of its warp
  int64_t item;  // of (B, Q, N)

  __device__ Job(const Call& call, const Team& team, unsigned number) {
    part = number % call.parts, number /= call.parts;
    head = number % call.heads, number /= call.heads;
    const int wanted = number % call.runs * (kBlock / team.lanes) + team.number;
    image = number / call.runs;
    idle = wanted >= call.queries;
    const int query = idle ? call.queries - 1 : wanted;
    item = (static_cast<int64_t>(image) * call.queries + query) * call.heads + head;
  }
};

// Where the maps lie, or false: the sizes are not those of maps that make up K positions. All
// threads of the block have to come.
__device__ bool lay_maps(const Call& call, Map* maps) {
  __shared__ bool fit;
#pragma unroll 1
  for (int i = threadIdx.x; i < call.maps; i += kBlock) {
    const int64_t height = call.sizes[2 * i], width = call.sizes[2 * i + 1];
    const bool sane = height >= 0 && width >= 0;
    const bool empty = sane && (height == 0 || width == 0);
    // No side is longer than the number of positions, so that the product fits.
    const bool fits = sane && height <= call.keys && width <= call.keys &&
                      height * width <= call.keys;
    maps[i] = empty ? Map{0, 0, 0} : Map{static_cast<int>(height), static_cast<int>(width), 0};
    if (!empty && !fits) maps[i].height = -1;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int64_t start = 0;
    fit = true;
    for (int i = 0; i < call.maps && fit; ++i) {
      maps[i].start = static_cast<int>(start);
      start += static_cast<int64_t>(maps[i].height) * maps[i].width;
      fit = maps[i].height >= 0 && start <= call.keys;
    }
    fit = fit && start == call.keys;
  }
  __syncthreads();
  return fit;
}

// NaN everywhere: the answer to maps that do not fit.
template <class T>
__device__ void spoil(T* numbers, int64_t count) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBlock;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < count;
       i += stride) {
    numbers[i] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
  }
}

// A sample of a query, as it comes.
template <class A>
struct Point {
  A y, x, weight;
  int map;  // -1: there is none

  __device__ Point(const Call& call, const A* locations, const A* weights, int64_t item,
                   int number) {
    const int count = call.maps * call.points;
    map = -1, y = x = weight = A(0);
    if (number >= count) return;
    const int64_t at = item * count + number;
    map = number / call.points;
    x = locations[2 * at], y = locations[2 * at + 1], weight = weights[at];
  }

  __device__ Sample<A> place_on(const Map* maps, Corners<A>& corners) const {
    if (map < 0) {
      corners.leave_out();
      return {A(0), A(0)};
    }
    const Map& on = maps[map];
    return place(y * static_cast<A>(on.height) - A(0.5), x * static_cast<A>(on.width) - A(0.5),
                 weight, on, corners);
  }
};

Call describe(const torch::stable::Tensor& value, const torch::stable::Tensor& shapes,
                     const torch::stable::Tensor& locations,
                     const torch::stable::Tensor& weights) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(value.dim() == 4 && locations.dim() == 6 && weights.dim() == 5,
                  "ms_deform_attn: value must be (B, K, N, D), sampling_locations (B, Q, N, L, P, "
                  "2), attention_weights (B, Q, N, L, P).");
  const ScalarType exact = summed_as(value);
  STD_TORCH_CHECK(locations.scalar_type() == exact && weights.scalar_type() == exact,
                  "ms_deform_attn: sampling_locations and attention_weights must be float32, or "
                  "float64 where value is.");
  STD_TORCH_CHECK(weights.size(0) == value.size(0) && weights.size(2) == value.size(2) &&
                      locations.size(5) == 2,
                  "ms_deform_attn: attention_weights must be (B, Q, N, L, P).");
  for (int64_t axis = 0; axis < 5; ++axis) {
    STD_TORCH_CHECK(locations.size(axis) == weights.size(axis),
                    "ms_deform_attn: there must be one location for each weight.");
  }
  STD_TORCH_CHECK(shapes.dim() == 2 && shapes.size(0) == weights.size(3) && shapes.size(1) == 2 &&
                      shapes.scalar_type() == ScalarType::Long,
                  "ms_deform_attn: spatial_shapes must be (L, 2), int64.");
  for (const torch::stable::Tensor* tensor : {&shapes, &locations, &weights}) {
    STD_TORCH_CHECK(tensor->get_device_index() == value.get_device_index(),
                    "ms_deform_attn: all tensors must be on one device.");
  }
  STD_TORCH_CHECK(value.size(1) < kMostPositions && weights.size(1) < kMostPositions &&
                      value.size(0) < kMostPositions,
                  "ms_deform_attn: maps have fewer than 2^30 positions, and so many queries.");
  STD_TORCH_CHECK(value.size(2) < kMostPositions && value.size(3) < kMostPositions &&
                      value.size(2) * value.size(3) < kMostPositions,
                  "ms_deform_attn: heads have fewer than 2^30 channels together.");
  STD_TORCH_CHECK(weights.size(3) <= kMostMaps && weights.size(4) < kMostPositions &&
                      weights.size(3) * weights.size(4) < kMostPositions,
                  "ms_deform_attn: at most 2048 maps, and fewer than 2^30 points.");
  Call call{};
  call.images = static_cast<int>(value.size(0)), call.keys = static_cast<int>(value.size(1));
  call.heads = static_cast<int>(value.size(2)), call.channels = static_cast<int>(value.size(3));
  call.queries = static_cast<int>(weights.size(1)), call.maps = static_cast<int>(weights.size(3));
  call.points = static_cast<int>(weights.size(4));
  return call;
}

}  // namespace
}  // namespace swin_dense
