#ifndef LACUNA_SERVER_ENGINE_WATCHDOG_H_
#define LACUNA_SERVER_ENGINE_WATCHDOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "kernels/base/mutex.h"

namespace lacuna {

// Names that grpc.health.v1 knows besides "" and the services.
inline constexpr char kLivenessService[] = "liveness";    // the process works
inline constexpr char kReadinessService[] = "readiness";  // send it requests

// Tells whether an engine is stuck: it has work, and no step has ended for `timeout` while it had.
// One thread.
class StallDetector {
 public:
  explicit StallDetector(absl::Duration timeout) : timeout_(timeout) {}
  // `last_step`: end of the last step, whatever the clock: only a change of it counts.
  bool IsStalled(bool has_work, absl::Time last_step, absl::Time now);

 private:
  const absl::Duration timeout_;
  absl::Time last_step_ = absl::InfinitePast();
  absl::Time last_progress_ = absl::InfinitePast();
};

// State of one engine as the watchdog sees it.
struct EngineProgress {
  std::string model;
  bool has_work = false;
  absl::Time last_step;
  int32_t failed_steps = 0;  // the last ones, in a row
};

// Looks at the engines on a timer, reports which are stuck, logs when that changes, and runs a
// sweep for whatever else may hang. Stuck is also one whose steps all fail, as they do once a GPU
// has failed: only a new process can use that again.
class EngineWatchdog {
 public:
  // Failed steps in a row from which on an engine counts as stuck.
  static constexpr int32_t kMostFailedSteps = 3;

  // Every `interval`, `sweep` is called, `probe` lists the engines and `report` gets the models
  // whose engines are stuck. All are called by the watchdog's thread.
  EngineWatchdog(absl::Duration timeout, absl::Duration interval, std::function<void()> sweep,
                 std::function<std::vector<EngineProgress>()> probe,
                 std::function<void(const std::set<std::string>& stuck)> report);
  ~EngineWatchdog();
  EngineWatchdog(const EngineWatchdog&) = delete;
  EngineWatchdog& operator=(const EngineWatchdog&) = delete;

 private:
  void Loop();
  // Replaces `stuck` by the models whose engines are stuck now, and logs the difference.
  void FindStuck(std::set<std::string>* stuck);

  const absl::Duration timeout_;
  const absl::Duration interval_;
  const std::function<void()> sweep_;
  const std::function<std::vector<EngineProgress>()> probe_;
  const std::function<void(const std::set<std::string>&)> report_;
  std::map<std::string, StallDetector> detectors_;  // by model
  Mutex mu_;
  CondVar stop_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_ENGINE_WATCHDOG_H_
