// y = x W^T over packed weights: staging of activations, the register kernels, the epilogues.
//
// The contract is batch invariance, bit for bit: each output has one accumulator that walks K in
// one order, whatever the number of rows, the tile or the thread. Integer formats accumulate
// exactly and have one scale expression, so that different instructions may serve different
// numbers of rows there.
#pragma once

namespace {

constexpr int V = kBlockN / W;  // vectors across a block
constexpr int kStepBytes = kBlockN * 4;  // packed bytes that meet 4 bytes of a row
constexpr int kAhead = 16;  // steps, 2 KB: farther and nearer were slower

// A linear whose activations are staged.
struct Product {
  const LinearArgs* args;
  const uint8_t* a;      // rows in the weight's format, zero-padded to 64 bytes
  int64_t stride;        // bytes
  const float* scale;    // by row, integer formats
  const int32_t* sums;   // by row (int8) or row and group (int4): where an accumulator starts
  int groups;
  int64_t block_bytes;   // packed bytes of a block
};

// ---- staging ------------------------------------------------------------------------------

// A row of x to floats, normalised where wanted, and zeros up to `padded`.
inline void read_row(const LinearArgs& p, int row, float* to, int padded) {
  const int k = p.weight->k;
  const int64_t at = (p.x_rows ? p.x_rows[row] : row) * p.x_stride;
  F squares = zero();
  for (int i = 0; i < padded; i += W) {
    const F v = i < k ? load_any(p.x, p.x_dtype, at + i, k - i) : zero();
    squares = fma(v, v, squares);
    store(to + i, v);
  }
  if (!p.norm_weight) return;
  const F factor = splat(1.0f / __builtin_sqrtf(reduce_add(squares) / float(k) + p.norm_eps));
  for (int i = 0; i < k; i += W) {
    const F w = load_any(p.norm_weight, Dtype::f32, i, k - i);
    store(to + i, mul(mul(load(to + i), factor), w));
  }
}

// Symmetric int8: q = round(v * 127 / max|v|). The maximum is taken over the bits, so that a NaN
// wins and reaches the output through the scale.
inline void quantize_row(const float* x, int padded, bool by_group, int8_t* q, float* scale,
                         int32_t* sums) {
  I greatest = izero();
  for (int i = 0; i < padded; i += W) greatest = imax(greatest, as_int(vabs(load(x + i))));
  const int32_t bits = ireduce_max(greatest);
  float amax;
  __builtin_memcpy(&amax, &bits, 4);
  *scale = amax / 127.0f;
  const F inverse = splat(amax > kLeast ? 127.0f / amax : 0.0f);
  I sum = izero();
  for (int i = 0; i < padded; i += W) {
    const I v = to_int(mul(load(x + i), inverse));
    store_i8(q + i, v);
    sum = iadd(sum, v);
    if (by_group && (i + W) % kGroup4 == 0) {
      sums[i / kGroup4] = -8 * ireduce_add(sum);  // nibbles stand for q - 8
      sum = izero();
    }
  }
  if (!by_group) sums[0] = -kWeightOffset * ireduce_add(sum);
}

// `floats`: room for a padded row. Integer formats may spread outliers before they quantize.
inline void stage_row(const LinearArgs& p, int row, float* floats, uint8_t* to, float* scale,
                      int32_t* sums) {
  const Format format = p.weight->format;
  const int width = format == Format::f32 ? 4 : format == Format::bf16 ? 2 : 1;
  const int padded = int(row_bytes(format, p.weight->k)) / width;
  if (format == Format::f32) return read_row(p, row, reinterpret_cast<float*>(to), padded);
  read_row(p, row, floats, padded);
  if (p.weight->parts > 1) rotate(floats, p.weight->k, p.weight->parts);
  if (format == Format::bf16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(to);
    for (int i = 0; i < padded; i += W) store_bf16(out + i, load(floats + i));
  } else {
    quantize_row(floats, padded, format == Format::int4, reinterpret_cast<int8_t*>(to), scale,
                 sums);
  }
}

// Few rows are staged by every worker for itself: cheaper than a barrier.
constexpr int64_t kPrivateElements = 4096;

inline Product stage(const LinearArgs& p, Team& team) {
  const Weight& w = *p.weight;
  Product out{};
  out.args = &p;
  out.block_bytes = row_bytes(w.format, w.k) / 4 * kStepBytes / (w.format == Format::int4 ? 2 : 1);
  const bool same = (w.format == Format::bf16 && p.x_dtype == Dtype::bf16) ||
                    (w.format == Format::f32 && p.x_dtype == Dtype::f32);
  const int width = w.format == Format::f32 ? 4 : 2;
  if (same && !p.norm_weight && !p.x_rows && int64_t(w.k) * width % kRowAlign == 0) {
    out.a = static_cast<const uint8_t*>(p.x);
    out.stride = p.x_stride * width;
    return out;
  }
  const bool alone = int64_t(p.rows) * w.k <= kPrivateElements;
  float* floats = reinterpret_cast<float*>(team.scratch);
  uint8_t* rows = alone ? team.scratch + kScratchBytes / 2 : p.staging;
  const int64_t stride = staged_stride(w.format, w.k);
  const int groups = int(staged_sums(w.format, w.k));
  float* scale = reinterpret_cast<float*>(rows + p.rows * stride);
  int32_t* sums = reinterpret_cast<int32_t*>(scale + p.rows);
  const int from = alone ? 0 : share(p.rows, team.rank, team.size);
  const int to = alone ? p.rows : share(p.rows, team.rank + 1, team.size);
  for (int m = from; m < to; ++m) {
    stage_row(p, m, floats, rows + m * stride, scale + m, sums + int64_t(m) * groups);
  }
  if (!alone) team.barrier();
  out.a = rows;
  out.stride = stride;
  out.scale = scale;
  out.sums = sums;
  out.groups = groups;
  return out;
}

// ---- epilogue -----------------------------------------------------------------------------

inline int64_t out_row(const LinearArgs& p, int row) { return p.out_rows ? p.out_rows[row] : row; }

// Rows of one block to their place. get(r, i) is vector i of row r in real units. What does not
// change from row to row is kept in locals: the compiler cannot know that stores leave it alone.
template <class Get>
inline void finish(const LinearArgs& p, int row, int rows, int block, Get get) {
  const Weight& w = *p.weight;
  const Dtype dtype = p.out_dtype;
  const int64_t stride = p.out_stride;
  void* const out = p.out;
  F bias[V];
  for (int i = 0; i < V; ++i) bias[i] = w.bias ? load(w.bias + block * kBlockN + i * W) : zero();
  if (p.epilogue == Epilogue::silu_mul || p.epilogue == Epilogue::gelu_mul) {
    const bool silu = p.epilogue == Epilogue::silu_mul;
    constexpr int half = kBlockN / 2;
    const int left = w.n / 2 - block * half;
    for (int r = 0; r < rows; ++r) {
      const int64_t at = out_row(p, row + r) * stride + block * half;
      for (int i = 0; i < V / 2; ++i) {
        const F gate = add(get(r, i), bias[i]), up = add(get(r, i + V / 2), bias[i + V / 2]);
        const F act = silu ? vsilu(gate) : vgelu_tanh(gate);
        store_any(out, dtype, at + i * W, mul(act, up), left - i * W);
      }
    }
    return;
  }
  const bool sum = p.epilogue == Epilogue::add;
  const F scale = splat(p.scale);
  const int left = w.n - block * kBlockN;
  for (int r = 0; r < rows; ++r) {
    const int64_t at = out_row(p, row + r) * stride + block * kBlockN;
    for (int i = 0; i < V && i * W < left; ++i) {
      F v = mul(add(get(r, i), bias[i]), scale);
      if (p.softcap > 0) v = mul(splat(p.softcap), vtanh(div(v, splat(p.softcap))));
      if (sum) v = add(load_any(out, dtype, at + i * W, left - i * W), v);
      store_any(out, dtype, at + i * W, v, left - i * W);
    }
  }
}

// ---- register kernels ---------------------------------------------------------------------

struct Scales {  // of a block's outputs
  F of[V];
};

struct F32 {
  using Acc = F;
  static int scales(const Product&, int) { return 0; }
  static Acc start(const Product&, int) { return zero(); }
  static Acc dot(Acc acc, I b, I a) { return dot_f32(acc, b, a); }
  static F real(const Product&, int, int, int, Acc acc) { return acc; }
};

struct Bf16 : F32 {
  static Acc dot(Acc acc, I b, I a) { return dot_bf16(acc, b, a); }
};

struct Int8 {
  using Acc = I;
  static Acc start(const Product& p, int row) { return isplat(p.sums[row]); }
  static Acc dot(Acc acc, I b, I a) { return dot_i8(acc, b, a); }
  static Scales scales(const Product& p, int block) {
    Scales s;
    for (int i = 0; i < V; ++i) s.of[i] = load(p.args->weight->scales + block * kBlockN + i * W);
    return s;
  }
  static F real(const Product& p, int row, const Scales& s, int i, Acc acc) {
    return mul(mul(to_float(acc), splat(p.scale[row])), s.of[i]);
  }
};

inline I splat_word(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return isplat(word);
}

// R rows times B blocks of 32 outputs. The accumulators stay in registers.
template <class T, int R, int B>
[[gnu::noinline]] void tile(const Product& p, int row, int block) {
  const uint8_t* a = p.a + row * p.stride;
  const uint8_t* w = p.args->weight->data + block * p.block_bytes;
  typename T::Acc acc[R][B * V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < B * V; ++v) acc[r][v] = T::start(p, row + r);
  }
  const int64_t steps = p.block_bytes / kStepBytes;
  for (int64_t s = 0; s < steps; ++s) {
    I b[B * V];
#pragma GCC unroll 16
    for (int v = 0; v < B * V; ++v) {
      b[v] = iload(w + (v / V) * p.block_bytes + s * kStepBytes + (v % V) * W * 4);
    }
    {  // run ahead of the hardware's own prefetching, which stays within a page
#pragma GCC unroll 4
      for (int line = 0; line < 2 * B; ++line) {
        __builtin_prefetch(w + (line / 2) * p.block_bytes + (s + kAhead) * kStepBytes +
                           (line % 2) * 64);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const I word = splat_word(a + r * p.stride + 4 * s);
#pragma GCC unroll 16
      for (int v = 0; v < B * V; ++v) acc[r][v] = T::dot(acc[r][v], b[v], word);
    }
  }
  typename T::Acc done[R][B * V];  // acc indexed at run time would not stay in registers
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < B * V; ++v) done[r][v] = acc[r][v];
  }
  for (int j = 0; j < B; ++j) {
    const auto scale = T::scales(p, block + j);
    finish(*p.args, row, R, block + j, [&](int r, int i) {
      return T::real(p, row + r, scale, i, done[r][j * V + i]);
    });
  }
}

