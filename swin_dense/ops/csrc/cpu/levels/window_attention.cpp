// Window attention of one (window, head) at a time; the meaning is reference.window_attention.
//
// The tokens of a window are read from where they lie in the map into scratch that fits the
// first-level cache, and results go back to where they belong: extending, rolling and cutting
// are the address of a token, and the mask is a comparison of its region. Tokens outside the map
// serve as keys only. Products are register tiles (lanes.h), so k and v stand there transposed
// too. The factor on the logits is folded into the transposed keys.
#include "../window_attention.h"

#include "lanes.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

constexpr float kSmallestNorm = 1e-12f;
constexpr int64_t kFew = 32;        // rows added up before their sum is added to a sum of many
constexpr int64_t kBlock = 1 << 15;  // logits of one block of queries, in floats

// Where the parts of one thread's scratch begin.
struct Scratch {
  float *q, *k, *v, *g;            // (L, d): rows as they are; q and g only those on the map
  float *kt, *vt;                  // (D, l)
  float *p, *s;                    // (queries of a block, l); s in the forward (queries, d)
  float *gq, *gk, *gv;             // (L, d)
  float *q_length, *k_length;      // (L,): 1 / norm, cosine only
  int32_t *place, *region, *query;  // (L,): token of the map or -1; region; position of a query
};

struct Sizes {
  int64_t length, l, d, block;  // L, L and D in whole registers, queries of a block
  explicit Sizes(const WindowAttention& call)
      : length(call.length()), l(whole(call.length())), d(whole(call.head_dim)) {
    block = kBlock / l / kTileRows * kTileRows;
    if (block < kTileRows) block = kTileRows;
    if (block > length) block = length;
  }
};

// Lays the parts out behind one another; with a null `from` it only counts.
int64_t lay(Scratch& to, const Sizes& z, float* from) {
  int64_t used = 0;
  const auto next = [&](int64_t count) {
    float* at = from + used;
    used += whole(count);
    return at;
  };
  float** rows[] = {&to.q, &to.k, &to.v, &to.g, &to.gq, &to.gk, &to.gv};
  for (float** part : rows) *part = next(z.l * z.d);
  to.kt = next(z.d * z.l), to.vt = next(z.d * z.l);
  to.p = next(z.block * z.l), to.s = next(z.block * (z.l > z.d ? z.l : z.d));
  to.q_length = next(z.l), to.k_length = next(z.l);
  to.place = reinterpret_cast<int32_t*>(next(z.l));
  to.region = reinterpret_cast<int32_t*>(next(z.l));
  to.query = reinterpret_cast<int32_t*>(next(z.l));
  return used;
}

// One window: which tokens it holds, which of them are queries, whether regions differ.
struct Window {
  int64_t image, queries;
  bool masked;
};

Window find(const WindowAttention& call, int64_t number, const Scratch& at) {
  const int64_t side = call.window, down = call.down(), across = call.across();
  const int64_t row = number / across % down, column = number % across;
  Window window{number / (across * down), 0, false};
  const int64_t fold_y = row == down - 1 ? side - call.shift : side;
  const int64_t fold_x = column == across - 1 ? side - call.shift : side;
  window.masked = fold_y < side || fold_x < side;
  int64_t i = 0;
  for (int64_t r = 0; r < side; ++r) {
    int64_t y = row * side + r + call.shift;
    if (y >= down * side) y -= down * side;
    for (int64_t c = 0; c < side; ++c, ++i) {
      int64_t x = column * side + c + call.shift;
      if (x >= across * side) x -= across * side;
      const bool inside = y < call.height && x < call.width;
      at.place[i] = inside ? static_cast<int32_t>(y * call.width + x) : -1;
      at.region[i] = (r >= fold_y) * 2 + (c >= fold_x);
      if (inside) at.query[window.queries++] = static_cast<int32_t>(i);
    }
  }
  return window;
}

template <class T>
SWIN_DENSE_INLINE void read_row(const T* from, int64_t count, float* to) {
  for (int64_t c = 0; c < count; c += kLanes) store(to + c, load_some(from + c, count - c));
}

