// One step of attention: a tile of queries against 64 keys, with an online softmax (Milakov and
// Gimelshein 2018; FlashAttention, Dao et al. 2022).
//
// A query's state depends only on its own visible keys: what is masked in a step leaves maximum,
// sum and output as they were.
#pragma once

#include "cache.h"

namespace {

constexpr int kStepKeys = 64;
constexpr int kStepPanels = kStepKeys / kKeyBlock;
constexpr int PV = kKeyBlock / W;  // vectors of a panel
constexpr float kNone = -1e30f;    // a maximum before any key: finite, so that differences are

struct Panel {  // 16 keys of one head
  const uint8_t* keys;
  const uint8_t* values;
  const float* key_scales;
  const float* value_scales;
  int count;  // keys that exist
};

// What a worker's tile keeps while it walks the keys.
struct Tile {
  int rows;
  int dim;
  uint8_t* q;        // [rows][q_stride bytes], words of 4 bytes as the keys want them
  int64_t q_stride;
  float* q_scale;    // [rows], i8
  float* scores;     // [rows][64]; then probabilities in place, f32 or bf16
  float* out;        // [rows][dim]
  float* maximum;    // [rows + W]
  float* sum;        // [rows][W], by lane
  float* alpha;      // [rows + W]
  int64_t* position; // [rows]
};

// ---- cache formats ------------------------------------------------------------------------

struct KvF32 {
  using Acc = F;
  static constexpr bool kTiles = false;  // of AMX
  static constexpr int kDims = 1;      // of a key, in a word of q
  static constexpr int kKeysPerWord = 1;  // of probabilities
  static constexpr int kKeyStepBytes = 64;
  static constexpr int kValueBytes = 4;  // of one dimension, in a word
  static Acc start() { return zero(); }
  static I keys(const uint8_t* panel, int step, int v) {
    return iload(panel + step * 64 + v * W * 4);
  }
  static Acc dot(Acc acc, I k, I q) { return dot_f32(acc, k, q); }
  static F score(Acc acc, const Tile&, int, const Panel&, int) { return acc; }
  static F weigh(F p, const Panel&, int) { return p; }
  static I values(const Panel& panel, int word, int dim, int at) {
    return as_int(load(reinterpret_cast<const float*>(panel.values) + int64_t(word) * dim + at));
  }
  static F blend(F acc, I v, I p) { return dot_f32(acc, v, p); }
};

struct KvBf16 : KvF32 {
  static constexpr int kDims = 2;
  static constexpr int kKeysPerWord = 2;
  static Acc dot(Acc acc, I k, I q) { return dot_bf16(acc, k, q); }
  static I values(const Panel& panel, int word, int dim, int at) {
    return iload(panel.values + (int64_t(word) * dim + at) * 4);
  }
  static F blend(F acc, I v, I p) { return dot_bf16(acc, v, p); }
};

// Queries are quantized to 16 bits, so that the dot product is exact in 32.
struct KvI8 : KvF32 {
  using Acc = I;
  static constexpr int kDims = 2;
  static constexpr int kKeyStepBytes = 32;
  static constexpr int kValueBytes = 1;
  static Acc start() { return izero(); }
  static I keys(const uint8_t* panel, int step, int v) {
    return widen_pairs(reinterpret_cast<const int8_t*>(panel) + step * 32 + v * W * 2);
  }
  static Acc dot(Acc acc, I k, I q) { return dot_i16(acc, k, q); }
  static F score(Acc acc, const Tile& t, int row, const Panel& panel, int v) {
    return mul(mul(to_float(acc), splat(t.q_scale[row])), load(panel.key_scales + v * W));
  }
  static F weigh(F p, const Panel& panel, int v) {
    return mul(p, load(panel.value_scales + v * W));
  }
  static I values(const Panel& panel, int word, int dim, int at) {
    return as_int(load_i8(reinterpret_cast<const int8_t*>(panel.values) + int64_t(word) * dim + at));
  }
};

// ---- register kernels ---------------------------------------------------------------------

// Scores of R rows and P panels. `next`, where not null, are the panels of the following step:
// blocks are scattered, which no hardware prefetcher foresees.
template <class T, int R, int P>
[[gnu::noinline]] void score_tile(const Tile& t, int row, const Panel* panels, const Panel* next,
                                  float* out) {
  typename T::Acc acc[R][P * PV];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < P * PV; ++v) acc[r][v] = T::start();
  }
  const uint8_t* q = t.q + row * t.q_stride;
  const int steps = t.dim / T::kDims;
  for (int s = 0; s < steps; ++s) {
    I k[P * PV];
#pragma GCC unroll 16
    for (int v = 0; v < P * PV; ++v) k[v] = T::keys(panels[v / PV].keys, s, v % PV);
    if (next) {
#pragma GCC unroll 4
      for (int i = 0; i < P; ++i) __builtin_prefetch(next[i].keys + s * T::kKeyStepBytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const I word = splat_word(q + r * t.q_stride + 4 * s);
#pragma GCC unroll 16
      for (int v = 0; v < P * PV; ++v) acc[r][v] = T::dot(acc[r][v], k[v], word);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < P * PV; ++v) {
      store(out + r * kStepKeys + v * W, T::score(acc[r][v], t, row + r, panels[v / PV], v % PV));
    }
  }
}

