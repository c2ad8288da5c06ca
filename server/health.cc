#include "server/health.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
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
    const std::string stalled = StalledModel();
    if (stalled.empty() == alive) continue;
    alive = stalled.empty();
    if (alive) {
      Log(LogLevel::kInfo, "engine_moves_on");
    } else {
      Log(LogLevel::kError, "engine_stalled",
          {{"model", stalled}, {"timeout_s", absl::ToDoubleSeconds(timeout_)}});
    }
    report_(alive);
  }
}

std::string EngineWatchdog::StalledModel() {
  const absl::Time now = absl::Now();
  std::string stalled;
  for (const EngineProgress& engine : probe_()) {
    StallDetector& detector = detectors_.try_emplace(engine.model, timeout_).first->second;
    if (detector.IsStalled(engine.has_work, engine.last_step, now)) stalled = engine.model;
  }
  return stalled;
}

}  // namespace lacuna
