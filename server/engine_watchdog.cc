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
                               std::function<void(const std::set<std::string>&)> report)
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
  std::set<std::string> stuck;
  for (;;) {
    {
      MutexLock lock(&mu_);
      if (!stopping_) stop_.WaitFor(&mu_, absl::ToChronoNanoseconds(interval_));
      if (stopping_) return;
    }
    sweep_();
    FindStuck(&stuck);
    report_(stuck);
  }
}

void EngineWatchdog::FindStuck(std::set<std::string>* stuck) {
  const absl::Time now = Clock::Real()->Now();
  const std::set<std::string> before = std::exchange(*stuck, {});
  const std::vector<EngineProgress> engines = probe_();
  // Another model of the name of one that was unloaded begins anew.
  std::erase_if(detectors_, [&engines](const auto& entry) {
    return std::none_of(engines.begin(), engines.end(), [&entry](const EngineProgress& engine) {
      return engine.model == entry.first;
    });
  });
  for (const EngineProgress& engine : engines) {
    StallDetector& detector = detectors_.try_emplace(engine.model, timeout_).first->second;
    if (!detector.IsStalled(engine.has_work, engine.last_step, now) &&
        engine.failed_steps < kMostFailedSteps) {
      continue;
    }
    stuck->insert(engine.model);
    if (before.contains(engine.model)) continue;
    Log(LogLevel::kError, "engine_stalled",
        {{"model", engine.model},
         {"timeout_s", absl::ToDoubleSeconds(timeout_)},
         {"failed_steps", engine.failed_steps}});
  }
  for (const std::string& model : before) {  // or is unloaded
    if (!stuck->contains(model)) Log(LogLevel::kInfo, "engine_moves_on", {{"model", model}});
  }
}

}  // namespace lacuna
