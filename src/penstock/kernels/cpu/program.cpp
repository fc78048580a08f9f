#include "program.h"

#include <chrono>
#include <new>
#include <stdexcept>

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
  constexpr const char* names[] = {"linear", "norm", "embed", "rope", "attention"};
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

void Program::add(Op op) {
  if (auto* linear = std::get_if<LinearOp>(&op)) {
    const Weight& w = *linear->weight;
    const int64_t rows = linear->rows == Rows::tokens ? max_tokens_ : max_wanted_;
    const int64_t size = staging_bytes(w.format, w.k, rows);
    if (size > staging_size_) {
      staging_.reset(allocate(size));
      staging_size_ = size;
    }
    linear->args.weight = linear->weight.get();
  } else if (auto* embed = std::get_if<EmbedOp>(&op)) {
    embed->args.table = embed->table.get();
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
  const Isa* const isa = isa_;  // who comes too late may find no program any more
  const bool clock = profiling && team.rank == 0;
  int64_t before = clock ? now_ns() : 0;
  const size_t count = ops_.size();
  for (size_t i = 0; i < count; ++i) {
    run_op(ops_[i], batch, team);
    if (!team.barrier()) break;
    if (clock) {
      const int64_t after = now_ns();
      nanoseconds[i] += after - before;
      before = after;
    }
  }
  isa->leave();
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
  }
}

}  // namespace penstock
