// Neighborhood attention of one (image, class of rows, chunk, head) at a time; the meaning is
// reference.neighborhood_attention.
//
// The lanes of a register are queries side by side in a row of the map. A key that lies j steps of
// the dilation away is then as far from every lane, so that rows of keys, turned to (D, columns),
// are read where the queries are, moved by j. Near the borders windows are moved inward: there the
// lanes see different steps, all that any sees are computed, and the others are masked. Turned rows
// stay in a ring as long as a window reaches them.
//
// The backward keeps the weights and the gradients of the logits of one row of queries. Each key
// then adds up, over its channels, what those that see it give.
#include "../neighborhood_attention.h"

#include "bilinear.h"
#include "lanes.h"

namespace swin_dense {
namespace SWIN_DENSE_LEVEL {
namespace {

constexpr int kKeys = 7;                          // keys of a row whose logits grow side by side
constexpr int kMixed = kBytes == 64 ? 16 : 8;     // channels that are mixed side by side

template <class T>
struct Kind {
  typedef typename Wide<T>::Scalar S;
  typedef typename Wide<T>::Register V;
  static constexpr int64_t lanes = Wide<T>::lanes;
};

// D in whole blocks of what is mixed side by side, which are whole registers.
constexpr int64_t blocks(int64_t channels) { return (channels + kMixed - 1) / kMixed * kMixed; }

SWIN_DENSE_INLINE void turn(Float* block) { Fold<kLanes / 2>::transpose(block); }
SWIN_DENSE_INLINE void turn(Double* block) {
  constexpr int lanes = kLanes / 2;
  double from[lanes][lanes], to[lanes][lanes];
  std::memcpy(from, block, sizeof(from));
  for (int i = 0; i < lanes; ++i) {
    for (int j = 0; j < lanes; ++j) to[j][i] = from[i][j];
  }
  std::memcpy(static_cast<void*>(block), to, sizeof(to));
}

SWIN_DENSE_INLINE Double maximum(Double a, Double b) { return a > b ? a : b; }
SWIN_DENSE_INLINE Double exp_of_negative(Double x) {
  Double out;
  for (int l = 0; l < kLanes / 2; ++l) out[l] = __builtin_exp(x[l]);
  return out;
}

template <class V, class S>
SWIN_DENSE_INLINE void clear(S* from, int64_t count) {
  for (int64_t i = 0; i < count; i += sizeof(V) / sizeof(S)) store(from + i, V{});
}

// Sizes in numbers, and where the parts of one thread's scratch begin.
template <class T>
struct Plan {
  typedef typename Kind<T>::S S;
  static constexpr int64_t lanes = Kind<T>::lanes;
  int64_t d, columns, row, side, window;  // D in blocks, whole W; a turned row with its margins
  S *keys, *values;                       // (window, d, row): the ring
  S *query, *grad, *mixed;                // (d, lanes): of a tile
  S *weights, *logits;                    // (window, side, lanes): of a tile
  S *first;                               // (columns): the first step that a query sees
  S *from, *to;                           // (columns): first and last query that see a key
  // Backward: of a row of queries.
  S *query_row, *grad_row;                // (columns, d)
  S *weight_row, *logit_row;              // (window, side, columns)
  S *by_table;                            // (side, side, lanes)

  explicit Plan(const NeighborhoodAttention& call)
      : d(blocks(call.channels)),
        columns(padded<T>(call.width)),
        row(columns + 2 * lanes),
        side(call.side()),
        window(call.window) {
    // An odd number of registers: rows below one another then lie in different sets of a cache.
    if (row / lanes % 2 == 0) row += lanes;
  }

  // Lays the parts out behind one another; with a null `begin` it only counts.
  int64_t lay(S* begin, bool backward) {
    int64_t used = 0;
    const auto next = [&](int64_t count) {
      S* at = begin + used;
      used += (count + lanes - 1) / lanes * lanes;
      return at;
    };
    keys = next(window * d * row), values = next(window * d * row);
    query = next(d * lanes), grad = next(d * lanes), mixed = next(d * lanes);
    weights = next(window * side * lanes), logits = next(window * side * lanes);
    first = next(columns), from = next(columns), to = next(columns);
    if (backward) {
      query_row = next(columns * d), grad_row = next(columns * d);
      weight_row = next(window * side * columns), logit_row = next(window * side * columns);
      by_table = next(side * side * lanes);
    }
    return used;
  }
};

// The rows of a class that a task computes, and what it reads and writes of the maps.
struct Share {
  int64_t image, head, rest, first, last, count;

