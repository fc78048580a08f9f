// The same product on AMX tiles: 16 rows times 64 bytes of K times 16 outputs an instruction.
// A packed block is two tiles wide, so that the layout is the vectors' own.
#pragma once

namespace {

constexpr int kMaxVectorRows = 4;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

thread_local int configured = 0;  // rows of the first tile row * 32 + rows of the second

// Tiles 0 1 and 2 3 accumulate, 4 and 5 hold rows of x, 6 and 7 weights. `second` = 0: one row of
// tiles, where 2 3 belong to a second block.
inline void configure(int rows, int second) {
  const int key = rows * 32 + second;
  if (configured == key) return;
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.bytes[t] = 64;
    config.rows[t] = 16;
  }
  config.rows[0] = config.rows[1] = config.rows[4] = uint8_t(rows);
  config.rows[2] = config.rows[3] = uint8_t(second ? second : rows);
  config.rows[5] = uint8_t(second ? second : 16);
  _tile_loadconfig(&config);
  configured = key;
}

inline void leave_amx() {
  if (configured == 0) return;
  _tile_release();
  configured = 0;
}

// The products of tiles, whose numbers must be literals: two rows of tiles by two columns, and one
// row by either block's two columns.
#define PENSTOCK_TILE_PRODUCTS(dot) \
  static void dot22() {             \
    dot(0, 4, 6);                   \
    dot(1, 4, 7);                   \
    dot(2, 5, 6);                   \
    dot(3, 5, 7);                   \
  }                                 \
  static void dot01() {             \
    dot(0, 4, 6);                   \
    dot(1, 4, 7);                   \
  }                                 \
  static void dot23() {             \
    dot(2, 4, 6);                   \
    dot(3, 4, 7);                   \
  }

struct AmxBf16 {
  PENSTOCK_TILE_PRODUCTS(_tile_dpbf16ps)
  static int scales(const Product&, int) { return 0; }
  static F real(const Product&, int, int, int, I acc) { return as_float(acc); }
};

struct AmxInt8 {
  PENSTOCK_TILE_PRODUCTS(_tile_dpbsud)
  static Scales scales(const Product& p, int block) { return Int8::scales(p, block); }
  static F real(const Product& p, int row, const Scales& s, int i, I acc) {
    return Int8::real(p, row, s, i, iadd(acc, isplat(p.sums[row])));
  }
};
#undef PENSTOCK_TILE_PRODUCTS

template <class T>
void finish_tiles(const Product& p, const int32_t* left, const int32_t* right, int row, int rows,
                  int block) {
  const auto scale = T::scales(p, block);
  finish(*p.args, row, rows, block, [&](int r, int i) {
    return T::real(p, row + r, scale, i, iload((i ? right : left) + r * 16));
  });
}

// 17 to 32 rows of one block. `ahead`: the next block is wanted next, fetch it to L2.
template <class T>
void amx_tall(const Product& p, int row, int rows, int block, bool ahead) {
  configure(16, rows - 16);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const uint8_t* a = p.a + row * p.stride;
  const uint8_t* w = p.args->weight->data + block * p.block_bytes;
  for (int64_t at = 0; at < p.block_bytes; at += 16 * kStepBytes) {
    _tile_loadd(6, w + at, kStepBytes);
    _tile_loadd(4, a, p.stride);
    _tile_loadd(7, w + at + 64, kStepBytes);
    _tile_loadd(5, a + 16 * p.stride, p.stride);
    if (ahead) {
      for (int line = 0; line < 32; ++line) {
        __builtin_prefetch(w + p.block_bytes + at + line * 64, 0, 2);
      }
    }
    T::dot22();
    a += 64;
  }
  alignas(64) int32_t out[4][256];
  _tile_stored(0, out[0], 64);
  _tile_stored(1, out[1], 64);
  _tile_stored(2, out[2], 64);
  _tile_stored(3, out[3], 64);
  finish_tiles<T>(p, out[0], out[1], row, 16, block);
  finish_tiles<T>(p, out[2], out[3], row + 16, rows - 16, block);
}

// 1 to 16 rows of one or two blocks.
template <class T, int B>
void amx_flat(const Product& p, int row, int rows, int block) {
  configure(rows, 0);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const uint8_t* a = p.a + row * p.stride;
  const uint8_t* w = p.args->weight->data + block * p.block_bytes;
  for (int64_t at = 0; at < p.block_bytes; at += 16 * kStepBytes) {
    for (int line = 0; line < 32; ++line) {
      __builtin_prefetch(w + at + 16 * kStepBytes + line * 64);
      if (B == 2) __builtin_prefetch(w + p.block_bytes + at + 16 * kStepBytes + line * 64);
    }
    _tile_loadd(4, a, p.stride);
    _tile_loadd(6, w + at, kStepBytes);
    _tile_loadd(7, w + at + 64, kStepBytes);
    T::dot01();
    if constexpr (B == 2) {
      _tile_loadd(6, w + p.block_bytes + at, kStepBytes);
      _tile_loadd(7, w + p.block_bytes + at + 64, kStepBytes);
      T::dot23();
    }
    a += 64;
  }
  alignas(64) int32_t out[4][256];
  _tile_stored(0, out[0], 64);
  _tile_stored(1, out[1], 64);
  finish_tiles<T>(p, out[0], out[1], row, rows, block);
  if constexpr (B == 2) {
    _tile_stored(2, out[2], 64);
    _tile_stored(3, out[3], 64);
    finish_tiles<T>(p, out[2], out[3], row, rows, block + 1);
  }
}

template <class T>
void amx_range(const Product& p, int from, int to, int first, int last) {
  int block = first;
  if (to - from <= 16) {
    for (; block + 2 <= last; block += 2) amx_flat<T, 2>(p, from, to - from, block);
  }
  for (; block < last; ++block) {
    for (int row = from; row < to; row += 32) {
      const int rows = to - row < 32 ? to - row : 32;
      if (rows > 16) {
        amx_tall<T>(p, row, rows, block, row + 32 >= to);
      } else {
        amx_flat<T, 1>(p, row, rows, block);
      }
    }
  }
}

}  // namespace
