#include "client/cli/signal_watcher.h"

#include <utility>

namespace lacuna {
namespace {

sigset_t InterruptSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

SignalWatcher::SignalWatcher(std::function<void()> on_interrupt) {
  const sigset_t set = InterruptSet();
  pthread_sigmask(SIG_BLOCK, &set, &old_mask_);
  thread_ = std::thread([this, set, on_interrupt = std::move(on_interrupt)] {
    int signal_number;
    while (sigwait(&set, &signal_number) == 0 && !ending_) on_interrupt();
  });
}

SignalWatcher::~SignalWatcher() {
  ending_ = true;
  pthread_kill(thread_.native_handle(), SIGINT);
  thread_.join();
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

}  // namespace lacuna