  Share(const NeighborhoodAttention& call, int64_t task) {
    head = task % call.heads;
    const int64_t chunk = task / call.heads % call.chunks;
    rest = task / call.heads / call.chunks % call.down;
    image = task / call.heads / call.chunks / call.down;
    count = call.rows(rest);
    first = chunk * call.chunk < count ? chunk * call.chunk : count;
    last = first + call.chunk < count ? first + call.chunk : count;
  }
  // The number of the first position of row `number` of the class.
  int64_t position(const NeighborhoodAttention& call, int64_t number) const {
    return (image * call.height + number * call.down + rest) * call.width;
  }
};

// Some positions of one head -> (d, positions), each times `factor`.
template <class T>
void read_turned(const T* from, int64_t step, int64_t count, int64_t channels,
                 typename Kind<T>::S factor, typename Kind<T>::S* to, int64_t to_row) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  for (int64_t x = 0; x < count; x += lanes) {
    const int64_t some = count - x < lanes ? count - x : lanes;
    for (int64_t c = 0; c < channels; c += lanes) {
      V block[lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        block[i] = i < some ? load_some(from + (x + i) * step + c, channels - c) * all(factor)
                            : V{};
      }
      turn(block);
      for (int64_t i = 0; i < lanes; ++i) store(to + (c + i) * to_row + x, block[i]);
    }
  }
}

// (d, lanes) -> as many positions, each times `factor`.
template <class T>
void write_turned(const typename Kind<T>::S* from, int64_t count, int64_t channels,
                  typename Kind<T>::S factor, T* to, int64_t step) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  for (int64_t c = 0; c < channels; c += lanes) {
    V block[lanes];
    for (int64_t i = 0; i < lanes; ++i) block[i] = load(from + (c + i) * lanes) * all(factor);
    turn(block);
    for (int64_t i = 0; i < count; ++i) store_some(to + i * step + c, block[i], channels - c);
  }
}

// Which steps the queries of each column see, and which queries see each column.
template <class T>
void find_steps(const NeighborhoodAttention& call, const Plan<T>& plan) {
  typedef typename Kind<T>::S S;
  for (int64_t x = 0; x < call.width; ++x) {
    const int64_t number = x / call.across, rest = x % call.across;
    const int64_t count = (call.width - rest + call.across - 1) / call.across;
    const int64_t begin = call.begin(number, count);
    plan.first[x] = static_cast<S>(begin - number);
    // A query's window begins and ends no earlier than that of the one before it.
    int64_t low = number - call.window + 1, high = number + call.window - 1;
    if (low < 0) low = 0;
    if (high >= count) high = count - 1;
    while (call.begin(low, count) + call.window <= number) ++low;
    while (call.begin(high, count) > number) --high;
    plan.from[x] = static_cast<S>(low * call.across + rest);
    plan.to[x] = static_cast<S>(high * call.across + rest);
  }
  for (int64_t x = call.width; x < plan.columns; ++x) plan.first[x] = plan.first[call.width - 1];
}

// One register of queries: which steps any of them sees, and whether some see fewer.
template <class T>
struct Tile {
  typedef typename Kind<T>::S S;
  typedef typename Kind<T>::V V;
  int64_t x, live, low, steps;
  bool masked;
  V first;

  Tile(const NeighborhoodAttention& call, const Plan<T>& plan, int64_t at) : x(at) {
    constexpr int64_t lanes = Kind<T>::lanes;
    live = call.width - x < lanes ? call.width - x : lanes;
    first = load(plan.first + x);
    S lowest = first[0], highest = first[0];
    for (int64_t l = 1; l < lanes; ++l) {
      lowest = first[l] < lowest ? first[l] : lowest;
      highest = first[l] > highest ? first[l] : highest;
    }
    low = static_cast<int64_t>(lowest);
    steps = static_cast<int64_t>(highest) - low + call.window;
    masked = lowest != highest;
  }
  // x where a query sees step `low + step`, else other.
  SWIN_DENSE_INLINE V where(int64_t step, int64_t window, V seen, V other) const {
    const V j = all(static_cast<S>(low + step));
    return ((j >= first) & (j < first + all(static_cast<S>(window)))) ? seen : other;
  }
};

template <int C, class S, class V>
SWIN_DENSE_INLINE void some_products(const S* query, int64_t lanes, const S* keys, int64_t row,
                                     int64_t step, int64_t channels, V* sum) {
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) sum[c] = V{};
  for (int64_t d = 0; d < channels; ++d) {
    const V q = load(query + d * lanes);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[c] += q * load(keys + d * row + c * step);
  }
}