// int4: exact within a group of 32, then one fused multiply-add a group, groups in order.
template <int R>
[[gnu::noinline]] void tile_int4(const Product& p, int row, int block) {
  constexpr int kLoads = kGroup4 / 8;  // a load holds two nibbles for each of 4 k
  const uint8_t* a = p.a + row * p.stride;
  const uint8_t* w = p.args->weight->data + block * p.block_bytes;
  const uint16_t* scales = p.args->weight->group_scales + int64_t(block) * p.groups * kBlockN;
  const int32_t* sums = p.sums + int64_t(row) * p.groups;
  F total[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) total[r][v] = zero();
  }
  for (int g = 0; g < p.groups; ++g) {
    I acc[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = isplat(sums[r * p.groups + g]);
    }
#pragma GCC unroll 4
    for (int s = 0; s < kLoads; ++s) {
      const uint8_t* at = w + (int64_t(g) * kLoads + s) * kStepBytes;
      {
        __builtin_prefetch(at + kAhead * kStepBytes);
        __builtin_prefetch(at + kAhead * kStepBytes + 64);
      }
      I packed[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) packed[v] = iload(at + v * W * 4);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        I b[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) b[v] = half ? high_nibbles(packed[v]) : low_nibbles(packed[v]);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const I word = splat_word(a + r * p.stride + g * kGroup4 + s * 8 + half * 4);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[r][v] = dot_u4(acc[r][v], b[v], word);
        }
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const F scale = load_f16(scales + g * kBlockN + v * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) total[r][v] = fma(to_float(acc[r][v]), scale, total[r][v]);
    }
  }
  F done[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) done[r][i] = mul(total[r][i], splat(p.scale[row + r]));
  }
  finish(*p.args, row, R, block, [&](int r, int i) { return done[r][i]; });
}

