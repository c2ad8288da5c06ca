#ifndef LACUNA_CLIENT_CLI_SIGNAL_WATCHER_H_
#define LACUNA_CLIENT_CLI_SIGNAL_WATCHER_H_

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

namespace lacuna {

// Turns each Ctrl-C (SIGINT) into a call of `on_interrupt` on a thread of its own, for as long as
// this object lives. Make it before any other thread: it blocks the signal for the calling thread
// and for those that this one starts. At most one at a time.
class SignalWatcher {
 public:
  explicit SignalWatcher(std::function<void()> on_interrupt);
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  sigset_t old_mask_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_SIGNAL_WATCHER_H_