// out[row ..][at ..] = out * alpha + probabilities times values, for R rows and N vectors.
template <class T, int R, int N>
[[gnu::noinline]] void value_tile(const Tile& t, int row, const Panel* panels, const Panel* next,
                                  int count, int at) {
  F acc[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const F alpha = splat(t.alpha[row + r]);
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v) {
      acc[r][v] = mul(load(t.out + int64_t(row + r) * t.dim + at + v * W), alpha);
    }
  }
  constexpr int kWords = kKeyBlock / T::kKeysPerWord;
  for (int i = 0; i < count; ++i) {
    const uint8_t* p = reinterpret_cast<const uint8_t*>(t.scores + row * kStepKeys) + i * kWords * 4;
    const int words = (panels[i].count + T::kKeysPerWord - 1) / T::kKeysPerWord;
    for (int w = 0; w < words; ++w) {
      I values[N];
#pragma GCC unroll 16
      for (int v = 0; v < N; ++v) values[v] = T::values(panels[i], w, t.dim, at + v * W);
      if (next) {
#pragma GCC unroll 16
        for (int v = 0; v < N; ++v) {
          __builtin_prefetch(next[i].values + (int64_t(w) * t.dim + at + v * W) * T::kValueBytes);
        }
      }
      if (T::kKeysPerWord == 2 && 2 * w + 1 == panels[i].count) {
        // The pair's other key does not exist; what an earlier owner left there may be infinite,
        // and its weight of 0 would make a NaN of it.
#pragma GCC unroll 16
        for (int v = 0; v < N; ++v) values[v] = low_halves(values[v]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const I word = splat_word(p + (int64_t(r) * kStepKeys + w) * 4);
#pragma GCC unroll 16
        for (int v = 0; v < N; ++v) acc[r][v] = T::blend(acc[r][v], values[v], word);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v) store(t.out + int64_t(row + r) * t.dim + at + v * W, acc[r][v]);
  }
}

template <class T, int R>
void scores_of(const Tile& t, int rows, int row, const Panel* panels, const Panel* next,
               int count) {
  if constexpr (R > 1) {
    if (rows < R) return scores_of<T, R - 1>(t, rows, row, panels, next, count);
  }
  constexpr int P = (R <= kWideRows ? kWide : kNarrow) / PV;
  float* out = t.scores + row * kStepKeys;
  int i = 0;
  for (; i + P <= count; i += P) {
    score_tile<T, R, P>(t, row, panels + i, next ? next + i : next, out + i * kKeyBlock);
  }
  for (; i < count; ++i) {
    score_tile<T, R, 1>(t, row, panels + i, next ? next + i : next, out + i * kKeyBlock);
  }
}

template <class T, int R>
void values_of(const Tile& t, int rows, int row, const Panel* panels, const Panel* next,
               int count) {
  if constexpr (R > 1) {
    if (rows < R) return values_of<T, R - 1>(t, rows, row, panels, next, count);
  }
  constexpr int N = R <= kWideRows ? kWide : kNarrow;
  int at = 0;
  for (; at + N * W <= t.dim; at += N * W) value_tile<T, R, N>(t, row, panels, next, count, at);
  for (; at < t.dim; at += W) value_tile<T, R, 1>(t, row, panels, next, count, at);
}

// ---- softmax ------------------------------------------------------------------------------

// Which keys of a step a row sees: lanes above `from` and below `to`, where not all.
struct Visible {
  bool masked;
  I from, to;

  Visible(const AttentionArgs& p, int64_t position, int64_t first) {
    const int64_t oldest = p.window > 0 ? position - p.window + 1 : 0;
    const int64_t low = oldest - first, high = position + 1 - first;
    masked = low > 0 || high < kStepKeys;
    from = isplat(int(low < 0 ? -1 : low > kStepKeys ? kStepKeys : low - 1));
    to = isplat(int(high < 0 ? 0 : high > kStepKeys ? kStepKeys : high));
  }
  F keep(F v, int vector, F otherwise) const {
    const I lane = iadd(lanes(), isplat(vector * W));
    return select(both(iless(from, lane), iless(lane, to)), v, otherwise);
  }
};

// Scaled and capped scores of one row, in place, and its new maximum; alpha still as exponent.
inline void find_maximum(const AttentionArgs& p, const Tile& t, int row, int count, int64_t first) {
  float* s = t.scores + row * kStepKeys;
  const Visible visible(p, t.position[row], first);
  F top = splat(kNone);
  for (int i = 0; i < count * PV; ++i) {
    F x = mul(load(s + i * W), splat(p.scale));
    if (p.softcap > 0.0f) x = mul(splat(p.softcap), vtanh(div(x, splat(p.softcap))));
    if (visible.masked) x = visible.keep(x, i, splat(-__builtin_inff()));
    store(s + i * W, x);
    top = vmax(top, x);
  }
  const float old = t.maximum[row], greatest = reduce_max(top);
  const float maximum = greatest > old ? greatest : old;
  t.maximum[row] = maximum;
  t.alpha[row] = old - maximum;
}

// Probabilities relative to the maximum, in place; the sum by lane.
template <class T>
void exponentiate(const AttentionArgs& p, const Tile& t, int row, const Panel* panels, int count,
                  int64_t first) {
  float* s = t.scores + row * kStepKeys;
  const Visible visible(p, t.position[row], first);
  const F maximum = splat(t.maximum[row]);
  F sum = zero();
  for (int i = 0; i < count * PV; ++i) {
    F e = vexp(sub(load(s + i * W), maximum));
    if (visible.masked) e = visible.keep(e, i, zero());
    sum = add(sum, e);
    e = T::weigh(e, panels[i / PV], i % PV);
    // The scale of a key that does not exist may be anything.
    if (visible.masked) e = visible.keep(e, i, zero());
    if (T::kKeysPerWord == 2) {
      store_bf16(reinterpret_cast<uint16_t*>(s) + i * W, e);
    } else {
      store(s + i * W, e);
    }
  }
  store(t.sum + row * W, fma(load(t.sum + row * W), splat(t.alpha[row]), sum));
}

template <class T>
void soften(const AttentionArgs& p, const Tile& t, const Panel* panels, int count, int64_t first) {
  for (int row = 0; row < t.rows; ++row) find_maximum(p, t, row, count, first);
  for (int row = 0; row < t.rows; row += W) store(t.alpha + row, vexp(load(t.alpha + row)));
  for (int row = 0; row < t.rows; ++row) exponentiate<T>(p, t, row, panels, count, first);
}

}  // namespace

#ifdef PENSTOCK_AMX
#include "attention_amx.h"
#endif

namespace {

template <class T>
void step(const AttentionArgs& p, const Tile& t, const Panel* panels, const Panel* next, int count,
          int64_t first) {
  if constexpr (T::kTiles) {
#ifdef PENSTOCK_AMX
    amx_step<T>(p, t, panels, next, count, first);
#endif
  } else {
    for (int row = 0; row < t.rows; row += kMaxRowsAttention) {
      const int rows = t.rows - row < kMaxRowsAttention ? t.rows - row : kMaxRowsAttention;
      scores_of<T, kMaxRowsAttention>(t, rows, row, panels, row ? nullptr : next, count);
    }
    soften<T>(p, t, panels, count, first);
    for (int row = 0; row < t.rows; row += kMaxRowsAttention) {
      const int rows = t.rows - row < kMaxRowsAttention ? t.rows - row : kMaxRowsAttention;
      values_of<T, kMaxRowsAttention>(t, rows, row, panels, row ? nullptr : next, count);
    }
  }
}

}  // namespace
