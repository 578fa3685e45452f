// The columns of a deformable convolution on CUDA, both directions; the meaning is
// reference.deform_columns.
//
// A warp has 32 neighbouring outputs of a deformable group and a position of the kernel (a tap):
// each thread places the sample of one of them, so that offsets are read side by side, and then
// the teams of the warp go through the samples with the channels of the group between them. The
// warps of a block have other taps of the same outputs, which look at nearly the same places.
//
// What many samples add to the same input goes through atomics: its last bits depend on the order
// of the threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "bilinear.cuh"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
typedef const std::optional<Tensor> Maybe;

constexpr int kBlock = 128;
constexpr int kBlocks = 4096;  // a few times what a device runs at once

// Letters as in the op: B images, G deformable groups, K taps, P outputs of all images.
struct Call {
  int height, width, channels, groups, kernel, kernel_width, out_height, out_width;
  int64_t stride[2], padding[2], dilation[2];  // y, x
  int first, count;  // P outputs from `first` on
  int lanes;         // of a team
  unsigned jobs;     // of warps

  void share_out(int each, int least) {
    lanes = lanes_for(channels / groups, each, least);
    const double all = double((count + kWarp - 1) / kWarp) * groups * kernel;
    STD_TORCH_CHECK(all < double(1u << 31), "deform_columns: that is too much for one call.");
    jobs = static_cast<unsigned>(all);
  }
  unsigned blocks() const {
    constexpr unsigned warps = kBlock / kWarp;
    return std::min<unsigned>((jobs + warps - 1) / warps, kBlocks);
  }
};

template <class T>
struct Inputs {
  const T* input;
  const Sum<T> *offset, *mask;  // the mask may be null
};

// What a warp does.
struct Job {
  int tap, group, begin, count;  // outputs from `begin` on, counted from the first of the call
  __device__ Job(const Call& call, unsigned number) {
    tap = number % call.kernel, number /= call.kernel;
    group = number % call.groups;
    begin = number / call.groups * kWarp;
    count = call.count - begin < kWarp ? call.count - begin : kWarp;
  }
};

// Where the numbers of one sample are.
struct Place {
  int64_t y, x;     // of offset
  int64_t factor;   // of mask
  int64_t base[2];  // what the offset is added to
  int start;        // of the image, among the positions of all

  __device__ Place(const Call& call, const Job& job, int output) {
    const unsigned plane = static_cast<unsigned>(call.out_height) * call.out_width;
    const unsigned number = static_cast<unsigned>(call.first) + output, image = number / plane;
    const unsigned at = number % plane;
    factor = ((static_cast<int64_t>(image) * call.groups + job.group) * call.kernel + job.tap) *
                 plane + at;
    y = factor * 2 - at, x = y + plane;
    base[0] = at / call.out_width * call.stride[0] - call.padding[0] +
              job.tap / call.kernel_width * call.dilation[0];
    base[1] = at % call.out_width * call.stride[1] - call.padding[1] +
              job.tap % call.kernel_width * call.dilation[1];
    start = static_cast<int>(image) * call.height * call.width;
  }

  template <class T, class A>
  __device__ Sample<A> sample(const Call& call, const Inputs<T>& in, A weight,
                              Corners<A>& corners) const {
    return swin_dense::place(static_cast<A>(base[0]) + in.offset[y],
                             static_cast<A>(base[1]) + in.offset[x], weight,
                             Map{call.height, call.width, start}, corners);
  }
};

template <class T>
constexpr int kEach = 16 / sizeof(T);
template <class T>
constexpr int kEachBack = 16 / sizeof(Sum<T>);  // four floats are what can be added at a time

// The second of the bounds: blocks of a multiprocessor at once, which is what hides how long a
// read takes.
template <class T, bool wide>
__global__ void __launch_bounds__(kBlock, wide ? 8 : 4)
    forward(Call call, Inputs<T> in, T* out) {
  using A = Sum<T>;
  constexpr int V = kEach<T>;
  __shared__ Corners<A> slots[kBlock];
  const Team team(call.lanes);
  const Share<V, wide> share(team);
  const int warp = threadIdx.x / kWarp, thread = threadIdx.x % kWarp, own = thread - team.lane;
  const int channels = call.channels / call.groups, at_once = team.lanes * V;
  constexpr unsigned warps = kBlock / kWarp;
  for (unsigned number = blockIdx.x * warps + warp; number < call.jobs;
       number += gridDim.x * warps) {
    const Job job(call, number);
    Corners<A> corners;
    if (thread < job.count) {
      const Place place(call, job, job.begin + thread);
      place.sample(call, in, in.mask == nullptr ? A(1) : in.mask[place.factor], corners);
    }
    __syncwarp();  // nobody reads the last ones any more
    if (thread < job.count) slots[team.slot(team.lane)] = corners;
    __syncwarp();
    const T* base = in.input + job.group * channels;
    T* to = out + (static_cast<int64_t>(job.begin + own) * call.kernel + job.tap) * call.channels +
            job.group * channels;
    const int64_t next = static_cast<int64_t>(call.kernel) * call.channels;
    const int some = job.count - own < team.lanes ? job.count - own : team.lanes;
#pragma unroll 2
    for (int s = 0; s < some; ++s, to += next) {
      const Corners<A> of_sample = slots[team.slot(s)];
      for (int from = 0; from < channels; from += at_once) {
        A sum[V] = {};
        share.add_sample(of_sample, base + from, call.channels, channels - from, sum);
        share.write(to + from, channels - from, sum);
      }
    }
  }
}

