// One call for the columns of a deformable convolution on the CPU, and the arithmetic of one level
// of instructions.
#pragma once

#include <cstdint>

#include "stored.h"

namespace swin_dense {

// Letters as in the op: G deformable groups, K positions of the kernel, P positions of the output.
struct DeformColumns {
  int64_t batch, height, width, channels;  // of the input
  int64_t groups, kernel, kernel_width, out_height, out_width;
  int64_t stride[2], padding[2], dilation[2];
  int64_t first, positions;  // P positions from `first` on, counted through all images
  Stored stored;             // input, columns and their gradient

  // (B, H, W, C), (B, G, K, 2, Ho, Wo), (B, G, K, Ho, Wo) or null
  const void *input, *offset, *mask;
  void* out;                          // (P, K, C)

  const void* grad;                              // (P, K, C)
  void *grad_input, *grad_offset, *grad_mask;    // as input, offset and mask
};  // offset, mask and the gradients but `grad`: float64 where input is, else float32

// What each level offers. Positions count from `first` of the call on.
struct DeformColumnsLevel {
  void (*forward)(const DeformColumns&, int64_t begin, int64_t end);
  // The gradients of offset and mask.
  void (*backward_places)(const DeformColumns&, int64_t begin, int64_t end);
  // What all positions add to channels [begin, end) of the input, of one deformable group.
  void (*backward_input)(const DeformColumns&, int64_t begin, int64_t end);
};

namespace portable {
extern const DeformColumnsLevel deform_columns;
}
namespace avx2 {
extern const DeformColumnsLevel deform_columns;
}
namespace avx512 {
extern const DeformColumnsLevel deform_columns;
}

}  // namespace swin_dense
