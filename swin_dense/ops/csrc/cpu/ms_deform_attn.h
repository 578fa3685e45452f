// One call of multi-scale deformable attention on the CPU, and the arithmetic of one level of
// instructions.
#pragma once

#include <cstdint>

#include "stored.h"

namespace swin_dense {

// Letters as in the op: B images, K positions of all maps, Q queries, N heads, D channels of a
// head, L maps, P points.
struct MsDeformAttn {
  int64_t batch, keys, queries, heads, channels, maps, points;
  Stored stored;                                         // value, out and their gradients
  const int32_t *height, *width, *start;                 // (L,): sizes, first position
  const void *value;                                     // (B, K, N, D)
  const void *locations, *weights;                       // (B, Q, N, L, P, 2), (B, Q, N, L, P)
  void* out;                                             // (B, Q, N, D)
  const void* grad;                                      // (B, Q, N, D)
  void *grad_value, *grad_locations, *grad_weights;
};  // locations, weights and their gradients: float64 where value is, else float32

// What each level offers.
struct MsDeformAttnLevel {
  // Queries [first, last) of all images.
  void (*forward)(const MsDeformAttn&, int64_t first, int64_t last);
  // Bytes of scratch that a backward over maps of so many positions needs.
  int64_t (*scratch)(const MsDeformAttn&, int64_t positions);
  // Tasks [first, last) are (image, head, map), the map counting fastest; each has results of its
  // own.
  void (*backward)(const MsDeformAttn&, int64_t first, int64_t last, void* scratch);
};

namespace portable {
extern const MsDeformAttnLevel ms_deform_attn;
}
namespace avx2 {
extern const MsDeformAttnLevel ms_deform_attn;
}
namespace avx512 {
extern const MsDeformAttnLevel ms_deform_attn;
}

}  // namespace swin_dense
