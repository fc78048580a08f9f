// Plain data that crosses between the portable code (pool, program, bindings) and the kernels,
// which are compiled once for each instruction set. No inline code of the standard library here:
// a function that two translation units share may come from the one with the wider instructions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

enum class Dtype : int { f32 = 0, bf16 = 1, i8 = 2 };
enum class Format : int { f32 = 0, bf16 = 1, int8 = 2, int4 = 3 };
enum class Epilogue : int { store = 0, add = 1, silu_mul = 2, gelu_mul = 3 };

constexpr int kBlockN = 32;      // outputs of one packed block: two AVX-512 vectors, two AMX tiles
constexpr int kRowAlign = 64;    // bytes to which a row of activations is padded with zeros
constexpr int kGroup4 = 32;      // weights that share a scale in int4
constexpr int kKeyBlock = 16;    // keys of one packed panel of the KV cache
constexpr float kLeast = 0x1p-120f;  // rows without a greater magnitude are quantized to zeros
constexpr int kMaxHeadDim = 256;
constexpr int kMaxGroup = 192;   // query heads of a KV head: a tile of them fits half the scratch
constexpr int kPartition = 512;  // keys of one attention partition, counted from position 0
constexpr size_t kScratchBytes = size_t(1) << 20;  // private memory of each worker
constexpr int kMaxK = 1 << 16;   // inputs of a linear: sums of 255 * 127 stay within 32 bits

// One worker's view of the parallel region. Defined in pool.cpp, free of vector code.
struct Shared;
struct Team {
  int rank;
  int size;
  uint8_t* scratch;  // kScratchBytes, 64-byte aligned, this worker's own
  Shared* shared;
  void barrier();  // all workers meet; also resets the counter behind next()
  int next();      // 0, 1, 2 … : hands out tasks to whoever comes first
};

// A packed weight matrix [n, k], see pack.py for the layouts.
struct Weight {
  Format format;
  int n, k;
  const uint8_t* data;
  const float* scales;            // int8: [n_pad]; int4: unused
  const uint16_t* group_scales;   // int4: fp16 [n_pad / 32][k_pad / 32][32]
  const float* bias;              // [n_pad] or null
  int parts;                      // integer formats: runs of a row that are mixed first, or 1
};

// out = epilogue(scale (prologue(x) W^T + bias)) for x [rows, k].
struct LinearArgs {
  const Weight* weight;
  const void* x;
  Dtype x_dtype;              // f32 or bf16
  int64_t x_stride;           // elements between rows
  const int64_t* x_rows;      // optional: row i of the product is row x_rows[i] of x
  const float* norm_weight;   // RMSNorm of each row first, when not null
  float norm_eps;
  Epilogue epilogue;          // silu_mul, gelu_mul: blocks hold 16 gates, then 16 ups; n / 2
                              // outputs, and no scale
  float scale;
  float softcap;              // store, c > 0: c tanh(result / c)
  void* out;
  Dtype out_dtype;            // f32 or bf16; add: f32
  int64_t out_stride;
  const int64_t* out_rows;    // optional: row i of the product goes to row out_rows[i] of out
  int rows;
  uint8_t* staging;           // staging_bytes(weight, rows), shared by the team
};

struct NormArgs {  // out (+)= x / rms(x) * weight
  const float* x;
  int64_t x_stride;
  const float* weight;
  float eps;
  bool add;
  void* out;
  Dtype out_dtype;
  int64_t out_stride;
  int rows, size;
};

struct GateArgs {  // out = act(gate) * up; x: 16 gates, then 16 ups, and so on
  const float* x;  // [rows, 2 size]
  Epilogue act;    // silu_mul or gelu_mul
  void* out;       // [rows, size]
  Dtype out_dtype;
  int64_t out_stride;
  int rows, size;
};

struct EmbedArgs {  // out[i] = table[ids[i]] (* scales[ids[i]])
  const void* table;
  Dtype dtype;
  const float* scales;  // with i8
  const int64_t* ids;
  float multiplier;
  int parts;  // runs of a row that are mixed afterwards, or 1
  float* out;
  int rows, size;
};

// Which experts a token goes to, and where: pairs (token, choice) sorted by expert.
struct Routing {
  float* weights;   // [rows, top_k], by falling probability
  int32_t* places;  // [rows, top_k]: where a pair lies among all
  int64_t* tokens;  // [rows * top_k]: whose pair it is
  int32_t* starts;  // [experts + 1]: the first pair of each expert
};