template <class T, int R, int B>
void tile_of(int rows, const Product& p, int row, int block) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of<T, R - 1, B>(rows, p, row, block);
  }
  tile<T, R, B>(p, row, block);
}

template <int R>
void tile_int4_of(int rows, const Product& p, int row, int block) {
  if constexpr (R > 1) {
    if (rows < R) return tile_int4_of<R - 1>(rows, p, row, block);
  }
  tile_int4<R>(p, row, block);
}

// Rows [from, to) of `blocks` [first, last). Rows are inside: a block stays in the cache.
template <class T>
void vector_range(const Product& p, int from, int to, int first, int last) {
  int block = first;
  if (to - from <= kMaxRowsTwoBlocks) {
    for (; block + 2 <= last; block += 2) {
      tile_of<T, kMaxRowsTwoBlocks, 2>(to - from, p, from, block);
    }
  }
  for (; block < last; ++block) {
    for (int row = from; row < to; row += kMaxRowsOneBlock) {
      const int rows = to - row < kMaxRowsOneBlock ? to - row : kMaxRowsOneBlock;
      tile_of<T, kMaxRowsOneBlock, 1>(rows, p, row, block);
    }
  }
}

inline void int4_range(const Product& p, int from, int to, int first, int last) {
  for (int block = first; block < last; ++block) {
    for (int row = from; row < to; row += kMaxRowsInt4) {
      const int rows = to - row < kMaxRowsInt4 ? to - row : kMaxRowsInt4;
      tile_int4_of<kMaxRowsInt4>(rows, p, row, block);
    }
  }
}

}  // namespace