// The products of a tile with keys side by side in a row; `left` of them at most.
template <class S, class V>
SWIN_DENSE_INLINE int products(int64_t left, const S* query, int64_t lanes, const S* keys,
                               int64_t row, int64_t step, int64_t channels, V* sum) {
  const int count = static_cast<int>(left < kKeys ? left : kKeys);
  switch (count) {
#define SWIN_DENSE_KEYS(C)                                                   \
  case C:                                                                    \
    some_products<C>(query, lanes, keys, row, step, channels, sum);          \
    break;
    SWIN_DENSE_KEYS(1)
    SWIN_DENSE_KEYS(2)
    SWIN_DENSE_KEYS(3)
    SWIN_DENSE_KEYS(4)
    SWIN_DENSE_KEYS(5)
    SWIN_DENSE_KEYS(6)
    SWIN_DENSE_KEYS(7)
#undef SWIN_DENSE_KEYS
  }
  return count;
}

// (window, steps, lanes) of the products of a tile with the ring's rows from `begin` on. A bias
// table, of which `bias` is the row of the first, is added; what a lane does not see is `other`.
template <class T>
void multiply_tile(const NeighborhoodAttention& call, const Plan<T>& plan, const Tile<T>& tile,
                   int64_t begin, const typename Kind<T>::S* tokens,
                   const typename Kind<T>::S* ring, const typename Kind<T>::S* bias,
                   typename Kind<T>::S other, typename Kind<T>::S* to) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  const int64_t at = lanes + tile.x + tile.low * call.across;
  for (int64_t r = 0; r < call.window; ++r) {
    const auto* row = ring + (begin + r) % call.window * plan.d * plan.row + at;
    for (int64_t j = 0; j < tile.steps;) {
      V sum[kKeys];
      const int count = products(tile.steps - j, tokens, lanes, row + j * call.across, plan.row,
                                 call.across, call.channels, sum);
      for (int c = 0; c < count; ++c, ++j) {
        V x = sum[c];
        if (bias != nullptr) x += all(bias[r * plan.side + tile.low + j + call.window - 1]);
        if (tile.masked) x = tile.where(j, call.window, x, all(other));
        store(to + (r * tile.steps + j) * lanes, x);
      }
    }
  }
}

// Logits -> e^(logit - largest), in place. Returns 1 / their sum for each lane.
template <class V, class S>
SWIN_DENSE_INLINE V soften(S* logits, int64_t count) {
  constexpr int64_t lanes = sizeof(V) / sizeof(S);
  V largest = load(logits);
  for (int64_t i = 1; i < count; ++i) largest = maximum(load(logits + i * lanes), largest);
  V sum{};
  for (int64_t i = 0; i < count; ++i) {
    const V e = exp_of_negative(load(logits + i * lanes) - largest);
    store(logits + i * lanes, e);
    sum += e;
  }
  return all(S(1)) / sum;
}

template <bool masked, class T>
SWIN_DENSE_INLINE void mix_some(const NeighborhoodAttention& call, const Plan<T>& plan,
                                const Tile<T>& tile, int64_t begin,
                                const typename Kind<T>::S* shares,
                                const typename Kind<T>::S* ring, typename Kind<T>::V* sum) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
#pragma GCC unroll 16
  for (int c = 0; c < kMixed; ++c) sum[c] = V{};
  for (int64_t r = 0; r < call.window; ++r) {
    const auto* row = ring + (begin + r) % call.window * plan.d * plan.row;
    for (int64_t j = 0; j < tile.steps; ++j) {
      const V share = load(shares + (r * tile.steps + j) * lanes);
      const auto* from = row + j * call.across;
#pragma GCC unroll 16
      for (int c = 0; c < kMixed; ++c) {
        const V x = load(from + c * plan.row);
        // Nothing times what is no number would be none.
        sum[c] += share * (masked ? tile.where(j, call.window, x, V{}) : x);
      }
    }
  }
}

