// A step of attention over a bf16 or int8 cache on AMX tiles, for heads of a multiple of 32.
//
// Panels of bf16 keys are tiles already; int8 is widened to bf16, which holds it exactly. Values
// are copied into one piece first, which also replaces keys that do not exist by zeros.
#pragma once

namespace {

struct KvBf16Tiles : KvBf16 {
  static constexpr bool kTiles = true;
};

struct KvI8Tiles : KvBf16Tiles {
  static constexpr int kValueBytes = 1;
  static F weigh(F p, const Panel& panel, int v) { return KvI8::weigh(p, panel, v); }
};

constexpr int64_t kStepBytesMost = int64_t(kStepKeys) * kMaxHeadDim * 2;

// Two integers of 8 bits as a pair of bf16: a bf16 is the upper half of a float.
inline I widened(I low, I high) {
  return _mm512_or_si512(_mm512_srli_epi32(as_int(to_float(low)), 16), as_int(to_float(high)));
}

inline I eight_bits(const uint8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// A panel of int8 keys to a panel of bf16 keys: [dim / 2][16 keys][2] both.
inline void widen_keys(const uint8_t* keys, const uint8_t* next, int dim, uint8_t* to) {
  for (int64_t at = 0; at < int64_t(dim) * kKeyBlock; at += 32) {
    const I pairs = widen_pairs(reinterpret_cast<const int8_t*>(keys + at));
    const I low = _mm512_srai_epi32(shift_left(pairs, 16), 16);
    _mm512_store_si512(to + 2 * at, widened(low, _mm512_srai_epi32(pairs, 16)));
    if (next && at % 64 == 0) __builtin_prefetch(next + at);
  }
}

inline void amx_scores(const Tile& t, int row, int rows, const uint8_t* const* keys,
                       const Panel* next) {
  configure(rows, 0);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t panel_bytes = int64_t(t.dim) * kKeyBlock * 2;
  for (int64_t at = 0; at < panel_bytes; at += 1024) {
    if (next) {
      for (int line = 0; line < 16; ++line) {
        for (int i = 0; i < kStepPanels; ++i) __builtin_prefetch(next[i].keys + at + line * 64);
      }
    }
    _tile_loadd(4, t.q + row * t.q_stride + at / 16, t.q_stride);
    _tile_loadd(5, keys[0] + at, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, keys[1] + at, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, keys[2] + at, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, keys[3] + at, 64);
    _tile_dpbf16ps(3, 4, 5);
  }
  float* out = t.scores + row * kStepKeys;
  _tile_stored(0, out, kStepKeys * 4);
  _tile_stored(1, out + 16, kStepKeys * 4);
  _tile_stored(2, out + 32, kStepKeys * 4);
  _tile_stored(3, out + 48, kStepKeys * 4);
}

// 32 dimensions of the output, or 64: their accumulators, two tiles of probabilities.
template <int N>
void amx_values(const Tile& t, int row, int rows, const uint8_t* values, int at) {
  const int64_t stride = int64_t(t.dim) * 4;
  float* out = t.out + int64_t(row) * t.dim + at;
  configure(rows, 0);
  _tile_loadd(0, out, stride);
  _tile_loadd(1, out + 16, stride);
  if constexpr (N == 4) {
    _tile_loadd(2, out + 32, stride);
    _tile_loadd(3, out + 48, stride);
  }
  for (int half = 0; half < 2; ++half) {  // 32 keys
    const uint8_t* v = values + half * 16 * stride + at * 4;
    _tile_loadd(4, t.scores + row * kStepKeys + half * 16, kStepKeys * 4);
    _tile_loadd(5, v, stride);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, v + 64, stride);
    _tile_dpbf16ps(1, 4, 6);
    if constexpr (N == 4) {
      _tile_loadd(7, v + 128, stride);
      _tile_dpbf16ps(2, 4, 7);
      _tile_loadd(5, v + 192, stride);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  _tile_stored(0, out, stride);
  _tile_stored(1, out + 16, stride);
  if constexpr (N == 4) {
    _tile_stored(2, out + 32, stride);
    _tile_stored(3, out + 48, stride);
  }
}

// Values of a step in one piece, [32 pairs of keys][dim][2].
template <class T>
void gather_values(const Tile& t, const Panel* panels, const Panel* next, uint8_t* to) {
  const int64_t row = int64_t(t.dim) * 4;
  for (int i = 0; i < kStepPanels; ++i) {
    const int count = panels[i].count;
    const uint8_t* values = panels[i].values;
    for (int w = 0; w < kKeyBlock / 2; ++w) {
      for (int64_t at = 0; at < row; at += 64) {
        int64_t offset = w * row + at;
        I v = izero();
        if constexpr (T::kValueBytes == 1) {
          offset = (2 * w * row + at) / 4;
          const I low = 2 * w < count ? eight_bits(values + offset) : izero();
          v = widened(low, 2 * w + 1 < count ? eight_bits(values + offset + row / 4) : izero());
        } else {
          if (2 * w < count) v = iload(values + offset);
          if (2 * w + 1 == count) v = low_halves(v);
        }
        _mm512_store_si512(to + (int64_t(i) * kKeyBlock / 2 + w) * row + at, v);
        if (next) __builtin_prefetch(next[i].values + offset);
      }
    }
  }
}

// Scores of a step, [rows][64], in units of the queries and keys.
template <class T>
void amx_all_scores(const Tile& t, const Panel* panels, const Panel* next) {
  const uint8_t* keys[kStepPanels];
  alignas(64) uint8_t wide[T::kValueBytes == 1 ? kStepBytesMost : 64];
  for (int i = 0; i < kStepPanels; ++i) {
    keys[i] = panels[i].keys;
    if constexpr (T::kValueBytes == 1) {
      keys[i] = wide + int64_t(i) * kKeyBlock * t.dim * 2;
      widen_keys(panels[i].keys, next ? next[i].keys : nullptr, t.dim,
                 wide + int64_t(i) * kKeyBlock * t.dim * 2);
    }
  }
  if constexpr (T::kValueBytes == 1) next = nullptr;
  for (int row = 0; row < t.rows; row += 16) {
    amx_scores(t, row, t.rows - row < 16 ? t.rows - row : 16, keys, row ? nullptr : next);
  }
  if constexpr (T::kValueBytes == 1) {
    for (int row = 0; row < t.rows; ++row) {
      for (int i = 0; i < kStepPanels; ++i) {
        float* s = t.scores + row * kStepKeys + i * kKeyBlock;
        store(s, mul(load(s), load(panels[i].key_scales)));
      }
    }
  }
}

template <class T>
void amx_step(const AttentionArgs& p, const Tile& t, const Panel* given, const Panel* next,
              int count, int64_t first) {
  Panel panels[kStepPanels];
  Panel ahead[kStepPanels];
  for (int i = 0; i < kStepPanels; ++i) {  // a step is always whole; what is missing is masked
    panels[i] = given[i < count ? i : 0];
    if (i >= count) panels[i].count = 0;
    if (next) ahead[i] = next[i < count ? i : 0];
  }
  const Panel* after = next ? ahead : nullptr;
  amx_all_scores<T>(t, panels, after);
  soften<T>(p, t, panels, kStepPanels, first);
  for (int row = 0; row < t.rows; ++row) {
    if (t.alpha[row] == 1.0f) continue;  // most steps find no greater score
    const F alpha = splat(t.alpha[row]);
    float* out = t.out + int64_t(row) * t.dim;
    for (int d = 0; d < t.dim; d += W) store(out + d, mul(load(out + d), alpha));
  }
  alignas(64) uint8_t values[kStepBytesMost];
  gather_values<T>(t, panels, after, values);
  for (int row = 0; row < t.rows; row += 16) {
    const int rows = t.rows - row < 16 ? t.rows - row : 16;
    int at = 0;
    for (; at + 64 <= t.dim; at += 64) amx_values<4>(t, row, rows, values, at);
    if (at < t.dim) amx_values<2>(t, row, rows, values, at);
  }
}

}  // namespace
