#ifndef LACUNA_SERVER_STOP_SIGNALS_H_
#define LACUNA_SERVER_STOP_SIGNALS_H_

#include <thread>

#include "kernels/base/mutex.h"

namespace lacuna {

// Counts requests to stop: SIGTERM, SIGINT, and Request(). The third one ends the process at once
// with exit code 1. Thread-safe.
class StopSignals {
 public:
  // Blocks the signals in the calling thread and all that it will start: construct it first, and
  // once. SIGPIPE is ignored.
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  void Request();
  int count();
  // Waits until something is requested or Wake is called.
  void Wait();
  // Makes the current or next Wait return.
  void Wake();

 private:
  Mutex mu_;
  CondVar changed_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // waits for the signals
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_STOP_SIGNALS_H_