// (d, lanes): what the shares of a tile make of the ring's rows.
template <class T>
void mix(const NeighborhoodAttention& call, const Plan<T>& plan, const Tile<T>& tile,
         int64_t begin, const typename Kind<T>::S* shares, const typename Kind<T>::S* ring,
         typename Kind<T>::V factor) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  const auto* from = ring + lanes + tile.x + tile.low * call.across;
  for (int64_t d = 0; d < plan.d; d += kMixed) {
    V sum[kMixed];
    if (tile.masked) {
      mix_some<true>(call, plan, tile, begin, shares, from + d * plan.row, sum);
    } else {
      mix_some<false>(call, plan, tile, begin, shares, from + d * plan.row, sum);
    }
    for (int c = 0; c < kMixed; ++c) store(plan.mixed + (d + c) * lanes, sum[c] * factor);
  }
}

// Rows of keys and values of one class that windows reach, turned.
template <class T>
class Ring {
 public:
  Ring(const NeighborhoodAttention& call, const Plan<T>& plan, const Share& share)
      : call_(call), plan_(plan), share_(share), next_(call.begin(share.first, share.count)) {
    typedef typename Kind<T>::V V;
    // The margins, and channels beyond D, are never written.
    clear<V>(plan.keys, call.window * plan.d * plan.row);
    clear<V>(plan.values, call.window * plan.d * plan.row);
  }
  // Makes all rows before `end` be there; those `window` before it go.
  void reach(int64_t end) {
    for (; next_ < end; ++next_) {
      const int64_t slot = next_ % call_.window * plan_.d * plan_.row + Kind<T>::lanes;
      const int64_t at = share_.position(call_, next_), head = share_.head * call_.channels;
      read_turned(static_cast<const T*>(call_.key) + at * call_.key_step + head, call_.key_step,
                  call_.width, call_.channels, 1, plan_.keys + slot, plan_.row);
      read_turned(static_cast<const T*>(call_.value) + at * call_.value_step + head,
                  call_.value_step, call_.width, call_.channels, 1, plan_.values + slot,
                  plan_.row);
    }
  }

 private:
  const NeighborhoodAttention& call_;
  const Plan<T>& plan_;
  const Share& share_;
  int64_t next_;
};

template <class T>
void forward_of(const NeighborhoodAttention& call, int64_t task, void* scratch) {
  typedef typename Kind<T>::S S;
  typedef typename Kind<T>::V V;
  Plan<T> plan(call);
  plan.lay(static_cast<S*>(scratch), false);
  const Share share(call, task);
  if (share.first == share.last) return;
  find_steps(call, plan);
  Ring<T> ring(call, plan, share);
  const int64_t head = share.head * call.channels, token = call.heads * call.channels;
  const S* table = static_cast<const S*>(call.table) + share.head * plan.side * plan.side;
  for (int64_t number = share.first; number < share.last; ++number) {
    const int64_t begin = call.begin(number, share.count), row = share.position(call, number);
    ring.reach(begin + call.window);
    const S* bias = table + (begin - number + call.window - 1) * plan.side;
    for (int64_t x = 0; x < call.width; x += Kind<T>::lanes) {
      const Tile<T> tile(call, plan, x);
      const T* query = static_cast<const T*>(call.query) + (row + x) * call.query_step + head;
      read_turned(query, call.query_step, tile.live, call.channels, static_cast<S>(call.scale),
                  plan.query, Kind<T>::lanes);
      multiply_tile(call, plan, tile, begin, plan.query, plan.keys, bias,
                    static_cast<S>(-__builtin_inf()), plan.weights);
      const V inverse = soften<V>(plan.weights, call.window * tile.steps);
      mix(call, plan, tile, begin, plan.weights, plan.values, inverse);
      T* to = static_cast<T*>(call.out) + (row + x) * token + head;
      write_turned(plan.mixed, tile.live, call.channels, S(1), to, token);
    }
  }
}

// The weights and the gradient of the logits of a tile, from logits and the gradient of weights;
// both are kept for the row, and the latter is added to the table's.
template <class T>
void soften_backward(const NeighborhoodAttention& call, const Plan<T>& plan, const Tile<T>& tile,
                     int64_t below) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  const int64_t count = call.window * tile.steps;
  const V inverse = soften<V>(plan.weights, count);
  V mean{};
  for (int64_t i = 0; i < count; ++i) {
    const V weight = load(plan.weights + i * lanes) * inverse;
    store(plan.weights + i * lanes, weight);
    mean += weight * load(plan.logits + i * lanes);
  }
  for (int64_t r = 0; r < call.window; ++r) {
    for (int64_t j = 0; j < tile.steps; ++j) {
      const int64_t i = (r * tile.steps + j) * lanes, step = tile.low + j + call.window - 1;
      const V weight = load(plan.weights + i);
      const V by_logit = weight * (load(plan.logits + i) - mean);
      store(plan.logits + i, by_logit);
      const int64_t at = (r * plan.side + step) * plan.columns + tile.x;
      store(plan.weight_row + at, weight);
      store(plan.logit_row + at, by_logit);
      auto* by_table = plan.by_table + ((below + r) * plan.side + step) * lanes;
      store(by_table, load(by_table) + by_logit);
    }
  }
}

