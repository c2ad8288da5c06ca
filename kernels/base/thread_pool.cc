#include "kernels/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

namespace lacuna {
namespace {

// Waits until done(), for at most kSpin; returns done(). Short against the time slice of a kernel
// scheduler, long against the pause between two jobs of one step.
template <class Done>
bool SpinUntil(Done done) {
  constexpr auto kSpin = std::chrono::microseconds(50);
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      __builtin_ia32_pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : threads_(std::max(threads, 1)), spin_(threads_ <= AvailableCpus()) {
  workers_.reserve(threads_ - 1);
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { WorkerLoop(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  StartJob();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(absl::FunctionRef<void(int)> body) {
  if (threads_ == 1) {
    body(0);
    return;
  }
  body_ = &body;
  pending_.store(threads_ - 1);
  StartJob();
  body(0);
  const auto done = [this] { return pending_.load(std::memory_order_acquire) == 0; };
  while (!(spin_ && SpinUntil(done)) && !done()) sched_yield();
  body_ = nullptr;
}

// Sequential consistency decides who wakes whom: a worker counts itself as a sleeper before it
// looks at the generation for the last time, and this bumps it before looking for sleepers.
void ThreadPool::StartJob() {
  generation_.fetch_add(1);
  if (sleepers_.load() == 0) return;
  MutexLock lock(&mu_);
  wake_.NotifyAll();
}

void ThreadPool::WorkerLoop(int thread) {
  uint64_t seen = 0;
  while (true) {
    const auto started = [this, seen] { return generation_.load() != seen; };
    if (!(spin_ && SpinUntil(started))) {
      MutexLock lock(&mu_);
      sleepers_.fetch_add(1);
      while (!started()) wake_.Wait(&mu_);
      sleepers_.fetch_sub(1);
    }
    ++seen;  // the caller starts no job before this one has ended
    if (stop_.load()) return;
    (*body_)(thread);
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::ParallelFor(int64_t n, int64_t grain,
                             absl::FunctionRef<void(int64_t, int64_t, int)> body) {
  if (n <= 0) return;
  if (n <= grain || threads_ == 1) {
    body(0, n, 0);
    return;
  }
  Run([&](int thread) {
    int64_t begin, end;
    SplitRange(n, grain, threads_, thread, &begin, &end);
    if (begin < end) body(begin, end, thread);
  });
}

void SplitRange(int64_t n, int64_t grain, int parts, int part, int64_t* begin, int64_t* end) {
  const int64_t units = (n + grain - 1) / grain;
  *begin = std::min(n, units * part / parts * grain);
  *end = std::min(n, units * (part + 1) / parts * grain);
}

}  // namespace lacuna
