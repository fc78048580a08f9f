// Paged attention: sequences cut into tiles of queries and partitions of keys, split over keys for
// long sequences (Flash-Decoding 2023).
//
// Batch invariance: keys are taken in steps of 64 within partitions of 512, both counted from
// position 0 of the sequence; partitions are merged in order. So chunks of a prompt, other rows,
// threads and the choice of blocks change no bit.
#pragma once

#include "attention_step.h"

namespace {

constexpr int kTileRows = 48;  // queries times heads of a group that share the keys they read

struct Unit {  // queries [first_query, first_query + queries) of a row, one KV head
  int row, head;
  int first_query, queries;
  int64_t first_key, last_key;  // keys that any of them sees: [first_key, last_key)
};

inline int group_of(const AttentionArgs& p) { return p.heads / p.cache.kv_heads; }

inline int tile_queries(const AttentionArgs& p) {
  const int queries = kTileRows / group_of(p);
  return queries < 1 ? 1 : queries;
}

inline Unit unit_at(const AttentionArgs& p, int row, int index) {
  const int queries = p.query_start[row + 1] - p.query_start[row];
  const int size = tile_queries(p);
  const int tiles = (queries + size - 1) / size;
  Unit u{row, index / tiles, 0, 0, 0, 0};
  u.first_query = (tiles - 1 - index % tiles) * size;  // the longest first
  u.queries = queries - u.first_query < size ? queries - u.first_query : size;
  const int64_t position = p.seq_lens[row] - queries + u.first_query;
  u.last_key = position + u.queries;
  u.first_key = p.window > 0 && position >= p.window ? position - p.window + 1 : 0;
  return u;
}

inline int units_of(const AttentionArgs& p, int row) {
  const int queries = p.query_start[row + 1] - p.query_start[row];
  const int size = tile_queries(p);
  return (queries + size - 1) / size * p.cache.kv_heads;
}

// Carves a tile out of a worker's scratch memory.
struct Carver {
  uint8_t* at;
  template <class T>
  T* take(int64_t count) {
    T* found = reinterpret_cast<T*>(at);
    at += round_up(count * int64_t(sizeof(T)), 64);
    return found;
  }
};

template <class T>
Tile load_tile(const AttentionArgs& p, const Unit& u, uint8_t* scratch) {
  const int group = group_of(p), dim = p.cache.head_dim;
  Carver carver{scratch};
  Tile t;
  t.rows = u.queries * group;
  t.dim = dim;
  t.q_stride = int64_t(dim) * 4 / T::kDims;
  t.q = carver.take<uint8_t>(t.rows * t.q_stride);
  t.q_scale = carver.take<float>(t.rows);
  t.scores = carver.take<float>(int64_t(t.rows) * kStepKeys);
  t.out = carver.take<float>(int64_t(t.rows) * dim);
  t.maximum = carver.take<float>(t.rows + W);
  t.sum = carver.take<float>(int64_t(t.rows) * W);
  t.alpha = carver.take<float>(t.rows + W);
  t.position = carver.take<int64_t>(t.rows);
  const int start = p.query_start[u.row];
  const int64_t position = u.last_key - u.queries;
  for (int i = 0; i < t.rows; ++i) {
    const int query = u.first_query + i / group;
    const float* q = p.q + (start + query) * p.q_stride +
                     (int64_t(u.head) * group + i % group) * dim;
    t.position[i] = position + i / group;
    uint8_t* to = t.q + i * t.q_stride;
    if (T::kKeysPerWord == 2) {
      for (int d = 0; d < dim; d += W) store_bf16(reinterpret_cast<uint16_t*>(to) + d, load(q + d));
    } else if (T::kDims == 1) {
      for (int d = 0; d < dim; d += W) store(reinterpret_cast<float*>(to) + d, load(q + d));
    } else {
      I greatest = izero();
      for (int d = 0; d < dim; d += W) greatest = imax(greatest, as_int(vabs(load(q + d))));
      const int32_t bits = ireduce_max(greatest);
      float amax;
      __builtin_memcpy(&amax, &bits, 4);
      const float inverse = amax > kLeast ? 32767.0f / amax : 0.0f;
      for (int d = 0; d < dim; d += W) {
        store_i16(reinterpret_cast<int16_t*>(to) + d, to_int(mul(load(q + d), splat(inverse))));
      }
      t.q_scale[i] = amax / 32767.0f;
    }
  }
  return t;
}

inline void clear(const Tile& t) {
  for (int i = 0; i < t.rows * t.dim; i += W) store(t.out + i, zero());
  for (int i = 0; i < t.rows; ++i) {
    store(t.sum + i * W, zero());
    t.maximum[i] = kNone;
  }
}

// The panels of the step at `first`, for keys [from, to); returns their number.
inline int panels_at(const AttentionArgs& p, int row, int head, int64_t first, int64_t from,
                     int64_t to, Panel* panels) {
  const int32_t* table = p.tables + int64_t(row) * p.width;
  const Cache& c = p.cache;
  const int64_t width = c.dtype == Dtype::f32 ? 4 : c.dtype == Dtype::bf16 ? 2 : 1;
  int count = 0;
  for (int64_t key = first; key < first + kStepKeys && key < to; key += kKeyBlock) {
    // A window may have freed the blocks before `from`: their keys are masked, so that any
    // block that exists may stand in, with no key that counts.
    const bool gone = key + kKeyBlock <= from;
    const int64_t real = gone ? from : key;
    const HeadBlock b = head_block(c, table[real / c.block_size], head);
    const int64_t offset = real % c.block_size / kKeyBlock * kKeyBlock;
    const int64_t at = offset * c.head_dim * width;
    const int64_t left = to - key;
    panels[count++] = {b.keys + at, b.values + at, b.key_scales + offset, b.value_scales + offset,
                       gone ? 0 : int(left < kKeyBlock ? left : kKeyBlock)};
  }
  return count;
}

// The tile over keys [from, to) of one partition.
template <class T>
void walk(const AttentionArgs& p, const Unit& u, const Tile& t, int64_t from, int64_t to) {
  clear(t);
  Panel panels[2][kStepPanels];  // of this step and the next
  int64_t first = from / kStepKeys * kStepKeys;
  int count = panels_at(p, u.row, u.head, first, from, to, panels[0]);
  for (int turn = 0; first < to; first += kStepKeys, turn ^= 1) {
    Panel* next = panels[turn ^ 1];
    const int64_t after = first + kStepKeys;
    int more = 0;
    if (after < to) {
      more = panels_at(p, u.row, u.head, after, from, to, next);
    } else if (u.head + 1 < p.cache.kv_heads) {  // likely the next unit
      more = panels_at(p, u.row, u.head + 1, from / kStepKeys * kStepKeys, from, to, next);
    }
    const bool ahead = more >= count;
    step<T>(p, t, panels[turn], ahead ? next : nullptr, count, first);
    count = more;
  }
}

// A finished partition, or several merged: out [rows][dim], maximum [rows], sum [rows].
struct Partial {
  float* out;
  float* maximum;
  float* sum;
};

inline void merge(const Partial& into, const Tile& t, bool first) {
  for (int r = 0; r < t.rows; ++r) {
    const float sum = reduce_add(load(t.sum + r * W));
    float* out = into.out + int64_t(r) * t.dim;
    const float* from = t.out + int64_t(r) * t.dim;
    if (first) {
      for (int d = 0; d < t.dim; d += W) store(out + d, load(from + d));
      into.maximum[r] = t.maximum[r];
      into.sum[r] = sum;
      continue;
    }
    const float old = into.maximum[r], top = t.maximum[r] > old ? t.maximum[r] : old;
    const F a = vexp(splat(old - top)), b = vexp(splat(t.maximum[r] - top));
    for (int d = 0; d < t.dim; d += W) {
      store(out + d, fma(load(from + d), b, mul(load(out + d), a)));
    }
    float scales[2][W];
    store(scales[0], a);
    store(scales[1], b);
    into.sum[r] = into.sum[r] * scales[0][0] + sum * scales[1][0];
    into.maximum[r] = top;
  }
}

inline void write_out(const AttentionArgs& p, const Unit& u, const Partial& result) {
  const int group = group_of(p), dim = p.cache.head_dim;
  for (int i = 0; i < u.queries * group; ++i) {
    const int64_t token = p.query_start[u.row] + u.first_query + i / group;
    const int64_t at = token * p.out_stride + (int64_t(u.head) * group + i % group) * dim;
    const F factor = splat(1.0f / result.sum[i]);
    for (int d = 0; d < dim; d += W) {
      store_any(p.out, p.out_dtype, at + d, mul(load(result.out + int64_t(i) * dim + d), factor), W);
    }
  }
}

constexpr int64_t kHalfScratch = kScratchBytes / 2;

// A whole unit by one worker: partitions one after another.
template <class T>
void whole_unit(const AttentionArgs& p, const Unit& u, Team& team) {
  const Tile t = load_tile<T>(p, u, team.scratch);
  Carver carver{team.scratch + kHalfScratch};
  Partial result;
  result.out = carver.take<float>(int64_t(t.rows) * t.dim);
  result.maximum = carver.take<float>(t.rows);
  result.sum = carver.take<float>(t.rows);
  bool first = true;
  for (int64_t at = u.first_key; at < u.last_key; at = (at / kPartition + 1) * kPartition) {
    const int64_t end = (at / kPartition + 1) * kPartition;
    walk<T>(p, u, t, at, end < u.last_key ? end : u.last_key);
    merge(result, t, first);
    first = false;
  }
  write_out(p, u, result);
}

inline int partitions_of(const Unit& u) {
  return int((u.last_key - 1) / kPartition - u.first_key / kPartition + 1);
}

// The index-th unit where all rows have one query.
inline Unit single_at(const AttentionArgs& p, int index) {
  return unit_at(p, index / p.cache.kv_heads, index % p.cache.kv_heads);
}

// Few rows with one query each and many keys: a task is one partition. Each partition leaves its
// unmerged state; after a barrier every unit is merged as whole_unit would.
template <class T>
void split_units(const AttentionArgs& p, int units, int slots, Team& team) {
  const int group = group_of(p), dim = p.cache.head_dim;
  const int64_t slot_floats = int64_t(group) * (dim + W + 1);
  int base = 0, unit = 0;
  Unit u = unit_at(p, 0, 0);
  for (int task = team.next(slots); task >= 0; task = team.next(slots)) {
    while (task >= base + partitions_of(u)) {
      base += partitions_of(u);
      ++unit;
      u = single_at(p, unit);
    }
    const Tile t = load_tile<T>(p, u, team.scratch);
    const int64_t part = u.first_key / kPartition + task - base;
    const int64_t from = part * kPartition > u.first_key ? part * kPartition : u.first_key;
    const int64_t end = (part + 1) * kPartition;
    walk<T>(p, u, t, from, end < u.last_key ? end : u.last_key);
    float* slot = p.partials + task * slot_floats;
    __builtin_memcpy(slot, t.out, sizeof(float) * size_t(group * dim));
    __builtin_memcpy(slot + group * dim, t.sum, sizeof(float) * size_t(group * W));
    __builtin_memcpy(slot + group * (dim + W), t.maximum, sizeof(float) * size_t(group));
  }
  if (!team.barrier()) return;
  for (int task = team.next(units); task >= 0; task = team.next(units)) {
    base = 0;
    for (int i = 0; i < task; ++i) base += partitions_of(single_at(p, i));
    const Unit v = single_at(p, task);
    Carver carver{team.scratch};
    Partial result;
    result.out = carver.take<float>(int64_t(group) * dim);
    result.maximum = carver.take<float>(group);
    result.sum = carver.take<float>(group);
    for (int part = 0; part < partitions_of(v); ++part) {
      float* slot = p.partials + (base + part) * slot_floats;
      Tile t{};
      t.rows = group;
      t.dim = dim;
      t.out = slot;
      t.sum = slot + group * dim;
      t.maximum = slot + group * (dim + W);
      merge(result, t, part == 0);
    }
    write_out(p, v, result);
  }
}

template <class T>
void attend(const AttentionArgs& p, Team& team) {
  int units = 0, slots = 0;
  bool single = true;
  for (int row = 0; row < p.rows; ++row) {
    units += units_of(p, row);
    single = single && p.query_start[row + 1] - p.query_start[row] == 1;
  }
  if (single && team.size > 1 && units < 4 * team.size) {
    for (int i = 0; i < units; ++i) slots += partitions_of(single_at(p, i));
    if (slots > units && slots <= p.max_units) return split_units<T>(p, units, slots, team);
  }
  int row = 0, base = 0;
  for (int task = team.next(units); task >= 0; task = team.next(units)) {
    while (task >= base + units_of(p, row)) base += units_of(p, row++);
    whole_unit<T>(p, unit_at(p, row, task - base), team);
  }
}

inline void attention(const AttentionArgs& p, Team& team) {
#ifdef PENSTOCK_AMX
  // By the cache alone, so that all queries take the same way.
  if (p.cache.head_dim % 32 == 0) {
    if (p.cache.dtype == Dtype::bf16) return attend<KvBf16Tiles>(p, team);
    if (p.cache.dtype == Dtype::i8) return attend<KvI8Tiles>(p, team);
  }
#endif
  switch (p.cache.dtype) {
    case Dtype::f32:
      return attend<KvF32>(p, team);
    case Dtype::bf16:
      return attend<KvBf16>(p, team);
    case Dtype::i8:
      return attend<KvI8>(p, team);
  }
}

}  // namespace