// Adds to C registers of a row of keys and values what a row of queries gives.
template <int C, class T>
SWIN_DENSE_INLINE void give(const NeighborhoodAttention& call, const Plan<T>& plan, int64_t r,
                            int64_t channel, typename Kind<T>::S* by_keys,
                            typename Kind<T>::S* by_values) {
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  for (int64_t x = 0; x < call.width; ++x) {
    const int64_t from = static_cast<int64_t>(plan.from[x]);
    const int64_t to = static_cast<int64_t>(plan.to[x]);
    V by_key[C], by_value[C];
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) {
      by_key[c] = load(by_keys + x * plan.d + channel + c * lanes);
      by_value[c] = load(by_values + x * plan.d + channel + c * lanes);
    }
    const int64_t step = (x - from) / call.across + call.window - 1;
    int64_t at = (r * plan.side + step) * plan.columns + from;
    for (int64_t q = from; q <= to; q += call.across, at += call.across - plan.columns) {
      const V weight = all(plan.weight_row[at]), by_logit = all(plan.logit_row[at]);
#pragma GCC unroll 2
      for (int c = 0; c < C; ++c) {
        by_key[c] += by_logit * load(plan.query_row + q * plan.d + channel + c * lanes);
        by_value[c] += weight * load(plan.grad_row + q * plan.d + channel + c * lanes);
      }
    }
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) {
      store(by_keys + x * plan.d + channel + c * lanes, by_key[c]);
      store(by_values + x * plan.d + channel + c * lanes, by_value[c]);
    }
  }
}

template <class T>
void read_row(const T* from, int64_t step, int64_t count, int64_t channels,
              typename Kind<T>::S factor, typename Kind<T>::S* to, int64_t d) {
  for (int64_t x = 0; x < count; ++x) {
    for (int64_t c = 0; c < channels; c += Kind<T>::lanes) {
      store(to + x * d + c, load_some(from + x * step + c, channels - c) * all(factor));
    }
  }
}

template <class T>
void backward_of(const NeighborhoodAttention& call, int64_t task, void* scratch) {
  typedef typename Kind<T>::S S;
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  Plan<T> plan(call);
  plan.lay(static_cast<S*>(scratch), true);
  const Share share(call, task);
  const int64_t line = call.width * plan.d, part = call.part_rows() * line;
  S* by_keys = static_cast<S*>(call.parts) + task * 2 * part;
  S* by_values = by_keys + part;
  clear<V>(by_keys, 2 * part);
  clear<V>(plan.by_table, plan.side * plan.side * lanes);
  clear<V>(plan.query_row, plan.columns * plan.d);  // channels beyond D are never written
  clear<V>(plan.grad_row, plan.columns * plan.d);
  if (share.first < share.last) find_steps(call, plan);
  Ring<T> ring(call, plan, share);
  const int64_t lowest = call.begin(share.first, share.count);
  const int64_t head = share.head * call.channels, token = call.heads * call.channels;
  const S* table = static_cast<const S*>(call.table) + share.head * plan.side * plan.side;
  const S scale = static_cast<S>(call.scale);
  for (int64_t number = share.first; number < share.last; ++number) {
    const int64_t begin = call.begin(number, share.count), row = share.position(call, number);
    const int64_t below = begin - number + call.window - 1;
    ring.reach(begin + call.window);
    const T* query = static_cast<const T*>(call.query) + row * call.query_step + head;
    const T* grad = static_cast<const T*>(call.grad) + row * token + head;
    read_row(query, call.query_step, call.width, call.channels, scale, plan.query_row, plan.d);
    read_row(grad, token, call.width, call.channels, S(1), plan.grad_row, plan.d);
    for (int64_t x = 0; x < call.width; x += lanes) {
      const Tile<T> tile(call, plan, x);
      read_turned(query + x * call.query_step, call.query_step, tile.live, call.channels, scale,
                  plan.query, lanes);
      read_turned(grad + x * token, token, tile.live, call.channels, S(1), plan.grad, lanes);
      multiply_tile(call, plan, tile, begin, plan.query, plan.keys, table + below * plan.side,
                    static_cast<S>(-__builtin_inf()), plan.weights);
      multiply_tile<T>(call, plan, tile, begin, plan.grad, plan.values, nullptr, S(0),
                       plan.logits);
      soften_backward(call, plan, tile, below);
      mix(call, plan, tile, begin, plan.logits, plan.keys, all(scale));
      T* to = static_cast<T*>(call.grad_query) + (row + x) * token + head;
      write_turned(plan.mixed, tile.live, call.channels, S(1), to, token);
    }
    for (int64_t r = 0; r < call.window; ++r) {
      const int64_t at = (begin + r - lowest) * line;
      int64_t channel = 0;
      for (; channel + 2 * lanes <= plan.d; channel += 2 * lanes) {
        give<2>(call, plan, r, channel, by_keys + at, by_values + at);
      }
      if (channel < plan.d) give<1>(call, plan, r, channel, by_keys + at, by_values + at);
    }
  }
  S* by_table = static_cast<S*>(call.part_table) + task * plan.side * plan.side;
  for (int64_t i = 0; i < plan.side * plan.side; ++i) {
    by_table[i] = sum_of(load(plan.by_table + i * lanes))[0];
  }
}

