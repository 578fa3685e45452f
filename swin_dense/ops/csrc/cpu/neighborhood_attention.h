// One call of neighborhood attention on the CPU, and the arithmetic of one level of instructions.
#pragma once

#include <cstdint>

#include "stored.h"

namespace swin_dense {

// A class is the rows that leave the same rest by the dilation: they see only one another. It is
// shared out in chunks of `chunk` rows; a task is (image, class, chunk, head), the head counting
// fastest.
struct NeighborhoodAttention {
  int64_t batch, height, width, heads, channels;
  int64_t window, down, across;
  double scale;
  Stored stored;  // maps and their gradients; sums, the table and its gradient are float64 where
                  // maps are, else float32
  const void *query, *key, *value;  // (B, H, W, N, D), positions `step` numbers apart
  int64_t query_step, key_step, value_step;
  const void* table;  // (N, 2 window - 1, 2 window - 1)
  void* out;          // (B, H, W, N, D)
  int64_t chunks, chunk;

  // Backward. What a task adds to the rows of keys it sees is its own until all are done.
  const void* grad;                           // (B, H, W, N, D)
  void *grad_query, *grad_key, *grad_value;   // the same
  void* parts;                                // (tasks, key and value, part_rows, W, whole D)
  void* part_table;                           // (tasks, (2 window - 1)^2)

  int64_t side() const { return 2 * window - 1; }
  int64_t rows(int64_t of) const { return (height - of + down - 1) / down; }  // of a class
  int64_t tasks() const { return batch * down * chunks * heads; }
  int64_t part_rows() const {
    const int64_t most = chunk + window - 1, all = rows(0);
    return most < all ? most : all;
  }
  // The first row of its class that row `number` sees.
  int64_t begin(int64_t number, int64_t count) const {
    const int64_t middle = number - window / 2, last = count - window;
    return middle < 0 ? 0 : middle < last ? middle : last;
  }
};

// What each level offers; lengths are in numbers of the sums' type.
struct NeighborhoodAttentionLevel {
  int64_t (*whole)(const NeighborhoodAttention&);                   // D, in whole blocks
  int64_t (*scratch)(const NeighborhoodAttention&, bool backward);  // of one thread
  void (*forward)(const NeighborhoodAttention&, int64_t task, void* scratch);
  void (*backward)(const NeighborhoodAttention&, int64_t task, void* scratch);
  // Adds up what the tasks left for a row of keys; row counts through the images.
  void (*collect)(const NeighborhoodAttention&, int64_t row);
};

namespace portable {
extern const NeighborhoodAttentionLevel neighborhood_attention;
}
namespace avx2 {
extern const NeighborhoodAttentionLevel neighborhood_attention;
}
namespace avx512 {
extern const NeighborhoodAttentionLevel neighborhood_attention;
}

}  // namespace swin_dense
