// Attention with terms for rows and columns, a block of queries of one head at a time.
//
// Keys stand in scratch a row of the map after the other, each row in whole registers: what is
// added to their logits is then one number for the row and a register of the columns. What fills a
// row up has the term -inf. Products are register tiles (lanes.h); transposed keys and values
// stand in panels as wide as a tile, which stay in the first-level cache while queries pass.
#include "../decomposed_attention.h"

#include "lanes.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

constexpr int64_t kBlock = 1 << 17;  // logits of one block of queries
constexpr int64_t kPanel = kTileColumns * kLanes;

struct Sizes {
  int64_t w, keys, row;  // W in whole registers; H * w; from one query's logits to the next
  int64_t d, panels, block;
  explicit Sizes(const DecomposedAttention& call)
      : w(whole(call.width)), keys(call.height * w), row(keys + kLanes), d(whole(call.head_dim)) {
    panels = (keys + kPanel - 1) / kPanel;
    block = kBlock / row / kTileRows * kTileRows;
    if (block < kTileRows) block = kTileRows;
    if (block > call.queries) block = call.queries;
  }
};

struct Scratch {
  float *k, *v, *by_k, *by_v;        // (keys, d)
  float *kt, *vt;                    // (panels, d, kPanel)
  float *p, *s;                      // (block, row)
  float *q, *g, *product;            // (block, d)
  float *columns, *by_columns;       // (w,)
};

// Lays the parts out behind one another; with a null `from` it only counts.
int64_t lay(Scratch& to, const Sizes& z, float* from) {
  int64_t used = 0;
  const auto next = [&](int64_t count) {
    float* at = from + used;
    used += whole(count) + kLanes;
    return at;
  };
  float** maps[] = {&to.k, &to.v, &to.by_k, &to.by_v};
  for (float** part : maps) *part = next(z.keys * z.d);
  to.kt = next(z.panels * z.d * kPanel), to.vt = next(z.panels * z.d * kPanel);
  to.p = next(z.block * z.row), to.s = next(z.block * z.row);
  float** rows[] = {&to.q, &to.g, &to.product};
  for (float** part : rows) *part = next(z.block * z.d);
  to.columns = next(z.w), to.by_columns = next(z.w);
  return used;
}

SWIN_DENSE_INLINE void read_rows(const float* from, int64_t rows, int64_t count, float* to,
                                 int64_t to_row) {
  for (int64_t r = 0; r < rows; ++r, from += count, to += to_row) {
    for (int64_t c = 0; c < count; c += kLanes) store(to + c, load_some(from + c, count - c));
  }
}

SWIN_DENSE_INLINE void write_row(const float* from, float factor, int64_t count, float* to) {
  for (int64_t c = 0; c < count; c += kLanes) {
    store_some(to + c, load(from + c) * factor, count - c);
  }
}

void clear(float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(from + i, Float{});
}

// (H * W, D) -> (keys, d) and, where it is asked for, its panels.
void gather(const DecomposedAttention& call, const Sizes& z, const float* from, float* to,
            float* panels) {
  for (int64_t y = 0; y < call.height; ++y, to += z.w * z.d, from += call.width * call.head_dim) {
    read_rows(from, call.width, call.head_dim, to, z.d);
    clear(to + call.width * z.d, (z.w - call.width) * z.d);
  }
  if (panels == nullptr) return;
  to -= z.keys * z.d;
  for (int64_t p = 0; p < z.panels; ++p) {
    const int64_t first = p * kPanel, some = z.keys - first < kPanel ? z.keys - first : kPanel;
    transpose(to + first * z.d, z.d, some, call.head_dim, panels + first * z.d, kPanel, 1.f);
  }
}

void multiply_panels(const DecomposedAttention& call, const Sizes& z, int64_t rows, const float* a,
                     const float* panels, float* to) {
  for (int64_t p = 0; p < z.panels; ++p) {
    const int64_t first = p * kPanel, some = z.keys - first < kPanel ? z.keys - first : kPanel;
    multiply(rows, some, call.head_dim, a, z.d, 1, panels + first * z.d, kPanel, to + first, z.row,
             false);
  }
}

// Logits of one query -> e^(logit - largest), in place. Returns 1 / their sum.
SWIN_DENSE_INLINE float soften(const DecomposedAttention& call, const Sizes& z, int64_t query,
                               float* p, float* columns) {
  const float lowest = -__builtin_inff();
  const float* rows = call.rows + query * call.height;
  for (int64_t x = 0; x < z.w; ++x) {
    columns[x] = x < call.width ? call.columns[query * call.width + x] : lowest;
  }
  Float largest = all(lowest);
  float* at = p;
  for (int64_t y = 0; y < call.height; ++y) {
    const Float term = all(rows[y]);
    for (int64_t x = 0; x < z.w; x += kLanes, at += kLanes) {
      const Float logit = load(at) + (term + load(columns + x));
      store(at, logit);
      largest = maximum(largest, logit);
    }
  }
  largest = max_of(largest);
  Float sum{};
  for (int64_t j = 0; j < z.keys; j += kLanes) {
    const Float e = exp_of_negative(load(p + j) - largest);
    store(p + j, e);
    sum += e;
  }
  return 1.f / sum_of(sum)[0];
}