struct RouteArgs {
  const float* logits;  // [rows, experts]
  int rows, experts, top_k;
  bool normalised;  // the weights of a token sum to 1
  Routing to;
};

struct CombineArgs {  // out[i] (+)= scale sum_j weights[i][j] x[places[i][j]]
  const float* x;  // [rows * top_k, size]
  Routing from;
  int rows, top_k, size;
  float scale;
  bool add;
  float* out;
};

// The KV cache of one layer: blocks of [kv head][keys packed | values packed | scales].
struct Cache {
  uint8_t* data;
  Dtype dtype;
  int block_size, kv_heads, head_dim;
};

// Normalise (optionally), rotate and store: q into q_out, k and v into the cache.
struct RopeArgs {
  const float* qkv;  // [rows, (heads + 2 kv_heads) * head_dim]
  int64_t qkv_stride;
  const float* q_norm;  // [head_dim] or null
  const float* k_norm;
  float norm_eps;
  const float* cos;  // [positions, rotary_dim / 2]; null: no rotation
  const float* sin;
  int rotary_dim;
  const int64_t* positions;
  const int64_t* slots;  // block * block_size + offset
  float* q_out;          // [rows, heads * head_dim]
  Cache cache;
  int heads;
  int rows;
};

struct AttentionArgs {
  const float* q;  // [tokens, heads * head_dim]
  void* out;       // the same shape
  Dtype out_dtype;
  int64_t q_stride, out_stride;
  Cache cache;
  int heads;
  const int32_t* query_start;  // [rows + 1]
  const int32_t* seq_lens;     // [rows]
  const int32_t* tables;       // [rows, width]
  int width;
  int rows;
  float scale, softcap;
  int window;
  float* partials;  // attention_partial_bytes; shared by the team
  int max_units;    // partitions of queries that partials can hold
};

struct ArgmaxArgs {
  const float* logits;
  int64_t stride;
  int rows, vocab;
  int64_t* ids;       // lowest id among the greatest; -1 where a row is not finite
  float* maxima;      // NaN where a row has one
};

// One token a row by the specification in engine/draw.py. Arrays have one entry a row.
struct DrawArgs {
  const float* logits;
  int64_t stride;
  int rows, vocab;
  const double* inverse_temperature;  // 0: greedy
  const int64_t* top_k;               // 0: all
  const double* top_p;
  const double* min_p;
  const double* uniform;
  int64_t* ids;  // -1 for a row that is not finite
};

struct Isa {
  const char* name;
  void (*linear)(const LinearArgs&, Team&);
  void (*norm)(const NormArgs&, Team&);
  void (*gate)(const GateArgs&, Team&);
  void (*embed)(const EmbedArgs&, Team&);
  void (*rope)(const RopeArgs&, Team&);
  void (*attention)(const AttentionArgs&, Team&);
  void (*argmax)(const ArgmaxArgs&, Team&);
  // weights[i] = floor(2^40 e^((x[i] - top) inverse_temperature)); returns their sum.
  int64_t (*weigh)(const float* x, int n, double top, double inverse_temperature,
                   int64_t* weights);
  float (*maximum)(const float* x, int n);  // no NaN among them
  void (*argmax_row)(const float* x, int vocab, int64_t* id, float* maximum);
  void (*leave)();  // a worker calls it when its program ends
};

const Isa* isa_avx2();
const Isa* isa_avx512();
const Isa* isa_vnni();
const Isa* isa_amx();

// Bytes of one row of staged activations, and of all that a linear of `rows` rows stages.
constexpr int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

constexpr int64_t row_bytes(Format format, int k) {
  const int64_t width = format == Format::f32 ? 4 : format == Format::bf16 ? 2 : 1;
  return round_up(k * width, kRowAlign);
}

// One more line than the row has: rows at a power of two would share few sets of the L1 cache.
constexpr int64_t staged_stride(Format format, int k) { return row_bytes(format, k) + kRowAlign; }

// Beside an integer row: its scale (float) and the sums of its groups (int32).
constexpr int64_t staged_sums(Format format, int k) {
  return format == Format::int4 ? row_bytes(format, k) / kGroup4 : format == Format::int8 ? 1 : 0;
}

constexpr int64_t staging_bytes(Format format, int k, int64_t rows) {
  return round_up(rows * (staged_stride(format, k) + 4 + 4 * staged_sums(format, k)), kRowAlign);
}

}  // namespace penstock
