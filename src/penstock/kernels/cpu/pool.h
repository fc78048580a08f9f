// A thread pool for programs: one parallel region from the first op to the last.
//
// The caller is worker 0. A region is a sequence of phases of tasks. Who is free takes the next
// task; a phase ends when its tasks are done, whoever did them. Nobody waits for a worker that
// holds no task: one that the system has taken off its core, or that wakes up late, finds its phases
// over and catches up. So a second thread beside a busy core costs little, and nothing ever depends
// on who computed what.
//
// Waiting spins for a moment and then sleeps on a futex, with a core left idle for whoever has work.
// Workers stay awake for a bounded time after a program, because the next one usually follows.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "types.h"

namespace penstock {

struct alignas(64) Inside {  // whether a worker may be touching what the program refers to
  std::atomic<bool> flag{false};
};

struct Shared {
  alignas(64) std::atomic<uint64_t> place{0};  // the phase, and below its next task in 32 bits
  alignas(64) std::atomic<int> done{0};        // tasks of the phase
  alignas(64) std::atomic<int> sleepers{0};    // that wait for the end of the phase
  alignas(64) std::atomic<uint32_t> epoch{0};  // odd while a program is open to workers
};

class Pool {
 public:
  using Work = void (*)(void* context, Team& team);

  Pool(int threads, int spin_us);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }
  // Nanoseconds that callers have spent in `run`, waiting for their turn excluded.
  int64_t busy_ns() const { return busy_ns_.load(std::memory_order_relaxed); }
  // Runs work on the caller and on every worker that comes, and returns when all of them are out.
  // Work ends with a barrier. Calls from several threads take turns.
  void run(Work work, void* context);

 private:
  void serve(int rank);
  uint32_t wait_for(uint32_t seen);

  const int size_;
  const int spin_us_;
  Shared shared_;
  std::vector<uint8_t*> scratch_;
  std::vector<Inside> inside_;  // by rank
  std::vector<std::thread> threads_;
  std::mutex turn_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  uint32_t first_phase_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> busy_ns_{0};
  alignas(64) std::atomic<int> sleepers_{0};  // that wait for a program
};

}  // namespace penstock
