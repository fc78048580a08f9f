// A thread pool for programs: one parallel region from the first op to the last.
//
// The caller is worker 0. Workers spin for a bounded time after a program, because the next one
// usually follows at once, and then sleep on a futex, so that an idle engine costs nothing. All
// spinning gives the core away (sched_yield) after a few microseconds: with more runnable threads
// than cores, whoever has work gets the core.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "types.h"

namespace penstock {

struct alignas(64) Shared {
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<uint32_t> phase{0};
  alignas(64) std::atomic<int> counter{0};
};

class Pool {
 public:
  using Work = void (*)(void* context, Team& team);

  Pool(int threads, int spin_us);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return size_; }
  // Runs work on every worker and returns when all have finished. Calls from several threads
  // take turns.
  void run(Work work, void* context);

 private:
  void serve(int rank);
  bool wait_for(uint32_t seen);

  const int size_;
  const int spin_us_;
  Shared shared_;
  std::vector<uint8_t*> scratch_;
  std::vector<std::thread> threads_;
  std::mutex turn_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> running_{0};
};

}  // namespace penstock
