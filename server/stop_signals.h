#ifndef LACUNA_SERVER_STOP_SIGNALS_H_
#define LACUNA_SERVER_STOP_SIGNALS_H_

#include <atomic>
#include <thread>

#include "kernels/base/mutex.h"

namespace lacuna {

// Waits for a wish to stop: SIGTERM, SIGINT or Request(). Signals are counted, and the third one
// ends the process at once with exit code 1; Request() may be repeated. Thread-safe.
class StopSignals {
 public:
  // Blocks the signals in the calling thread and all that it will start: construct it first, and
  // once. SIGPIPE is ignored.
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  void Request();
  int signals();
  // Waits until a stop is wished for or Wake is called.
  void Wait();
  // Makes the current or next Wait return.
  void Wake();

 private:
  void OnSignal();

  Mutex mu_;
  CondVar changed_;
  int signals_ ABSL_GUARDED_BY(mu_) = 0;
  bool requested_ ABSL_GUARDED_BY(mu_) = false;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<bool> quitting_ = false;
  std::thread thread_;  // waits for the signals
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_STOP_SIGNALS_H_
