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

EngineWatchdog::EngineWatchdog(absl::Duration timeout,
                               std::function<std::vector<EngineProgress>()> probe,
                               std::function<void(bool)> report)
    : timeout_(timeout), probe_(std::move(probe)), report_(std::move(report)) {
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
  // Often enough that a stall is seen at most a quarter late.
  const absl::Duration interval =
      std::clamp(timeout_ / 4, absl::Milliseconds(10), absl::Seconds(1));
  bool alive = true;
  for (;;) {
    {
      MutexLock lock(&mu_);
      if (!stopping_) stop_.WaitFor(&mu_, absl::ToChronoNanoseconds(interval));
      if (stopping_) return;
    }
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
