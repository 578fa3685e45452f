// Non-maximum suppression on CUDA; the meaning is reference.nms.
//
// Boxes are taken by decreasing score, kRows at a time: one kernel writes, for each of these rows,
// a bit per later box that it would suppress; a second kernel of one block walks the rows in order
// and keeps or drops them. Boxes of different labels never get such a bit. The host waits once, for
// the number of boxes kept. Compiled without contraction (setup.py): the overlap has to round
// exactly as in the reference.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <limits>
#include <optional>

#include "launch.cuh"

namespace swin_dense {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int kBits = 64;      // boxes per word of the bit map
constexpr int64_t kRows = 4096;  // rows whose words are held at a time

// (row, word): the bits of the boxes of that word which come later, overlap the row's box and have
// its label, if there are any (else null).
template <class A>
__global__ void mark(const A* boxes, const int64_t* labels, const int64_t* order, int64_t count,
                     int64_t first_row, int64_t words, A threshold, A offset, uint64_t* marks) {
  const int64_t word = blockIdx.x, row_block = blockIdx.y;
  const int64_t row = first_row + row_block * kBits + threadIdx.x;
  __shared__ A others[kBits * 5];
  __shared__ int64_t labels_of_others[kBits];
  const int64_t mine = word * kBits + threadIdx.x;
  if (mine < count) {
    const A* box = boxes + order[mine] * 4;
    A* to = others + threadIdx.x * 5;
    to[0] = box[0], to[1] = box[1], to[2] = box[2], to[3] = box[3];
    to[4] = (box[2] - box[0] + offset) * (box[3] - box[1] + offset);
    labels_of_others[threadIdx.x] = labels == nullptr ? 0 : labels[order[mine]];
  }
  __syncthreads();
  if (row >= count) return;
  uint64_t bits = 0;
  if ((word + 1) * kBits > row + 1) {  // some box of the word comes after the row
    const A* box = boxes + order[row] * 4;
    const A x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
    const A area = (x2 - x1 + offset) * (y2 - y1 + offset);
    const int64_t label = labels == nullptr ? 0 : labels[order[row]];
    const int64_t left = count - word * kBits;
    const int end = left < kBits ? static_cast<int>(left) : kBits;
    for (int j = 0; j < end; ++j) {
      const A* other = others + j * 5;
      const A l = other[0] > x1 ? other[0] : x1, t = other[1] > y1 ? other[1] : y1;
      const A r = other[2] < x2 ? other[2] : x2, b = other[3] < y2 ? other[3] : y2;
      A w = r - l + offset, h = b - t + offset;
      w = w > A(0) ? w : A(0), h = h > A(0) ? h : A(0);
      const A inter = w * h;
      const bool close = inter / (area + other[4] - inter) > threshold;
      const bool rivals = labels_of_others[j] == label && word * kBits + j > row;
      if (close && rivals) bits |= uint64_t(1) << j;
    }
  }
  marks[(row - first_row) * words + word] = bits;
}

// One block. `dropped` has a bit per box and lives through all calls; so does *kept_count.
__global__ void settle(const uint64_t* marks, const int64_t* order, int64_t count,
                       int64_t first_row, int64_t words, uint64_t* dropped, int64_t* kept,
                       int64_t* kept_count) {
  __shared__ uint64_t diagonal[kBits];
  __shared__ uint64_t survivors;
  const int64_t end = first_row + kRows < count ? first_row + kRows : count;
  for (int64_t base = first_row; base < end; base += kBits) {
    const int64_t word = base / kBits;
    const int size = static_cast<int>(end - base < kBits ? end - base : kBits);
    const uint64_t* rows = marks + (base - first_row) * words;
    if (threadIdx.x < size) diagonal[threadIdx.x] = rows[threadIdx.x * words + word];
    __syncthreads();
    if (threadIdx.x == 0) {
      uint64_t gone = dropped[word], alive = 0;
      int64_t total = *kept_count;
      for (int i = 0; i < size; ++i) {
        if (gone >> i & 1) continue;
        alive |= uint64_t(1) << i;
        gone |= diagonal[i];
        kept[total++] = order[base + i];
      }
      *kept_count = total;
      survivors = alive;
    }
    __syncthreads();
    const uint64_t alive = survivors;
    for (int64_t w = word + 1 + threadIdx.x; w < words; w += blockDim.x) {
      uint64_t gone = 0;
      for (uint64_t rest = alive; rest != 0; rest &= rest - 1) {
        gone |= rows[static_cast<int64_t>(__ffsll(static_cast<long long>(rest)) - 1) * words + w];
      }
      dropped[w] |= gone;
    }
    __syncthreads();
  }
}

Tensor call(const char* name, const char* overload, StableIValue* stack) {
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Indices by decreasing score; equal scores keep their order, NaN counts as -inf.
Tensor by_score(const Tensor& scores) {
  using torch::stable::detail::from;
  const double infinity = std::numeric_limits<double>::infinity();
  StableIValue clean[] = {from(scores), from(std::optional<double>(-infinity)),
                          from(std::optional<double>(infinity)),
                          from(std::optional<double>(-infinity))};
  const Tensor numbers = call("aten::nan_to_num", "", clean);
  StableIValue sorted[] = {from(numbers), from(std::optional<bool>(true)), from(int64_t(0)),
                           from(true)};
  const Tensor values = call("aten::sort", "stable", sorted);
  return torch::stable::detail::to<Tensor>(sorted[1]);
}

template <class A>
Tensor suppress(const Tensor& boxes, const Tensor& scores, const int64_t* labels, A threshold,
                A offset) {
  const int64_t count = boxes.size(0), words = (count + kBits - 1) / kBits;
  const cudaStream_t stream = current_stream(boxes);
  const Tensor order = by_score(scores);
  const Tensor marks = torch::stable::new_empty(order, {std::min(kRows, count) * words});
  // The bits of the dropped boxes, then the number of boxes kept.
  const Tensor state = torch::stable::new_zeros(order, {words + 1});
  Tensor kept = torch::stable::new_empty(order, {count});
  auto* dropped = reinterpret_cast<uint64_t*>(state.mutable_data_ptr<int64_t>());
  int64_t* kept_count = state.mutable_data_ptr<int64_t>() + words;
  for (int64_t first = 0; first < count; first += kRows) {
    const int64_t rows = std::min(kRows, count - first);
    const auto row_blocks = static_cast<unsigned>((rows + kBits - 1) / kBits);
    const dim3 grid(static_cast<unsigned>(words), row_blocks);
    auto* words_of_rows = reinterpret_cast<uint64_t*>(marks.mutable_data_ptr<int64_t>());
    mark<A><<<grid, kBits, 0, stream>>>(static_cast<const A*>(boxes.const_data_ptr()), labels,
                                        order.const_data_ptr<int64_t>(), count, first, words,
                                        threshold, offset, words_of_rows);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    settle<<<1, 1024, 0, stream>>>(words_of_rows, order.const_data_ptr<int64_t>(), count, first,
                                   words, dropped, kept.mutable_data_ptr<int64_t>(), kept_count);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  int64_t size = 0;
  STD_CUDA_CHECK(
      cudaMemcpyAsync(&size, kept_count, sizeof(size), cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  return torch::stable::clone(torch::stable::narrow(kept, 0, 0, size));
}

Tensor nms(const Tensor boxes, const Tensor scores, double iou_threshold, int64_t offset,
           const std::optional<Tensor> labels_) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4 && scores.dim() == 1 &&
                      scores.size(0) == boxes.size(0) &&
                      scores.scalar_type() == boxes.scalar_type(),
                  "nms: boxes (N, 4) and scores (N,) of one dtype are needed.");
  STD_TORCH_CHECK(!labels_.has_value() ||
                      (labels_->dim() == 1 && labels_->size(0) == boxes.size(0) &&
                       labels_->scalar_type() == ScalarType::Long),
                  "nms: labels are (N,), int64.");
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  if (boxes.size(0) == 0) return torch::stable::new_empty(boxes, {0}, ScalarType::Long);
  std::optional<Tensor> dense;
  if (labels_.has_value()) dense = torch::stable::contiguous(*labels_);
  const int64_t* labels = dense.has_value() ? dense->const_data_ptr<int64_t>() : nullptr;
  if (boxes.scalar_type() == ScalarType::Double) {
    return suppress<double>(torch::stable::contiguous(boxes), scores, labels, iou_threshold,
                            double(offset));
  }
  const Tensor exact = torch::stable::to(boxes, ScalarType::Float);
  return suppress<float>(torch::stable::contiguous(exact), scores, labels, float(iou_threshold),
                         float(offset));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(swin_dense, CUDA, m) { m.impl("nms", TORCH_BOX(&nms)); }

}  // namespace swin_dense
