#include "server/engine_watchdog.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "runtime/engine/clock.h"
#include "server/logger.h"

namespace lacuna {

bool StallDetector::IsStalled(bool has_work, absl::Time last_step, absl::Time now) {
  if (!has_work || last_step != last_step_ || last_progress_ == absl::InfinitePast()) {
    last_step_ = last_step;
    last_progress_ = now;
  }
  return now - last_progress_ > timeout_;
}

EngineWatchdog::EngineWatchdog(absl::Duration timeout, absl::Duration interval,
                               std::function<void()> sweep,
                               std::function<std::vector<EngineProgress>()> probe,
                               std::function<void(bool)> report)
    : timeout_(timeout),
      interval_(interval),
      sweep_(std::move(sweep)),
      probe_(std::move(probe)),
      report_(std::move(report)) {
  thread_ = std::thread([this] { Loop(); });
}

EngineWatchdog::~EngineWatchdog() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
  }
  stop_.NotifyAll();
  thread_.join();
}

void EngineWatchdog::Loop() {
  bool alive = true;
  for (;;) {
    {
      MutexLock lock(&mu_);
      if (!stopping_) stop_.WaitFor(&mu_, absl::ToChronoNanoseconds(interval_));
      if (stopping_) return;
    }
    sweep_();
    const std::optional<EngineProgress> stuck = FindStuck();
    if (alive == !stuck.has_value()) continue;
    alive = !stuck.has_value();
    if (alive) {
      Log(LogLevel::kInfo, "engine_moves_on");
    } else {
      Log(LogLevel::kError, "engine_stalled",
          {{"model", stuck->model},
           {"timeout_s", absl::ToDoubleSeconds(timeout_)},
           {"failed_steps", stuck->failed_steps}});
    }
    report_(alive);
  }
}

std::optional<EngineProgress> EngineWatchdog::FindStuck() {
  const absl::Time now = Clock::Real()->Now();
  std::optional<EngineProgress> stuck;
  for (EngineProgress& engine : probe_()) {
    StallDetector& detector = detectors_.try_emplace(engine.model, timeout_).first->second;
    if (detector.IsStalled(engine.has_work, engine.last_step, now) ||
        engine.failed_steps >= kMostFailedSteps) {
      stuck = std::move(engine);
    }
  }
  return stuck;
}

}  // namespace lacuna