template <class T>
SWIN_DENSE_INLINE void write_row(const float* from, float factor, int64_t count, T* to) {
  for (int64_t c = 0; c < count; c += kLanes) {
    store_some(to + c, load(from + c) * factor, count - c);
  }
}

SWIN_DENSE_INLINE void add_row(const float* from, float factor, int64_t d, float* to, bool fresh) {
  for (int64_t c = 0; c < d; c += kLanes) {
    const Float x = load(from + c) * factor;
    store(to + c, fresh ? x : load(to + c) + x);
  }
}

SWIN_DENSE_INLINE float dot(const float* a, const float* b, int64_t d) {
  Float sum{};
  for (int64_t c = 0; c < d; c += kLanes) sum += load(a + c) * load(b + c);
  return sum_of(sum)[0];
}

// Divides a row by its length; returns what it was multiplied by.
SWIN_DENSE_INLINE float normalise(float* row, int64_t d) {
  const float norm = __builtin_sqrtf(dot(row, row, d));
  const float inverse = 1.f / (norm < kSmallestNorm ? kSmallestNorm : norm);
  for (int64_t c = 0; c < d; c += kLanes) store(row + c, load(row + c) * inverse);
  return inverse;
}

// The gradient of a row before it was normalised, from the one after, in place.
SWIN_DENSE_INLINE void normalise_backward(float* grad, const float* row, float inverse, int64_t d) {
  const float along = inverse < 1.f / kSmallestNorm ? dot(grad, row, d) : 0.f;
  for (int64_t c = 0; c < d; c += kLanes) {
    store(grad + c, (load(grad + c) - load(row + c) * along) * inverse);
  }
}

void clear(float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(from + i, Float{});
}

template <class T>
struct Maps {
  const T *qkv, *pad, *grad;
  T *out, *grad_qkv;
  int64_t channels, token;  // N * D; numbers of one token of qkv
  Maps(const WindowAttention& call, int64_t image) {
    channels = call.heads * call.head_dim, token = 3 * channels;
    const int64_t first = image * call.height * call.width;
    qkv = static_cast<const T*>(call.qkv) + first * token;
    pad = static_cast<const T*>(call.pad);
    grad = static_cast<const T*>(call.grad) + first * channels;
    out = static_cast<T*>(call.out) + first * channels;
    grad_qkv = static_cast<T*>(call.grad_qkv) + first * token;
  }
};

template <class T>
void gather(const WindowAttention& call, const Sizes& z, const Window& window, const Maps<T>& maps,
            int64_t head, const Scratch& at) {
  const int64_t from = head * call.head_dim;
  for (int64_t i = 0; i < z.length; ++i) {
    const T* token = at.place[i] < 0 ? maps.pad : maps.qkv + at.place[i] * maps.token;
    read_row(token + from + maps.channels, call.head_dim, at.k + i * z.d);
    read_row(token + from + 2 * maps.channels, call.head_dim, at.v + i * z.d);
  }
  for (int64_t m = 0; m < window.queries; ++m) {
    const T* token = maps.qkv + at.place[at.query[m]] * maps.token;
    read_row(token + from, call.head_dim, at.q + m * z.d);
  }
  // What transposing reads beyond the last token ends in lanes that must be 0.
  clear(at.k + z.length * z.d, (z.l - z.length) * z.d);
  clear(at.v + z.length * z.d, (z.l - z.length) * z.d);
  if (call.cosine) {
    for (int64_t i = 0; i < z.length; ++i) at.k_length[i] = normalise(at.k + i * z.d, z.d);
    for (int64_t m = 0; m < window.queries; ++m) at.q_length[m] = normalise(at.q + m * z.d, z.d);
  }
  transpose(at.k, z.d, z.length, call.head_dim, at.kt, z.l, call.scale[head]);
}

