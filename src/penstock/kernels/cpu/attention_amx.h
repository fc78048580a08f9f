// A step of attention over a bf16 cache on AMX tiles, for heads of a multiple of 32.
//
// Panels of keys are tiles already. Values are copied into one piece first, which also replaces
// keys that do not exist by zeros.
#pragma once

namespace {

inline void amx_scores(const Tile& t, int row, int rows, const Panel* panels, const Panel* next) {
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
    _tile_loadd(5, panels[0].keys + at, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, panels[1].keys + at, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, panels[2].keys + at, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, panels[3].keys + at, 64);
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
inline void gather_values(const Tile& t, const Panel* panels, const Panel* next, uint8_t* to) {
  const int64_t row = int64_t(t.dim) * 4;
  for (int i = 0; i < kStepPanels; ++i) {
    const int count = panels[i].count;
    for (int w = 0; w < kKeyBlock / 2; ++w) {
      for (int64_t at = 0; at < row; at += 64) {
        I v = izero();
        if (2 * w < count) v = iload(panels[i].values + w * row + at);
        if (2 * w + 1 == count) v = low_halves(v);
        _mm512_store_si512(to + (int64_t(i) * kKeyBlock / 2 + w) * row + at, v);
        if (next) __builtin_prefetch(next[i].values + w * row + at);
      }
    }
  }
}

inline void amx_step(const AttentionArgs& p, const Tile& t, const Panel* given, const Panel* next,
                     int count, int64_t first) {
  Panel panels[kStepPanels];
  Panel ahead[kStepPanels];
  for (int i = 0; i < kStepPanels; ++i) {  // a step is always whole; what is missing is masked
    panels[i] = given[i < count ? i : 0];
    if (i >= count) panels[i].count = 0;
    if (next) ahead[i] = next[i < count ? i : 0];
  }
  const Panel* after = next ? ahead : nullptr;
  for (int row = 0; row < t.rows; row += 16) {
    amx_scores(t, row, t.rows - row < 16 ? t.rows - row : 16, panels, row ? nullptr : after);
  }
  soften<KvBf16>(p, t, panels, kStepPanels, first);
  for (int row = 0; row < t.rows; ++row) {
    if (t.alpha[row] == 1.0f) continue;  // most steps find no greater score
    const F alpha = splat(t.alpha[row]);
    float* out = t.out + int64_t(row) * t.dim;
    for (int d = 0; d < t.dim; d += W) store(out + d, mul(load(out + d), alpha));
  }
  alignas(64) uint8_t values[kStepKeys * kMaxHeadDim * 2];
  gather_values(t, panels, after, values);
  for (int row = 0; row < t.rows; row += 16) {
    const int rows = t.rows - row < 16 ? t.rows - row : 16;
    int at = 0;
    for (; at + 64 <= t.dim; at += 64) amx_values<4>(t, row, rows, values, at);
    if (at < t.dim) amx_values<2>(t, row, rows, values, at);
  }
}

}  // namespace
