#include "server/stop_signals.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace lacuna {
namespace {

// Ends the thread that waits for signals.
constexpr int kQuitSignal = SIGUSR1;

sigset_t WaitedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, kQuitSignal);
  return signals;
}

}  // namespace

StopSignals::StopSignals() {
  signal(SIGPIPE, SIG_IGN);
  const sigset_t signals = WaitedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this, signals] {
    for (int signal = 0; sigwait(&signals, &signal) == 0;) {
      if (signal != kQuitSignal) {
        OnSignal();
      } else if (quitting_) {  // else somebody else sent it
        return;
      }
    }
  });
}

StopSignals::~StopSignals() {
  quitting_ = true;
  pthread_kill(thread_.native_handle(), kQuitSignal);
  thread_.join();
}

void StopSignals::Request() {
  MutexLock lock(&mu_);
  requested_ = true;
  changed_.NotifyAll();
}

void StopSignals::OnSignal() {
  MutexLock lock(&mu_);
  if (++signals_ >= 3) _exit(1);
  changed_.NotifyAll();
}

int StopSignals::signals() {
  MutexLock lock(&mu_);
  return signals_;
}

void StopSignals::Wait() {
  MutexLock lock(&mu_);
  while (signals_ == 0 && !requested_ && !woken_) changed_.Wait(&mu_);
  woken_ = false;
}

void StopSignals::Wake() {
  MutexLock lock(&mu_);
  woken_ = true;
  changed_.NotifyAll();
}

}  // namespace lacuna