template <class A>
struct Results {
  A *input, *offset, *mask;  // the mask's may be null
};

template <class T, bool in_runs>
__global__ void __launch_bounds__(kBlock, in_runs && kAddsFour ? 5 : 4)
    backward(Call call, Inputs<T> in, const T* grad, Results<Sum<T>> results) {
  using A = Sum<T>;
  constexpr int V = kEachBack<T>;
  constexpr bool wide = in_runs && kAddsFour;
  __shared__ Corners<A> slots[kBlock];
  const Team team(call.lanes);
  const Share<V, wide> share(team);
  const int warp = threadIdx.x / kWarp, own = threadIdx.x % kWarp - team.lane;
  const int channels = call.channels / call.groups, at_once = team.lanes * V;
  constexpr unsigned warps = kBlock / kWarp;
  for (unsigned number = blockIdx.x * warps + warp; number < call.jobs;
       number += gridDim.x * warps) {
    const Job job(call, number);
    // Threads without a sample stand for the last one; nothing comes of it.
    const bool there = own + team.mine() < job.count;
    const Place place(call, job, job.begin + (there ? own + team.mine() : job.count - 1));
    const A weight = in.mask == nullptr ? A(1) : in.mask[place.factor];
    Corners<A> corners;
    const Sample<A> sample = place.sample(call, in, weight, corners);
    if (!there) corners.leave_out();
    __syncwarp();  // nobody reads the last ones any more
    slots[team.slot(team.mine())] = corners;
    __syncwarp();
    const int64_t next = static_cast<int64_t>(call.kernel) * call.channels;
    const T* of_job = grad + job.begin * next +
                      static_cast<int64_t>(job.tap) * call.channels + job.group * channels;
    A products[kCorners];
    collect(team, team.lanes, products, [&](int four, A(&sums)[kFour][kCorners]) {
      for (int from = 0; from < channels; from += at_once) {
        const int left = channels - from;
#pragma unroll
        for (int s = 0; s < kFour; ++s) {
          const int output = own + four + s;
          Piece<T, V> given;
          share.read(of_job + output * next + from, left, output < job.count, given);
          const Corners<A> of_sample = slots[team.slot(four + s)];
          share.take_back(of_sample, in.input + job.group * channels + from,
                          results.input + job.group * channels + from, call.channels, left, given,
                          sums[s]);
        }
      }
    });
    if (!there) continue;
    results.offset[place.y] = sample.by_y(products) * weight;
    results.offset[place.x] = sample.by_x(products) * weight;
    if (results.mask != nullptr) results.mask[place.factor] = sample.by_factor(products);
  }
}

void check_dense(const Tensor& x, ScalarType type, int64_t count, const Tensor& beside) {
  STD_TORCH_CHECK(x.is_contiguous() && x.scalar_type() == type && x.numel() == count &&
                      x.get_device_index() == beside.get_device_index(),
                  "deform_columns: tensors must be dense, of the right dtype and size, and on one "
                  "device.");
}