#ifdef PENSTOCK_AMX
#include "linear_amx.h"
#endif

namespace {

inline void range(const Product& p, int from, int to, int first, int last) {
  switch (p.args->weight->format) {
    case Format::f32:
      return vector_range<F32>(p, from, to, first, last);
    case Format::int4:
      return int4_range(p, from, to, first, last);
#ifdef PENSTOCK_AMX
    case Format::bf16:  // the order of AMX's sums is its own: one instruction for all rows
      return amx_range<AmxBf16>(p, from, to, first, last);
    case Format::int8:  // exact: a few rows stream better through vectors
      if (to - from <= kMaxVectorRows) return vector_range<Int8>(p, from, to, first, last);
      return amx_range<AmxInt8>(p, from, to, first, last);
#else
    case Format::bf16:
      return vector_range<Bf16>(p, from, to, first, last);
    case Format::int8:
      return vector_range<Int8>(p, from, to, first, last);
#endif
  }
}

constexpr int kFewRows = 16;               // up to here weights are streamed once
constexpr int64_t kChunkBytes = 384 << 10; // activations that stay in L2 while blocks stream by
constexpr int kRowMultiple = 96;           // of 12 and of 32: no chunk ends in a small tile
constexpr int kTaskBlocks = 4;

inline void linear(const LinearArgs& p, Team& team) {
  if (p.rows <= 0) return;
  const Product product = stage(p, team);
  const int blocks = int(round_up(p.weight->n, kBlockN) / kBlockN);
  if (p.rows <= kFewRows) {
    // Most blocks in fixed shares, each one stream; the rest to whoever is first done, because a
    // core that something else visits must not hold up the others.
    const int pairs = (blocks - (team.size > 1 ? blocks / 4 : 0)) / 2;
    range(product, 0, p.rows, 2 * share(pairs, team.rank, team.size),
          2 * share(pairs, team.rank + 1, team.size));
    for (int at = 2 * (pairs + team.next()); at < blocks; at = 2 * (pairs + team.next())) {
      range(product, 0, p.rows, at, at + 2 < blocks ? at + 2 : blocks);
    }
    return;
  }
  int chunk = int(kChunkBytes / product.stride) / kRowMultiple * kRowMultiple;
  if (chunk < kRowMultiple) chunk = kRowMultiple;
  const int chunks = (p.rows + chunk - 1) / chunk;
  const int tasks_per_chunk = (blocks + kTaskBlocks - 1) / kTaskBlocks;
  for (int task = team.next(); task < chunks * tasks_per_chunk; task = team.next()) {
    const int from = task / tasks_per_chunk * chunk;
    const int first = task % tasks_per_chunk * kTaskBlocks;
    const int to = from + chunk < p.rows ? from + chunk : p.rows;
    const int last = first + kTaskBlocks < blocks ? first + kTaskBlocks : blocks;
    range(product, from, to, first, last);
  }
}

}  // namespace
