// One call of attention with terms for rows and columns, and the arithmetic of one level.
#pragma once

#include <cstdint>

namespace swin_dense {

// Letters as in the op, but for N: all heads of all images.
struct DecomposedAttention {
  int64_t heads, queries, height, width, head_dim;

  const float *q, *k, *v;       // (N, L, D), already scaled; (N, H * W, D)
  const float *rows, *columns;  // (N, L, H), (N, L, W)
  float* out;                   // (N, L, D)

  // Backward.
  const float* grad;  // (N, L, D)
  float *by_q, *by_k, *by_v, *by_rows, *by_columns;
};

struct DecomposedAttentionLevel {
  int64_t (*scratch)(const DecomposedAttention&);  // of one thread, in floats
  int64_t (*blocks)(const DecomposedAttention&);   // of queries of a head
  // Items are (head, block) with the block counting fastest.
  void (*forward)(const DecomposedAttention&, int64_t first, int64_t last, float* scratch);
  void (*backward)(const DecomposedAttention&, int64_t head, float* scratch);
};

namespace portable {
extern const DecomposedAttentionLevel decomposed_attention;
}
namespace avx2 {
extern const DecomposedAttentionLevel decomposed_attention;
}
namespace avx512 {
extern const DecomposedAttentionLevel decomposed_attention;
}

}  // namespace swin_dense
