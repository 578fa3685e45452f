// Calls that treat every row of a matrix alike, and the arithmetic of one level of instructions.
#pragma once

#include <cstdint>

namespace swin_dense {

// Letters as in the ops: x is what runs through the network, y what a product gives or takes.
struct Rows {
  int64_t rows, columns;
  bool half_x, half_y;          // bfloat16, else float32
  const void *x, *y, *to;       // (R, C); `to` is of x's type and may be null
  const float *weight, *bias;   // (C,); may be null where an op allows it
  const float* factor;          // (R,), or null for 1
  float eps;
  void *out, *active;           // (R, C)
  float* sums;                  // (blocks, sets, C): over the rows of a block
};

// Rows of one task. Sums over blocks are added up in their order, whoever did them.
constexpr int64_t kRowsOfBlock = 64;

typedef void (*RowsOp)(const Rows&, int64_t first, int64_t last, float* sums);

struct RowsLevel {
  RowsOp norm, norm_backward, gelu, gelu_backward, add, scale;
};

namespace portable {
extern const RowsLevel rows;
}
namespace avx2 {
extern const RowsLevel rows;
}
namespace avx512 {
extern const RowsLevel rows;
}

}  // namespace swin_dense
