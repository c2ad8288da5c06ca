#include "server/worker_pool.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status.h"

namespace lacuna {

WorkerPool::WorkerPool(int threads, size_t max_pending) : max_pending_(max_pending) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status WorkerPool::Run(std::function<void()> task) {
  {
    MutexLock lock(&mu_);
    if (pending_.size() >= max_pending_) {
      return WithRetryAfter(
          absl::ResourceExhaustedError(absl::StrCat(
              pending_.size(), " requests wait for a worker, the limit is ", max_pending_)),
          kRetryDelay);
    }
    pending_.push_back(std::move(task));
  }
  changed_.NotifyOne();
  return absl::OkStatus();
}

void WorkerPool::Loop() {
  for (;;) {
    std::function<void()> task;
    {
      MutexLock lock(&mu_);
      while (pending_.empty() && !stopping_) changed_.Wait(&mu_);
      if (pending_.empty()) return;
      task = std::move(pending_.front());
      pending_.pop_front();
    }
    task();
  }
}

}  // namespace lacuna
