#include "pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <new>

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::microseconds(50);  // longer than an op's tasks are apart
// A core that falls idle fetches a waiting thread from a busy one, if that has not run for a while:
// so a worker that holds a task and lost its core gets this one, if it is offered repeatedly.
constexpr timespec kNap{0, 100'000};

// Whether done() came true within `limit`. polite: others may have the core meanwhile.
template <class Done>
bool spin(Done done, Clock::duration limit, bool polite = false) {
  const auto until = Clock::now() + limit;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      _mm_pause();
    }
    if (polite) sched_yield();
  } while (Clock::now() < until);
  return false;
}

void futex(void* word, int op, uint32_t value, const timespec* timeout = nullptr) {
  syscall(SYS_futex, word, op, value, timeout, nullptr, 0);
}

uint32_t phase_of(uint64_t place) { return uint32_t(place >> 32); }

// The half of `place` that holds the phase, for a futex: x86 is little-endian.
void* phase_word(Shared& shared) { return reinterpret_cast<uint32_t*>(&shared.place) + 1; }

// Sequentially consistent with a sleeper's increment: one of the two sees the other.
void begin_phase(Shared& shared, uint32_t phase) {
  shared.place.store(uint64_t(phase) << 32, std::memory_order_seq_cst);
  if (shared.sleepers.load(std::memory_order_seq_cst) > 0) {
    futex(phase_word(shared), FUTEX_WAKE_PRIVATE, INT32_MAX);
  }
}

void wait_for_end(Shared& shared, uint32_t phase) {
  const auto over = [&] { return phase_of(shared.place.load(std::memory_order_seq_cst)) != phase; };
  if (spin(over, kSpin)) return;
  shared.sleepers.fetch_add(1, std::memory_order_seq_cst);
  while (!over()) futex(phase_word(shared), FUTEX_WAIT_PRIVATE, phase, &kNap);
  shared.sleepers.fetch_sub(1, std::memory_order_relaxed);
}

// A worker may touch what a program refers to while it is inside. The one that closes a program
// and the one that enters write first and read then: one of the two sees the other.
bool enter(Shared& shared, Inside& inside, uint32_t epoch) {
  inside.flag.store(true, std::memory_order_seq_cst);
  if (shared.epoch.load(std::memory_order_seq_cst) == epoch) return true;
  inside.flag.store(false, std::memory_order_release);
  return false;
}

}  // namespace

int Team::next(int tasks) {
  if (size == 1) return taken < tasks ? taken++ : -1;
  if (holding) {
    holding = false;
    if (shared->done.fetch_add(1, std::memory_order_acq_rel) + 1 == tasks) {
      shared->done.store(0, std::memory_order_relaxed);
      begin_phase(*shared, phase + 1);
      return -1;
    }
  }
  uint64_t place = shared->place.load(std::memory_order_acquire);
  while (phase_of(place) == phase && int64_t(uint32_t(place)) < tasks) {
    if (shared->place.compare_exchange_weak(place, place + 1, std::memory_order_acq_rel)) {
      holding = true;
      return int(uint32_t(place));
    }
  }
  if (tasks == 0 && rank == 0 && phase_of(place) == phase) {  // nobody will finish one
    begin_phase(*shared, phase + 1);
  }
  return -1;
}

bool Team::barrier() {
  if (size == 1) {
    taken = 0;
    return true;
  }
  if (out) return false;
  if (phase_of(shared->place.load(std::memory_order_acquire)) == phase) {
    if (rank == 0) {
      wait_for_end(*shared, phase);
    } else {
      inside->flag.store(false, std::memory_order_release);
      wait_for_end(*shared, phase);
      out = !enter(*shared, *inside, epoch);
    }
  }
  ++phase;
  return !out;
}

Pool::Pool(int threads, int spin_us) : size_(threads), spin_us_(spin_us), inside_(size_t(threads)) {
  for (int rank = 0; rank < size_; ++rank) {
    auto* memory = static_cast<uint8_t*>(std::aligned_alloc(64, kScratchBytes));
    if (memory == nullptr) throw std::bad_alloc();
    scratch_.push_back(memory);
  }
  for (int rank = 1; rank < size_; ++rank) threads_.emplace_back([this, rank] { serve(rank); });
}

Pool::~Pool() {
  stop_ = true;
  shared_.epoch.fetch_add(2, std::memory_order_seq_cst);
  futex(&shared_.epoch, FUTEX_WAKE_PRIVATE, INT32_MAX);
  for (auto& thread : threads_) thread.join();
  for (auto* memory : scratch_) std::free(memory);
}

void Pool::run(Work work, void* context) {
  std::lock_guard<std::mutex> turn(turn_);
  const auto began = Clock::now();
  first_phase_ = phase_of(shared_.place.load(std::memory_order_relaxed));
  Team team{.rank = 0, .size = size_, .scratch = scratch_[0], .shared = &shared_};
  team.phase = first_phase_;
  if (size_ > 1) {
    work_ = work;
    context_ = context;
    // Sequentially consistent with the sleeper's increment: one of the two sees the other.
    shared_.epoch.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      futex(&shared_.epoch, FUTEX_WAKE_PRIVATE, INT32_MAX);
    }
  }
  work(context, team);
  if (size_ > 1) {
    shared_.epoch.fetch_add(1, std::memory_order_seq_cst);
    for (Inside& worker : inside_) {
      const auto left = [&] { return !worker.flag.load(std::memory_order_seq_cst); };
      while (!spin(left, kSpin, true)) {
      }
    }
  }
  busy_ns_ += (Clock::now() - began) / std::chrono::nanoseconds(1);
}

// The next program after `seen`; 0 to stop.
uint32_t Pool::wait_for(uint32_t seen) {
  uint32_t epoch = 0;
  const auto open = [&] {
    epoch = shared_.epoch.load(std::memory_order_seq_cst);
    return (epoch % 2 == 1 && epoch != seen) || stop_.load(std::memory_order_relaxed);
  };
  if (!spin(open, std::chrono::microseconds(spin_us_), true)) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (!open()) futex(&shared_.epoch, FUTEX_WAIT_PRIVATE, epoch);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }
  return stop_ ? 0 : epoch;
}

void Pool::serve(int rank) {
  Inside& inside = inside_[size_t(rank)];
  uint32_t seen = 0;
  while ((seen = wait_for(seen)) != 0) {
    if (!enter(shared_, inside, seen)) continue;
    Team team{.rank = rank, .size = size_, .scratch = scratch_[size_t(rank)], .shared = &shared_};
    team.inside = &inside;
    team.epoch = seen;
    team.phase = first_phase_;
    work_(context_, team);
    inside.flag.store(false, std::memory_order_release);
  }
}

}  // namespace penstock
