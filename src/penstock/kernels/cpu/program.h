// A model as a list of ops, recorded once and replayed for any batch in one call.
//
// Addresses are fixed when an op is recorded: its buffers hold one row a token and are sized for
// the largest batch. All workers walk the list together, with a barrier after each op.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "pool.h"
#include "types.h"

namespace penstock {

enum class Rows : int { tokens = 0, wanted = 1 };

struct Group {  // of layers that share block tables
  const int32_t* tables;  // [rows, width]
  int width;
  const int64_t* slots;  // [tokens]
};

struct Batch {
  int tokens, rows, wanted;
  const int64_t* ids;
  const int64_t* positions;
  const int32_t* query_start;
  const int32_t* seq_lens;
  const int64_t* wanted_rows;  // indices of tokens
  std::vector<Group> groups;
};

struct LinearOp {
  std::shared_ptr<Weight> weight;
  LinearArgs args;
  Rows rows;
};
struct NormOp {
  NormArgs args;
};
struct EmbedOp {
  EmbedArgs args;
};
struct RopeOp {
  RopeArgs args;
  int group;
};
struct AttentionOp {
  AttentionArgs args;
  int group;
};
struct ArgmaxOp {
  ArgmaxArgs args;
};

struct RouteOp {
  RouteArgs args;
};
struct ExpertsOp {  // a linear for each expert, over the pairs that are its own
  std::vector<std::shared_ptr<Weight>> weights;
  LinearArgs args;
  Routing routing;
  bool of_tokens, to_tokens;  // rows of x, or of out, are tokens; else pairs
};
struct GateOp {
  GateArgs args;
};
struct CombineOp {
  CombineArgs args;
};

struct DrawOp {
  DrawArgs args;
  std::shared_ptr<int64_t[]> keys;  // vocab for each worker
};

using Op = std::variant<LinearOp, NormOp, EmbedOp, RopeOp, AttentionOp, ArgmaxOp, DrawOp, RouteOp,
                        ExpertsOp, GateOp, CombineOp>;
const char* name_of(const Op& op);

class Program {
 public:
  Program(std::shared_ptr<Pool> pool, const Isa* isa, int max_tokens, int max_wanted);

  // Room for the attention ops' partitions; they share it, because no two of them run at a time.
  void share_partials(int64_t bytes);
  void add(Op op);
  // Throws std::invalid_argument for a batch larger than the buffers.
  void run(const Batch& batch);

  int max_tokens() const { return max_tokens_; }
  int max_wanted() const { return max_wanted_; }
  int num_ops() const { return int(ops_.size()); }
  int num_threads() const { return pool_->size(); }
  const Op& op(int index) const { return ops_[size_t(index)]; }

  // Nanoseconds by op, gathered by worker 0 while `profiling` is on.
  bool profiling = false;
  std::vector<int64_t> nanoseconds;

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };

  void work(const Batch& batch, Team& team);
  void run_op(const Op& op, const Batch& batch, Team& team) const;
  void run_experts(const ExpertsOp& op, Team& team) const;
  void reserve_staging(const Weight& weight, int64_t rows);

  std::shared_ptr<Pool> pool_;
  const Isa* isa_;
  int max_tokens_, max_wanted_;
  std::vector<Op> ops_;
  std::unique_ptr<uint8_t, Free> staging_;
  int64_t staging_size_ = 0;
  std::unique_ptr<uint8_t, Free> partials_;
  int64_t partials_size_ = 0;
};

}  // namespace penstock