// Logits of one query -> e^(logit - largest), in place. Returns 1 / their sum in every lane.
SWIN_DENSE_INLINE Float soften(float* row, const float* bias, const int32_t* regions,
                               int32_t region, bool masked, int64_t l) {
  const float lowest = -__builtin_inff();
  Float largest = all(lowest);
  for (int64_t j = 0; j < l; j += kLanes) {
    Float x = load(row + j) + load(bias + j);
    if (masked) {
      Int theirs;
      std::memcpy(&theirs, regions + j, kBytes);
      x = theirs == region ? x : all(lowest);
    }
    store(row + j, x);
    largest = maximum(largest, x);
  }
  largest = max_of(largest);
  Float sum{};
  for (int64_t j = 0; j < l; j += kLanes) {
    const Float e = exp_of_negative(load(row + j) - largest);
    store(row + j, e);
    sum += e;
  }
  return 1.f / sum_of(sum);
}

template <class T>
void attend(const WindowAttention& call, const Sizes& z, const Window& window, const Maps<T>& maps,
            int64_t head, const Scratch& at) {
  gather(call, z, window, maps, head, at);
  const float* bias = call.bias + head * z.length * z.l;
  for (int64_t m = 0; m < window.queries; m += kTileRows) {
    const int64_t rows = window.queries - m < kTileRows ? window.queries - m : kTileRows;
    multiply(rows, z.l, call.head_dim, at.q + m * z.d, z.d, 1, at.kt, z.l, at.p, z.l, false);
    float inverse[kTileRows];
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t i = at.query[m + r];
      inverse[r] = soften(at.p + r * z.l, bias + i * z.l, at.region, at.region[i], window.masked,
                          z.l)[0];
    }
    multiply(rows, z.d, z.length, at.p, z.l, 1, at.v, z.d, at.s, z.d, false);
    for (int64_t r = 0; r < rows; ++r) {
      T* to = maps.out + at.place[at.query[m + r]] * maps.channels + head * call.head_dim;
      write_row(at.s + r * z.d, inverse[r], call.head_dim, to);
    }
  }
}

// p and s hold the logits and the gradient of the weights, then the weights and the gradient of
// the logits; the latter is added to the bias' gradient too.
SWIN_DENSE_INLINE void soften_backward(float* p, float* s, Float inverse, float* by_bias,
                                       int64_t l) {
  Float mean{};
  for (int64_t j = 0; j < l; j += kLanes) {
    const Float weight = load(p + j) * inverse;
    store(p + j, weight);
    mean += weight * load(s + j);
  }
  mean = sum_of(mean);
  for (int64_t j = 0; j < l; j += kLanes) {
    const Float by_logit = load(p + j) * (load(s + j) - mean);
    store(s + j, by_logit);
    store(by_bias + j, load(by_bias + j) + by_logit);
  }
}

