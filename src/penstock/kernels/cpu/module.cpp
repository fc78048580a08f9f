// The Python bindings: addresses in, no tensors. program.py keeps what they point to alive.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>

#include "cpuid.h"
#include "draw.h"
#include "pool.h"
#include "program.h"
#include "quantize.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace penstock;

namespace {

using Address = uint64_t;  // of a tensor; 0 = none

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

const Isa* isa_named(const std::string& name) {
  for (const Isa* isa : supported_isas()) {
    if (name == isa->name) return isa;
  }
  throw std::invalid_argument("this machine cannot run " + name);
}

template <class Value, class Scale, float (*quantize)(const WideMatrix&, Value*, Scale*, int)>
float quantize_with(Address w, bool bfloat16, int64_t rows, int64_t size, int64_t stride, int parts,
                    Address values, Address scales, int threads) {
  return quantize({at<const void>(w), bfloat16, rows, size, stride, parts}, at<Value>(values),
                  at<Scale>(scales), threads);
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa* isa : supported_isas()) names.emplace_back(isa->name);
  return names;
}

using Groups = std::vector<std::tuple<Address, int, Address>>;

void run(Program& program, int tokens, int rows, int wanted, Address ids, Address positions,
         Address query_start, Address seq_lens, Address wanted_rows, const Groups& groups) {
  Batch batch{tokens,
              rows,
              wanted,
              at<const int64_t>(ids),
              at<const int64_t>(positions),
              at<const int32_t>(query_start),
              at<const int32_t>(seq_lens),
              at<const int64_t>(wanted_rows),
              {}};
  for (const auto& [tables, width, slots] : groups) {
    batch.groups.push_back({at<const int32_t>(tables), width, at<const int64_t>(slots)});
  }
  nb::gil_scoped_release release;
  program.run(batch);
}

void add_linear(Program& program, std::shared_ptr<Weight> weight, Address x, int x_dtype,
                int64_t x_stride, Address norm_weight, float norm_eps, int epilogue, float scale,
                float softcap, Address out, int out_dtype, int64_t out_stride, int rows) {
  LinearArgs args{};
  args.scale = scale;
  args.softcap = softcap;
  args.x = at<void>(x);
  args.x_dtype = Dtype(x_dtype);
  args.x_stride = x_stride;
  args.norm_weight = at<const float>(norm_weight);
  args.norm_eps = norm_eps;
  args.epilogue = Epilogue(epilogue);
  args.out = at<void>(out);
  args.out_dtype = Dtype(out_dtype);
  args.out_stride = out_stride;
  program.add(LinearOp{std::move(weight), args, Rows(rows)});
}

void add_norm(Program& program, Address x, int64_t x_stride, Address weight, float eps, bool add,
              Address out, int out_dtype, int64_t out_stride, int size) {
  NormArgs args{};
  args.x = at<const float>(x);
  args.x_stride = x_stride;
  args.out_stride = out_stride;
  args.size = size;
  args.add = add;
  args.weight = at<const float>(weight);
  args.eps = eps;
  args.out = at<void>(out);
  args.out_dtype = Dtype(out_dtype);
  program.add(NormOp{args});
}

void add_embed(Program& program, std::shared_ptr<Weight> table, float multiplier, Address out) {
  if (table->format == Format::int4) throw std::invalid_argument("a table of int4");
  EmbedArgs args{};
  args.multiplier = multiplier;
  args.out = at<float>(out);
  program.add(EmbedOp{std::move(table), args});
}

Cache cache_of(Address data, int dtype, int block_size, int kv_heads, int head_dim) {
  if (block_size < 1 || block_size % kKeyBlock || head_dim < 1 || head_dim % kKeyBlock ||
      head_dim > kMaxHeadDim || kv_heads < 1) {
    throw std::invalid_argument(
        "a cache needs blocks and heads of multiples of 16, heads of 256 at most");
  }
  return Cache{at<uint8_t>(data), Dtype(dtype), block_size, kv_heads, head_dim};
}

void add_rope(Program& program, Address qkv, int heads, Address q_norm, Address k_norm,
              float norm_eps, Address cos, Address sin, int rotary_dim, Address q_out,
              const Cache& cache, int group) {
  RopeArgs args{};
  args.qkv = at<const float>(qkv);
  args.qkv_stride = int64_t(heads + 2 * cache.kv_heads) * cache.head_dim;
  args.q_norm = at<const float>(q_norm);
  args.k_norm = at<const float>(k_norm);
  args.norm_eps = norm_eps;
  args.cos = at<const float>(cos);
  args.sin = at<const float>(sin);
  args.rotary_dim = rotary_dim;
  args.q_out = at<float>(q_out);
  args.cache = cache;
  args.heads = heads;
  program.add(RopeOp{args, group});
}