// p and s hold what soften leaves and the gradient of the weights, then the weights and the
// gradient of the logits, whose sums are those of the terms.
SWIN_DENSE_INLINE void soften_backward(const DecomposedAttention& call, const Sizes& z,
                                       int64_t query, float* p, float* s, float inverse,
                                       float* by_columns) {
  Float mean{};
  for (int64_t j = 0; j < z.keys; j += kLanes) {
    const Float weight = load(p + j) * inverse;
    store(p + j, weight);
    mean += weight * load(s + j);
  }
  mean = sum_of(mean);
  clear(by_columns, z.w);
  for (int64_t y = 0; y < call.height; ++y) {
    Float by_row{};
    for (int64_t x = 0; x < z.w; x += kLanes, p += kLanes, s += kLanes) {
      const Float by_logit = load(p) * (load(s) - mean);
      store(s, by_logit);
      by_row += by_logit;
      store(by_columns + x, load(by_columns + x) + by_logit);
    }
    call.by_rows[query * call.height + y] = sum_of(by_row)[0];
  }
  write_row(by_columns, 1.f, call.width, call.by_columns + query * call.width);
}

int64_t scratch(const DecomposedAttention& call) {
  Scratch at;
  return lay(at, Sizes(call), nullptr);
}

int64_t blocks(const DecomposedAttention& call) {
  const Sizes z(call);
  return (call.queries + z.block - 1) / z.block;
}

void forward(const DecomposedAttention& call, int64_t first, int64_t last, float* scratch) {
  const Sizes z(call);
  Scratch at;
  lay(at, z, scratch);
  const int64_t count = blocks(call), map = call.height * call.width * call.head_dim;
  int64_t found = -1;
  for (int64_t item = first; item < last; ++item) {
    const int64_t head = item / count, m = item % count * z.block;
    if (head != found) {
      gather(call, z, call.k + head * map, at.k, at.kt);
      gather(call, z, call.v + head * map, at.v, nullptr);
      found = head;
    }
    const int64_t rows = call.queries - m < z.block ? call.queries - m : z.block;
    const int64_t query = head * call.queries + m;
    read_rows(call.q + query * call.head_dim, rows, call.head_dim, at.q, z.d);
    multiply_panels(call, z, rows, at.q, at.kt, at.p);
    for (int64_t r = 0; r < rows; ++r) {  // s is free: it keeps what the rows are multiplied by
      at.s[r] = soften(call, z, query + r, at.p + r * z.row, at.columns);
    }
    multiply(rows, z.d, z.keys, at.p, z.row, 1, at.v, z.d, at.product, z.d, false);
    for (int64_t r = 0; r < rows; ++r) {
      write_row(at.product + r * z.d, at.s[r], call.head_dim,
                call.out + (query + r) * call.head_dim);
    }
  }
}

void backward(const DecomposedAttention& call, int64_t head, float* scratch) {
  const Sizes z(call);
  Scratch at;
  lay(at, z, scratch);
  const int64_t dim = call.head_dim, map = call.height * call.width * dim;
  gather(call, z, call.k + head * map, at.k, at.kt);
  gather(call, z, call.v + head * map, at.v, at.vt);
  for (int64_t m = 0; m < call.queries; m += z.block) {
    const int64_t rows = call.queries - m < z.block ? call.queries - m : z.block;
    const int64_t query = head * call.queries + m;
    read_rows(call.q + query * dim, rows, dim, at.q, z.d);
    read_rows(call.grad + query * dim, rows, dim, at.g, z.d);
    multiply_panels(call, z, rows, at.q, at.kt, at.p);
    multiply_panels(call, z, rows, at.g, at.vt, at.s);
    for (int64_t r = 0; r < rows; ++r) {
      float* p = at.p + r * z.row;
      const float inverse = soften(call, z, query + r, p, at.columns);
      soften_backward(call, z, query + r, p, at.s + r * z.row, inverse, at.by_columns);
    }
    multiply(rows, z.d, z.keys, at.s, z.row, 1, at.k, z.d, at.product, z.d, false);
    for (int64_t r = 0; r < rows; ++r) {
      write_row(at.product + r * z.d, 1.f, dim, call.by_q + (query + r) * dim);
    }
    multiply(z.keys, z.d, rows, at.s, 1, z.row, at.q, z.d, at.by_k, z.d, m > 0);
    multiply(z.keys, z.d, rows, at.p, 1, z.row, at.g, z.d, at.by_v, z.d, m > 0);
  }
  for (int64_t y = 0, place = head * map; y < call.height; ++y) {
    for (int64_t x = 0; x < call.width; ++x, place += dim) {
      write_row(at.by_k + (y * z.w + x) * z.d, 1.f, dim, call.by_k + place);
      write_row(at.by_v + (y * z.w + x) * z.d, 1.f, dim, call.by_v + place);
    }
  }
}

}  // namespace

extern const DecomposedAttentionLevel decomposed_attention;
const DecomposedAttentionLevel decomposed_attention = {scratch, blocks, forward, backward};

}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