template <class T>
void collect_of(const NeighborhoodAttention& call, int64_t row) {
  typedef typename Kind<T>::S S;
  typedef typename Kind<T>::V V;
  constexpr int64_t lanes = Kind<T>::lanes;
  const int64_t y = row % call.height, image = row / call.height;
  const int64_t rest = y % call.down, number = y / call.down, count = call.rows(rest);
  const int64_t d = blocks(call.channels), line = call.width * d;
  const int64_t part = call.part_rows() * line;
  for (int64_t head = 0; head < call.heads; ++head) {
    for (int64_t x = 0; x < call.width; ++x) {
      const int64_t to = ((row * call.width + x) * call.heads + head) * call.channels;
      for (int64_t c = 0; c < call.channels; c += lanes) {
        V by_key{}, by_value{};
        for (int64_t chunk = 0; chunk < call.chunks && chunk * call.chunk < count; ++chunk) {
          const int64_t last = (chunk + 1) * call.chunk < count ? (chunk + 1) * call.chunk : count;
          const int64_t low = call.begin(chunk * call.chunk, count);
          if (number < low || number >= call.begin(last - 1, count) + call.window) continue;
          const int64_t task = ((image * call.down + rest) * call.chunks + chunk) * call.heads;
          const S* from = static_cast<const S*>(call.parts) + (task + head) * 2 * part +
                          (number - low) * line + x * d + c;
          by_key += load(from), by_value += load(from + part);
        }
        const int64_t left = call.channels - c;
        store_some(static_cast<T*>(call.grad_key) + to + c, by_key, left);
        store_some(static_cast<T*>(call.grad_value) + to + c, by_value, left);
      }
    }
  }
}

template <class T>
int64_t scratch_of(const NeighborhoodAttention& call, bool backward) {
  return Plan<T>(call).lay(nullptr, backward);
}

void forward(const NeighborhoodAttention& call, int64_t task, void* scratch) {
  SWIN_DENSE_BY_STORED(forward_of, call, task, scratch)
}

void backward(const NeighborhoodAttention& call, int64_t task, void* scratch) {
  SWIN_DENSE_BY_STORED(backward_of, call, task, scratch)
}

void collect(const NeighborhoodAttention& call, int64_t row) {
  SWIN_DENSE_BY_STORED(collect_of, call, row)
}

int64_t scratch(const NeighborhoodAttention& call, bool backward) {
  SWIN_DENSE_BY_STORED(scratch_of, call, backward)
  return 0;
}

int64_t whole_channels(const NeighborhoodAttention& call) { return blocks(call.channels); }

}  // namespace

extern const NeighborhoodAttentionLevel neighborhood_attention;
const NeighborhoodAttentionLevel neighborhood_attention = {whole_channels, scratch, forward,
                                                           backward, collect};

}  // namespace SWIN_DENSE_LEVEL
}  // namespace swin_dense