void add_attention(Program& program, Address q, Address out, int out_dtype, int heads,
                   const Cache& cache, float scale, int window, float softcap, int max_len,
                   int group) {
  if (heads < 1 || heads % cache.kv_heads || heads / cache.kv_heads > kMaxGroup) {
    throw std::invalid_argument("query heads must share the KV heads evenly, 192 at most to one");
  }
  AttentionArgs args{};
  args.q = at<const float>(q);
  args.out = at<void>(out);
  args.out_dtype = Dtype(out_dtype);
  args.q_stride = args.out_stride = int64_t(heads) * cache.head_dim;
  args.cache = cache;
  args.heads = heads;
  args.scale = scale;
  args.softcap = softcap;
  args.window = window;
  const int64_t units = 4 * program.num_threads();
  const int64_t slots = units * (max_len / kPartition + 1);
  // A slot: out, sum by lane (at most 16) and maximum of each head of a group.
  const int64_t slot = int64_t(heads) / cache.kv_heads * (cache.head_dim + 17) * 4;
  program.share_partials(slots * slot);
  args.max_units = int(slots);
  program.add(AttentionOp{args, group});
}

// keys: room for vocab integers of each worker.
void draw_rows(Pool& pool, const std::string& isa, Address logits, int64_t stride, int rows,
               int vocab, Address inverse_temperature, Address top_k, Address top_p, Address min_p,
               Address uniform, Address keys, Address ids) {
  DrawArgs args{};
  args.logits = at<const float>(logits);
  args.stride = stride;
  args.rows = rows;
  args.vocab = vocab;
  args.inverse_temperature = at<const double>(inverse_temperature);
  args.top_k = at<const int64_t>(top_k);
  args.top_p = at<const double>(top_p);
  args.min_p = at<const double>(min_p);
  args.uniform = at<const double>(uniform);
  args.ids = at<int64_t>(ids);
  struct Call {
    DrawArgs args;
    const Isa* isa;
    int64_t* keys;
  } call{args, isa_named(isa), at<int64_t>(keys)};
  nb::gil_scoped_release release;
  pool.run(
      [](void* context, Team& team) {
        const auto* c = static_cast<const Call*>(context);
        draw(c->args, *c->isa, team, c->keys + int64_t(team.rank) * c->args.vocab);
        team.barrier();
      },
      &call);
}

Routing routing_of(Address weights, Address places, Address tokens, Address starts) {
  return Routing{at<float>(weights), at<int32_t>(places), at<int64_t>(tokens),
                 at<int32_t>(starts)};
}

void add_route(Program& program, Address logits, int experts, int top_k, bool normalised,
               const Routing& to) {
  if (top_k < 1 || top_k > experts) throw std::invalid_argument("top_k is not 1 to the experts");
  program.add(RouteOp{RouteArgs{at<const float>(logits), 0, experts, top_k, normalised, to}});
}

void add_experts(Program& program, std::vector<std::shared_ptr<Weight>> weights, Address x,
                 int x_dtype, int64_t x_stride, Address norm_weight, float norm_eps, int epilogue,
                 float scale, Address out, int out_dtype, int64_t out_stride,
                 const Routing& routing, bool of_tokens, bool to_tokens) {
  LinearArgs args{};
  args.x = at<void>(x);
  args.x_dtype = Dtype(x_dtype);
  args.x_stride = x_stride;
  args.norm_weight = at<const float>(norm_weight);
  args.norm_eps = norm_eps;
  args.epilogue = Epilogue(epilogue);
  args.scale = scale;
  args.out = at<void>(out);
  args.out_dtype = Dtype(out_dtype);
  args.out_stride = out_stride;
  program.add(ExpertsOp{std::move(weights), args, routing, of_tokens, to_tokens});
}

void add_gate(Program& program, Address x, int act, Address out, int out_dtype, int64_t out_stride,
              int size) {
  if (size % (kBlockN / 2)) throw std::invalid_argument("a gate needs a multiple of 16");
  GateArgs args{at<const float>(x), Epilogue(act), at<void>(out), Dtype(out_dtype), out_stride, 0,
                size};
  program.add(GateOp{args});
}

void add_combine(Program& program, Address x, const Routing& from, int top_k, int size, float scale,
                 bool add, Address out) {
  CombineArgs args{at<const float>(x), from, 0, top_k, size, scale, add, at<float>(out)};
  program.add(CombineOp{args});
}

std::vector<std::tuple<std::string, int64_t>> profile(const Program& program) {
  std::vector<std::tuple<std::string, int64_t>> found;
  for (int i = 0; i < program.num_ops(); ++i) {
    found.emplace_back(name_of(program.op(i)), program.nanoseconds[size_t(i)]);
  }
  return found;
}

void set_profiling(Program& program, bool on) {
  program.profiling = on;
  for (auto& spent : program.nanoseconds) spent = 0;
}

}  // namespace