template <class T>
void attend_backward(const WindowAttention& call, const Sizes& z, const Window& window,
                     const Maps<T>& maps, int64_t head, const Scratch& at, float* part_bias,
                     float* part_rest) {
  gather(call, z, window, maps, head, at);
  transpose(at.v, z.d, z.length, call.head_dim, at.vt, z.l, 1.f);
  const int64_t from = head * call.head_dim;
  for (int64_t m = 0; m < window.queries; ++m) {
    read_row(maps.grad + at.place[at.query[m]] * maps.channels + from, call.head_dim,
             at.g + m * z.d);
  }

  const float* bias = call.bias + head * z.length * z.l;
  for (int64_t m = 0; m < window.queries; m += z.block) {
    const int64_t rows = window.queries - m < z.block ? window.queries - m : z.block;
    const float *q = at.q + m * z.d, *g = at.g + m * z.d;
    multiply(rows, z.l, call.head_dim, q, z.d, 1, at.kt, z.l, at.p, z.l, false);
    multiply(rows, z.l, call.head_dim, g, z.d, 1, at.vt, z.l, at.s, z.l, false);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t i = at.query[m + r];
      float* p = at.p + r * z.l;
      const Float inverse =
          soften(p, bias + i * z.l, at.region, at.region[i], window.masked, z.l);
      soften_backward(p, at.s + r * z.l, inverse, part_bias + i * z.l, z.l);
    }
    multiply(rows, z.d, z.length, at.s, z.l, 1, at.k, z.d, at.gq + m * z.d, z.d, false);
    multiply(z.length, z.d, rows, at.s, 1, z.l, q, z.d, at.gk, z.d, m > 0);
    multiply(z.length, z.d, rows, at.p, 1, z.l, g, z.d, at.gv, z.d, m > 0);
  }
  if (window.queries == 0) return;  // nothing looked at what lies outside

  const float scale = call.scale[head];
  double by_scale = 0;
  for (int64_t m = 0; m < window.queries; ++m) {
    float* gq = at.gq + m * z.d;
    by_scale += dot(gq, at.q + m * z.d, z.d);
    if (call.cosine) normalise_backward(gq, at.q + m * z.d, at.q_length[m], z.d);
    T* to = maps.grad_qkv + at.place[at.query[m]] * maps.token + from;
    write_row(gq, scale, call.head_dim, to);
  }
  part_rest[2 * z.d] += static_cast<float>(by_scale);

  float *pad_k = at.kt, *pad_v = at.vt;  // sums over a few tokens outside the map
  int64_t outside = 0;
  for (int64_t i = 0; i < z.length; ++i) {
    float *gk = at.gk + i * z.d, *gv = at.gv + i * z.d;
    if (call.cosine) normalise_backward(gk, at.k + i * z.d, at.k_length[i], z.d);
    if (at.place[i] >= 0) {
      T* to = maps.grad_qkv + at.place[i] * maps.token + from;
      write_row(gk, scale, call.head_dim, to + maps.channels);
      write_row(gv, 1.f, call.head_dim, to + 2 * maps.channels);
      continue;
    }
    const bool fresh = outside++ % kFew == 0;
    add_row(gk, scale, z.d, pad_k, fresh);
    add_row(gv, 1.f, z.d, pad_v, fresh);
    if (outside % kFew == 0) {
      add_row(pad_k, 1.f, z.d, part_rest, false);
      add_row(pad_v, 1.f, z.d, part_rest + z.d, false);
    }
  }
  if (outside % kFew != 0) {
    add_row(pad_k, 1.f, z.d, part_rest, false);
    add_row(pad_v, 1.f, z.d, part_rest + z.d, false);
  }
}

int64_t scratch(const WindowAttention& call) {
  Scratch at;
  return lay(at, Sizes(call), nullptr);
}

template <class T>
void forward_of(const WindowAttention& call, int64_t first, int64_t last, float* scratch) {
  const Sizes z(call);
  Scratch at;
  lay(at, z, scratch);
  int64_t found = -1;
  Window window{};
  for (int64_t item = first; item < last; ++item) {
    const int64_t number = item / call.heads;
    if (number != found) window = find(call, number, at), found = number;
    attend(call, z, window, Maps<T>(call, window.image), item % call.heads, at);
  }
}

template <class T>
void backward_of(const WindowAttention& call, int64_t part, int64_t first, int64_t last,
                 float* scratch) {
  const Sizes z(call);
  Scratch at;
  lay(at, z, scratch);
  const int64_t size = z.length * z.l, few = 2 * z.d + kLanes;
  float* bias = call.part_bias + part * call.heads * size;
  float* other = call.part_rest + part * call.heads * few;
  clear(bias + first * size, (last - first) * size);
  clear(other + first * few, (last - first) * few);
  const int64_t end = call.windows() * (part + 1) / call.parts;
  for (int64_t number = call.windows() * part / call.parts; number < end; ++number) {
    const Window window = find(call, number, at);
    for (int64_t head = first; head < last; ++head) {
      attend_backward(call, z, window, Maps<T>(call, window.image), head, at, bias + head * size,
                      other + head * few);
    }
  }
}

void forward(const WindowAttention& call, int64_t first, int64_t last, float* scratch) {
  call.half ? forward_of<Bf16>(call, first, last, scratch)
            : forward_of<float>(call, first, last, scratch);
}

void backward(const WindowAttention& call, int64_t part, int64_t first, int64_t last,
              float* scratch) {
  call.half ? backward_of<Bf16>(call, part, first, last, scratch)
            : backward_of<float>(call, part, first, last, scratch);
}

}  // namespace

extern const WindowAttentionLevel window_attention;
const WindowAttentionLevel window_attention = {whole, scratch, forward, backward};

}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
