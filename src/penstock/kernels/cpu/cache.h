// The KV cache: where a key and a value lie, and the kernel that writes them.
//
// A block holds, for each KV head in turn,
//   keys    [block_size / 16][head_dim / u][16 keys][u dims]   u = 1 (f32), 2 (bf16, i8)
//   values  [block_size / p][head_dim][p keys]                 p = 1 (f32, i8), 2 (bf16)
//   scales  keys [block_size] f32, values [block_size] f32     i8 only
// so that 16 keys fill a vector without any shuffling, and so do the pairs that a bf16 dot product
// of probabilities and values reads.
#pragma once

namespace {

struct HeadBlock {  // one KV head's part of one block
  uint8_t* keys;
  uint8_t* values;
  float* key_scales;
  float* value_scales;
};

inline HeadBlock head_block(const Cache& c, int64_t block, int head) {
  const int64_t width = c.dtype == Dtype::f32 ? 4 : c.dtype == Dtype::bf16 ? 2 : 1;
  const int64_t part = int64_t(c.block_size) * c.head_dim * width;
  const int64_t scales = c.dtype == Dtype::i8 ? int64_t(c.block_size) * 4 : 0;
  uint8_t* at = c.data + (block * c.kv_heads + head) * 2 * (part + scales);
  float* s = reinterpret_cast<float*>(at + 2 * part);
  return {at, at + part, s, s + c.block_size};
}

// Symmetric int8 of a row; returns its scale.
inline float quantize_head(const float* x, int size, int8_t* q) {
  I greatest = izero();
  for (int i = 0; i < size; i += W) {
    greatest = imax(greatest, as_int(vabs(load_any(x, Dtype::f32, i, size - i))));
  }
  const int32_t bits = ireduce_max(greatest);
  float amax;
  __builtin_memcpy(&amax, &bits, 4);
  const F inverse = splat(amax > kLeast ? 127.0f / amax : 0.0f);
  for (int i = 0; i < size; i += W) {
    store_i8(q + i, to_int(mul(load_any(x, Dtype::f32, i, size - i), inverse)));
  }
  return amax / 127.0f;
}

inline void write_key(const Cache& c, const float* k, int64_t slot, int head) {
  const HeadBlock to = head_block(c, slot / c.block_size, head);
  const int offset = int(slot % c.block_size);
  const int lane = offset % kKeyBlock;
  const int64_t panel = int64_t(offset / kKeyBlock) * kKeyBlock * c.head_dim;
  if (c.dtype == Dtype::f32) {
    float* at = reinterpret_cast<float*>(to.keys) + panel + lane;
    for (int d = 0; d < c.head_dim; ++d) at[int64_t(d) * kKeyBlock] = k[d];
  } else if (c.dtype == Dtype::bf16) {
    uint16_t* at = reinterpret_cast<uint16_t*>(to.keys) + panel + lane * 2;
    uint16_t row[kMaxHeadDim + W];
    for (int d = 0; d < c.head_dim; d += W) store_bf16(row + d, load(k + d));
    for (int d = 0; d < c.head_dim; d += 2) __builtin_memcpy(at + int64_t(d) * kKeyBlock, row + d, 4);
  } else {
    int8_t* at = reinterpret_cast<int8_t*>(to.keys) + panel + lane * 2;
    int8_t row[kMaxHeadDim + W];
    to.key_scales[offset] = quantize_head(k, c.head_dim, row);
    for (int d = 0; d < c.head_dim; d += 2) __builtin_memcpy(at + int64_t(d) * kKeyBlock, row + d, 2);
  }
}

inline void write_value(const Cache& c, const float* v, int64_t slot, int head) {
  const HeadBlock to = head_block(c, slot / c.block_size, head);
  const int offset = int(slot % c.block_size);
  if (c.dtype == Dtype::f32) {
    float* at = reinterpret_cast<float*>(to.values) + int64_t(offset) * c.head_dim;
    for (int d = 0; d < c.head_dim; ++d) at[d] = v[d];
  } else if (c.dtype == Dtype::bf16) {
    uint16_t* at = reinterpret_cast<uint16_t*>(to.values) + int64_t(offset / 2) * c.head_dim * 2;
    uint16_t row[kMaxHeadDim + W];
    for (int d = 0; d < c.head_dim; d += W) store_bf16(row + d, load(v + d));
    for (int d = 0; d < c.head_dim; ++d) at[d * 2 + offset % 2] = row[d];
  } else {
    int8_t row[kMaxHeadDim + W];
    to.value_scales[offset] = quantize_head(v, c.head_dim, row);
    __builtin_memcpy(to.values + int64_t(offset) * c.head_dim, row, size_t(c.head_dim));
  }
}

// x[0 .. size) with its first rotary_dim elements turned: the halves are the two coordinates.
inline void rotate(float* x, const float* cos, const float* sin, int rotary_dim) {
  const int half = rotary_dim / 2;
  for (int i = 0; i < half; i += W) {
    const int n = half - i;
    const F a = load_any(x, Dtype::f32, i, n), b = load_any(x, Dtype::f32, half + i, n);
    const F c = load_any(cos, Dtype::f32, i, n), s = load_any(sin, Dtype::f32, i, n);
    store_any(x, Dtype::f32, i, sub(mul(a, c), mul(b, s)), n);
    store_any(x, Dtype::f32, half + i, add(mul(b, c), mul(a, s)), n);
  }
}

constexpr int kTaskHeads = 32;

inline void rope(const RopeArgs& p, Team& team) {
  const int dim = p.cache.head_dim;
  const int all = p.heads + 2 * p.cache.kv_heads;
  const int keys = p.heads, values = p.heads + p.cache.kv_heads;
  alignas(64) float x[kMaxHeadDim + W] = {};
  divide(team, p.rows * all, kTaskHeads, [&](int item) {
    const int row = item / all, head = item % all;
    const float* source = p.qkv + row * p.qkv_stride + int64_t(head) * dim;
    if (head >= values) {
      for (int d = 0; d < dim; ++d) x[d] = source[d];
      write_value(p.cache, x, p.slots[row], head - values);
      return;
    }
    const float* weight = head < keys ? p.q_norm : p.k_norm;
    if (weight) {
      const F factor = splat(inverse_rms(source, Dtype::f32, 0, dim, p.norm_eps));
      for (int d = 0; d < dim; d += W) {
        const F v = mul(load_any(source, Dtype::f32, d, dim - d), factor);
        store_any(x, Dtype::f32, d, mul(v, load_any(weight, Dtype::f32, d, dim - d)), dim - d);
      }
    } else {
      for (int d = 0; d < dim; ++d) x[d] = source[d];
    }
    if (p.cos) {
      const int64_t at = p.positions[row] * (p.rotary_dim / 2);
      rotate(x, p.cos + at, p.sin + at, p.rotary_dim);
    }
    if (head < keys) {
      float* out = p.q_out + (int64_t(row) * p.heads + head) * dim;
      for (int d = 0; d < dim; ++d) out[d] = x[d];
    } else {
      write_key(p.cache, x, p.slots[row], head - keys);
    }
  });
}

}  // namespace