NB_MODULE(_native, m) {
  // Programs live until the interpreter ends, often in a thread that it does not wait for.
  nb::set_leak_warnings(false);
  m.doc() = "Penstock's CPU kernels. Addresses are integers; program.py is the interface to use.";
  m.def("isas", &isas, "Names of the instruction sets that this machine runs, best last.");

  m.def("quantize_int8", &quantize_with<int8_t, float, quantize_int8>, "w"_a, "bfloat16"_a,
        "rows"_a, "size"_a, "stride"_a, "parts"_a, "values"_a, "scales"_a, "threads"_a,
        nb::call_guard<nb::gil_scoped_release>());
  m.def("quantize_int4", &quantize_with<uint8_t, uint16_t, quantize_int4>, "w"_a, "bfloat16"_a,
        "rows"_a, "size"_a, "stride"_a, "parts"_a, "values"_a, "scales"_a, "threads"_a,
        nb::call_guard<nb::gil_scoped_release>());

  nb::class_<Weight>(m, "Weight").def(
      "__init__",
      [](Weight* self, int format, int n, int k, Address data, Address scales, Address group_scales,
         Address bias, int parts) {
        if (k < 1 || k > kMaxK || n < 1) throw std::invalid_argument("a weight of this size");
        new (self) Weight{Format(format),
                          n,
                          k,
                          at<const uint8_t>(data),
                          at<const float>(scales),
                          at<const uint16_t>(group_scales),
                          at<const float>(bias),
                          parts};
      },
      "format"_a, "n"_a, "k"_a, "data"_a, "scales"_a, "group_scales"_a, "bias"_a,
      "parts"_a);

  nb::class_<Cache>(m, "Cache").def(
      "__init__",
      [](Cache* self, Address data, int dtype, int block_size, int kv_heads, int head_dim) {
        new (self) Cache(cache_of(data, dtype, block_size, kv_heads, head_dim));
      },
      "data"_a, "dtype"_a, "block_size"_a, "kv_heads"_a, "head_dim"_a);

  nb::class_<Routing>(m, "Routing")
      .def(
          "__init__",
          [](Routing* self, Address weights, Address places, Address tokens, Address starts) {
            new (self) Routing(routing_of(weights, places, tokens, starts));
          },
          "weights"_a, "places"_a, "tokens"_a, "starts"_a);

  nb::class_<Pool>(m, "Pool", nb::is_weak_referenceable())
      .def(nb::init<int, int>(), "threads"_a, "spin_us"_a)
      .def_prop_ro("threads", &Pool::size)
      .def_prop_ro("busy_ns", &Pool::busy_ns);

  m.def("draw", &draw_rows, "pool"_a, "isa"_a, "logits"_a, "stride"_a, "rows"_a, "vocab"_a,
        "inverse_temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "uniform"_a, "keys"_a, "ids"_a);

  nb::class_<Program>(m, "Program")
      .def(
          "__init__",
          [](Program* self, std::shared_ptr<Pool> pool, const std::string& isa, int max_tokens,
             int max_wanted) {
            new (self) Program(std::move(pool), isa_named(isa), max_tokens, max_wanted);
          },
          "pool"_a, "isa"_a, "max_tokens"_a, "max_wanted"_a)
      .def("linear", &add_linear, "weight"_a, "x"_a, "x_dtype"_a, "x_stride"_a, "norm_weight"_a,
           "norm_eps"_a, "epilogue"_a, "scale"_a, "softcap"_a, "out"_a, "out_dtype"_a,
           "out_stride"_a, "rows"_a)
      .def("norm", &add_norm, "x"_a, "x_stride"_a, "weight"_a, "eps"_a, "add"_a, "out"_a,
           "out_dtype"_a, "out_stride"_a, "size"_a)
      .def("embed", &add_embed, "table"_a, "multiplier"_a, "out"_a)
      .def("rope", &add_rope, "qkv"_a, "heads"_a, "q_norm"_a, "k_norm"_a, "norm_eps"_a, "cos"_a,
           "sin"_a, "rotary_dim"_a, "q_out"_a, "cache"_a, "group"_a)
      .def("attention", &add_attention, "q"_a, "out"_a, "out_dtype"_a, "heads"_a, "cache"_a,
           "scale"_a, "window"_a, "softcap"_a, "max_len"_a, "group"_a)
      .def("route", &add_route, "logits"_a, "experts"_a, "top_k"_a, "normalised"_a, "to"_a)
      .def("experts", &add_experts, "weights"_a, "x"_a, "x_dtype"_a, "x_stride"_a, "norm_weight"_a,
           "norm_eps"_a, "epilogue"_a, "scale"_a, "out"_a, "out_dtype"_a, "out_stride"_a,
           "routing"_a, "of_tokens"_a, "to_tokens"_a)
      .def("gate", &add_gate, "x"_a, "act"_a, "out"_a, "out_dtype"_a, "out_stride"_a, "size"_a)
      .def("combine", &add_combine, "x"_a, "routing"_a, "top_k"_a, "size"_a, "scale"_a, "add"_a,
           "out"_a)
      .def("run", &run, "tokens"_a, "rows"_a, "wanted"_a, "ids"_a, "positions"_a, "query_start"_a,
           "seq_lens"_a, "wanted_rows"_a, "groups"_a)
      .def("profile", &profile)
      .def("set_profiling", &set_profiling, "on"_a);
}