Call describe(const Tensor& input, const Tensor& offset, Maybe& mask, int64_t kernel_width,
              const std::vector<int64_t>& stride, const std::vector<int64_t>& padding,
              const std::vector<int64_t>& dilation, int64_t first, const Tensor& columns) {
  STD_TORCH_CHECK(input.dim() == 4 && offset.dim() == 6 && offset.size(3) == 2 &&
                      offset.size(0) == input.size(0) && offset.size(1) > 0 &&
                      input.size(3) % offset.size(1) == 0 && kernel_width > 0,
                  "deform_columns: input must be (B, H, W, C), offset (B, G, K, 2, Ho, Wo), G a "
                  "divisor of C.");
  STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                  "deform_columns: stride, padding and dilation must be two numbers each.");
  STD_TORCH_CHECK(columns.dim() == 3 && columns.size(1) == offset.size(2) &&
                      columns.size(2) == input.size(3),
                  "deform_columns: columns must be (P, K, C).");
  const int64_t outputs = offset.size(0) * offset.size(4) * offset.size(5);
  STD_TORCH_CHECK(first >= 0 && first + columns.size(0) <= outputs,
                  "deform_columns: there are no such positions.");
  const double positions = double(input.size(0)) * input.size(1) * input.size(2);
  STD_TORCH_CHECK(positions < kMostPositions && outputs < kMostPositions &&
                      input.size(1) < kMostPositions && input.size(2) < kMostPositions &&
                      input.size(3) < kMostPositions && offset.size(2) < kMostPositions &&
                      kernel_width < kMostPositions,
                  "deform_columns: fewer than 2^30 positions, outputs and channels.");
  const ScalarType exact = summed_as(input);
  check_dense(input, input.scalar_type(), input.numel(), input);
  check_dense(offset, exact, offset.numel(), input);
  if (mask.has_value()) check_dense(*mask, exact, offset.numel() / 2, input);
  check_dense(columns, input.scalar_type(), columns.numel(), input);
  Call call{};
  call.height = static_cast<int>(input.size(1)), call.width = static_cast<int>(input.size(2));
  call.channels = static_cast<int>(input.size(3));
  call.groups = static_cast<int>(offset.size(1)), call.kernel = static_cast<int>(offset.size(2));
  call.kernel_width = static_cast<int>(kernel_width);
  call.out_height = static_cast<int>(offset.size(4));
  call.out_width = static_cast<int>(offset.size(5));
  for (int axis = 0; axis < 2; ++axis) {
    call.stride[axis] = stride[axis], call.padding[axis] = padding[axis];
    call.dilation[axis] = dilation[axis];
  }
  call.first = static_cast<int>(first), call.count = static_cast<int>(columns.size(0));
  return call;
}

template <class T>
Inputs<T> inputs_of(const Tensor& input, const Tensor& offset, Maybe& mask) {
  using A = Sum<T>;
  return {static_cast<const T*>(input.const_data_ptr()),
          static_cast<const A*>(offset.const_data_ptr()),
          mask.has_value() ? static_cast<const A*>(mask->const_data_ptr()) : nullptr};
}

void deform_columns(const Tensor input, const Tensor offset, Maybe mask, int64_t kernel_width,
                    std::vector<int64_t> stride, std::vector<int64_t> padding,
                    std::vector<int64_t> dilation, int64_t first, Tensor out) {
  Call call = describe(input, offset, mask, kernel_width, stride, padding, dilation, first, out);
  if (out.numel() == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const cudaStream_t stream = current_stream(input);
  by_dtype(input, [&](auto zero) {
    using T = decltype(zero);
    call.share_out(kEach<T>, 1);
    const Inputs<T> in = inputs_of<T>(input, offset, mask);
    T* to = static_cast<T*>(out.mutable_data_ptr());
    const unsigned blocks = call.blocks();
    if (in_runs(call.channels / call.groups, kEach<T>, in.input, to)) {
      forward<T, true><<<blocks, kBlock, 0, stream>>>(call, in, to);
    } else {
      forward<T, false><<<blocks, kBlock, 0, stream>>>(call, in, to);
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

void deform_columns_backward(const Tensor grad, const Tensor input, const Tensor offset, Maybe mask,
                             int64_t kernel_width, std::vector<int64_t> stride,
                             std::vector<int64_t> padding, std::vector<int64_t> dilation,
                             int64_t first, Tensor grad_input, Tensor grad_offset,
                             Maybe grad_mask) {
  Call call = describe(input, offset, mask, kernel_width, stride, padding, dilation, first, grad);
  const ScalarType exact = summed_as(input);
  check_dense(grad_input, exact, input.numel(), input);
  check_dense(grad_offset, exact, offset.numel(), input);
  if (grad_mask.has_value()) check_dense(*grad_mask, exact, offset.numel() / 2, input);
  if (call.count == 0 || call.kernel == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const cudaStream_t stream = current_stream(input);
  by_dtype(input, [&](auto zero) {
    using T = decltype(zero);
    using A = Sum<T>;
    call.share_out(kEachBack<T>, kFour);
    const Inputs<T> in = inputs_of<T>(input, offset, mask);
    const auto* from = static_cast<const T*>(grad.const_data_ptr());
    const Results<A> results{
        static_cast<A*>(grad_input.mutable_data_ptr()),
        static_cast<A*>(grad_offset.mutable_data_ptr()),
        grad_mask.has_value() ? static_cast<A*>(grad_mask->mutable_data_ptr()) : nullptr};
    const unsigned blocks = call.blocks();
    if constexpr (std::is_same_v<A, float>) {
      if (in_runs(call.channels / call.groups, kEachBack<T>, in.input, from, results.input)) {
        backward<T, true><<<blocks, kBlock, 0, stream>>>(call, in, from, results);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
        return;
      }
    }
    backward<T, false><<<blocks, kBlock, 0, stream>>>(call, in, from, results);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) {
  m.impl("deform_columns", TORCH_BOX(&deform_columns));
  m.impl("deform_columns_backward", TORCH_BOX(&deform_columns_backward));
}

}  // namespace swin_dense
