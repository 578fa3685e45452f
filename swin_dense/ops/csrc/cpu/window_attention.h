// One call of window attention on the CPU, and the arithmetic of one level of instructions.
#pragma once

#include <cstdint>

namespace swin_dense {

struct WindowAttention {
  int64_t batch, height, width, heads, head_dim;
  int64_t window, shift;
  bool cosine, half;  // half: maps, pad and their gradients are bfloat16, else float32

  const void *qkv, *pad;  // (B, H, W, 3, N, D), (3, N, D)
  const float* bias;      // (N, L, whole(L)) with -inf behind every row
  const float* scale;     // (N,)
  void* out;              // (B, H, W, N * D)

  // Backward. A part is a fixed share of the windows; what it adds up for a head is its own.
  const void* grad;     // (B, H, W, N * D)
  void* grad_qkv;       // as qkv
  float* part_bias;     // (parts, N, L, whole(L))
  float* part_rest;     // (parts, N, 2 whole(D) + whole(1)): of k and v of the pad, of the scale
  int64_t parts;

  int64_t down() const { return (height + window - 1) / window; }
  int64_t across() const { return (width + window - 1) / window; }
  int64_t windows() const { return batch * down() * across(); }
  int64_t length() const { return window * window; }
};

// What each level offers; lengths are in floats.
struct WindowAttentionLevel {
  int64_t (*whole)(int64_t count);             // rounded up to whole registers
  int64_t (*scratch)(const WindowAttention&);  // of one thread
  // Items are (window, head) with the head counting fastest.
  void (*forward)(const WindowAttention&, int64_t first, int64_t last, float* scratch);
  // All windows of one part, heads [first, last).
  void (*backward)(const WindowAttention&, int64_t part, int64_t first, int64_t last,
                   float* scratch);
};

namespace portable {
extern const WindowAttentionLevel window_attention;
}
namespace avx2 {
extern const WindowAttentionLevel window_attention;
}
namespace avx512 {
extern const WindowAttentionLevel window_attention;
}

}  // namespace swin_dense
