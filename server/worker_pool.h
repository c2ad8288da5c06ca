#ifndef LACUNA_SERVER_WORKER_POOL_H_
#define LACUNA_SERVER_WORKER_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/mutex.h"

namespace lacuna {

// Threads for work that is too long for a gRPC reaction, such as tokenizing: the callback API has
// two threads on a machine with two cores, and they answer the health checks too. Thread-safe.
class WorkerPool {
 public:
  // At most `max_pending` tasks wait.
  WorkerPool(int threads, size_t max_pending);
  // Runs what is pending, then joins.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // RESOURCE_EXHAUSTED, with advice when to try again, and `task` is dropped, if too many wait.
  absl::Status Run(std::function<void()> task);

 private:
  void Loop();

  const size_t max_pending_;
  Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> pending_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_WORKER_POOL_H_
