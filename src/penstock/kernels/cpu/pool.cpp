#include "pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <new>

namespace penstock {
namespace {

constexpr int kPauses = 200;  // 3 to 10 microseconds, by processor, before the core is offered

template <class Done>
void spin_until(Done done) {
  for (int i = 0; !done(); ++i) {
    if (i < kPauses) {
      _mm_pause();
    } else {
      sched_yield();
    }
  }
}

void futex(std::atomic<uint32_t>* word, int op, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), op, value, nullptr, nullptr, 0);
}

}  // namespace

void Team::barrier() {
  if (size == 1) {
    shared->counter.store(0, std::memory_order_relaxed);
    return;
  }
  const uint32_t phase = shared->phase.load(std::memory_order_relaxed);
  if (shared->arrived.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
    shared->arrived.store(0, std::memory_order_relaxed);
    shared->counter.store(0, std::memory_order_relaxed);
    shared->phase.store(phase + 1, std::memory_order_release);
    return;
  }
  spin_until([&] { return shared->phase.load(std::memory_order_acquire) != phase; });
}

int Team::next() { return shared->counter.fetch_add(1, std::memory_order_relaxed); }

Pool::Pool(int threads, int spin_us) : size_(threads), spin_us_(spin_us) {
  for (int rank = 0; rank < size_; ++rank) {
    auto* memory = static_cast<uint8_t*>(std::aligned_alloc(64, kScratchBytes));
    if (memory == nullptr) throw std::bad_alloc();
    scratch_.push_back(memory);
  }
  for (int rank = 1; rank < size_; ++rank) threads_.emplace_back([this, rank] { serve(rank); });
}

Pool::~Pool() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  futex(&epoch_, FUTEX_WAKE_PRIVATE, INT32_MAX);
  for (auto& thread : threads_) thread.join();
  for (auto* memory : scratch_) std::free(memory);
}

void Pool::run(Work work, void* context) {
  std::lock_guard<std::mutex> turn(turn_);
  shared_.counter.store(0, std::memory_order_relaxed);
  Team team{0, size_, scratch_[0], &shared_};
  if (size_ > 1) {
    work_ = work;
    context_ = context;
    running_.store(size_ - 1, std::memory_order_relaxed);
    // Sequentially consistent with the sleeper's increment: one of the two sees the other.
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      futex(&epoch_, FUTEX_WAKE_PRIVATE, INT32_MAX);
    }
  }
  work(context, team);
  if (size_ > 1) spin_until([&] { return running_.load(std::memory_order_acquire) == 0; });
}

bool Pool::wait_for(uint32_t seen) {
  using Clock = std::chrono::steady_clock;
  const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
  const auto until = Clock::now() + std::chrono::microseconds(spin_us_);
  do {
    for (int i = 0; i < 64; ++i) {
      if (changed()) return !stop_;
      _mm_pause();
    }
    sched_yield();
  } while (Clock::now() < until);
  while (!changed()) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    if (!changed()) futex(&epoch_, FUTEX_WAIT_PRIVATE, seen);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }
  return !stop_;
}

void Pool::serve(int rank) {
  uint32_t seen = 0;
  while (wait_for(seen)) {
    ++seen;
    Team team{rank, size_, scratch_[rank], &shared_};
    work_(context_, team);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace penstock
