#include "program.h"

#include <chrono>
#include <new>
#include <stdexcept>

#include "draw.h"
#include "moe.h"

namespace penstock {
namespace {

uint8_t* allocate(int64_t bytes) {
  auto* memory = static_cast<uint8_t*>(std::aligned_alloc(64, size_t(round_up(bytes + 64, 64))));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

}  // namespace

const char* name_of(const Op& op) {
  constexpr const char* names[] = {"linear", "norm", "embed", "rope", "attention", "argmax",
                                   "draw",   "route", "experts", "gate", "combine"};
  return names[op.index()];
}

Program::Program(std::shared_ptr<Pool> pool, const Isa* isa, int max_tokens, int max_wanted)
    : pool_(std::move(pool)), isa_(isa), max_tokens_(max_tokens), max_wanted_(max_wanted) {}

void Program::share_partials(int64_t bytes) {
  if (bytes > partials_size_) {
    partials_.reset(allocate(bytes));
    partials_size_ = bytes;
  }
}

void Program::reserve_staging(const Weight& weight, int64_t rows) {
  const int64_t size = staging_bytes(weight.format, weight.k, rows);
  if (size > staging_size_) {
    staging_.reset(allocate(size));
    staging_size_ = size;
  }
}

void Program::add(Op op) {
  if (auto* linear = std::get_if<LinearOp>(&op)) {
    reserve_staging(*linear->weight, linear->rows == Rows::tokens ? max_tokens_ : max_wanted_);
    linear->args.weight = linear->weight.get();
  } else if (auto* experts = std::get_if<ExpertsOp>(&op)) {
    // An expert has each token once at most.
    for (const auto& weight : experts->weights) reserve_staging(*weight, max_tokens_);
  }
  ops_.push_back(std::move(op));
  nanoseconds.push_back(0);
}

void Program::run(const Batch& batch) {
  if (batch.tokens > max_tokens_ || batch.wanted > max_wanted_) {
    throw std::invalid_argument("the batch is larger than the program's buffers");
  }
  struct Call {
    Program* program;
    const Batch* batch;
  } call{this, &batch};
  pool_->run(
      [](void* context, Team& team) {
        auto* c = static_cast<Call*>(context);
        c->program->work(*c->batch, team);
      },
      &call);
}

void Program::work(const Batch& batch, Team& team) {
  const bool clock = profiling && team.rank == 0;
  int64_t before = clock ? now_ns() : 0;
  for (size_t i = 0; i < ops_.size(); ++i) {
    run_op(ops_[i], batch, team);
    team.barrier();
    if (clock) {
      const int64_t after = now_ns();
      nanoseconds[i] += after - before;
      before = after;
    }
  }
  isa_->leave();
}

void Program::run_op(const Op& op, const Batch& batch, Team& team) const {
  if (const auto* linear = std::get_if<LinearOp>(&op)) {
    LinearArgs args = linear->args;
    args.rows = batch.tokens;
    args.staging = staging_.get();
    if (linear->rows == Rows::wanted) {
      args.rows = batch.wanted;
      args.x_rows = batch.wanted_rows;
    }
    isa_->linear(args, team);
  } else if (const auto* norm = std::get_if<NormOp>(&op)) {
    NormArgs args = norm->args;
    args.rows = batch.tokens;
    isa_->norm(args, team);
  } else if (const auto* embed = std::get_if<EmbedOp>(&op)) {
    EmbedArgs args = embed->args;
    args.rows = batch.tokens;
    args.ids = batch.ids;
    isa_->embed(args, team);
  } else if (const auto* rope = std::get_if<RopeOp>(&op)) {
    RopeArgs args = rope->args;
    args.rows = batch.tokens;
    args.positions = batch.positions;
    args.slots = batch.groups[size_t(rope->group)].slots;
    isa_->rope(args, team);
  } else if (const auto* attention = std::get_if<AttentionOp>(&op)) {
    AttentionArgs args = attention->args;
    const Group& group = batch.groups[size_t(attention->group)];
    args.query_start = batch.query_start;
    args.seq_lens = batch.seq_lens;
    args.tables = group.tables;
    args.width = group.width;
    args.rows = batch.rows;
    args.partials = reinterpret_cast<float*>(partials_.get());
    isa_->attention(args, team);
  } else if (const auto* argmax = std::get_if<ArgmaxOp>(&op)) {
    ArgmaxArgs args = argmax->args;
    args.rows = batch.wanted;
    isa_->argmax(args, team);
  } else if (const auto* op_draw = std::get_if<DrawOp>(&op)) {
    DrawArgs args = op_draw->args;
    args.rows = batch.wanted;
    draw(args, *isa_, team, op_draw->keys.get() + int64_t(team.rank) * args.vocab);
  } else if (const auto* op_route = std::get_if<RouteOp>(&op)) {
    RouteArgs args = op_route->args;
    args.rows = batch.tokens;
    route(args, team);
  } else if (const auto* experts = std::get_if<ExpertsOp>(&op)) {
    run_experts(*experts, team);
  } else if (const auto* op_gate = std::get_if<GateOp>(&op)) {
    GateArgs args = op_gate->args;
    args.rows = batch.tokens;
    isa_->gate(args, team);
  } else if (const auto* op_combine = std::get_if<CombineOp>(&op)) {
    CombineArgs args = op_combine->args;
    args.rows = batch.tokens;
    combine(args, team);
  }
}

void Program::run_experts(const ExpertsOp& op, Team& team) const {
  const int64_t x_row = op.args.x_stride * (op.args.x_dtype == Dtype::f32 ? 4 : 2);
  const int64_t out_row = op.args.out_stride * (op.args.out_dtype == Dtype::f32 ? 4 : 2);
  for (size_t expert = 0; expert < op.weights.size(); ++expert) {
    const int64_t first = op.routing.starts[expert];
    LinearArgs args = op.args;
    args.rows = int(op.routing.starts[expert + 1] - first);
    if (args.rows == 0) continue;
    args.weight = op.weights[expert].get();
    args.staging = staging_.get();
    if (op.of_tokens) {
      args.x_rows = op.routing.tokens + first;
    } else {
      args.x = static_cast<const uint8_t*>(args.x) + first * x_row;
    }
    if (op.to_tokens) {
      args.out_rows = op.routing.tokens + first;
    } else {
      args.out = static_cast<uint8_t*>(args.out) + first * out_row;
    }
    isa_->linear(args, team);
    team.barrier();
  }
}

}  // namespace penstock
