#ifndef LACUNA_KERNELS_BASE_THREAD_POOL_H_
#define LACUNA_KERNELS_BASE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/base/available_cpus.h"  // IWYU pragma: export
#include "kernels/base/mutex.h"

namespace lacuna {

// Fork-join parallelism for one caller at a time: the engine thread of a model. The caller works
// as thread 0. Workers spin for a short while after a job, so that back-to-back jobs of one step
// cost well under a microsecond each, then sleep until the next one.
class ThreadPool {
 public:
  // `threads` >= 1 counts the caller: ThreadPool(1) starts no thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls body(thread) once for each thread in [0, threads()), at the same time; returns when all
  // have returned. Not reentrant, and for one calling thread at a time.
  void Run(absl::FunctionRef<void(int thread)> body);

  // Calls body(begin, end, thread) on the parts of [0, n) that SplitRange gives each thread; on
  // the caller alone if n <= grain. Parts are multiples of `grain`, except for the last one.
  void ParallelFor(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> body);

 private:
  void StartJob();
  void WorkerLoop(int thread);

  const int threads_;
  const bool spin_;  // false if threads outnumber CPUs: a spinning one would hold up a working one
  const absl::FunctionRef<void(int)>* body_ = nullptr;  // valid while a job runs
  std::atomic<uint64_t> generation_{0};                 // a new job, or stop, bumps it
  std::atomic<int> pending_{0};                         // workers still in the job
  std::atomic<bool> stop_{false};
  std::atomic<int> sleepers_{0};
  Mutex mu_;
  CondVar wake_;
  std::vector<std::thread> workers_;
};

// Part `part` of `parts` of [0, n), in multiples of `grain`: [*begin, *end), possibly empty.
void SplitRange(int64_t n, int64_t grain, int parts, int part, int64_t* begin, int64_t* end);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_THREAD_POOL_H_
