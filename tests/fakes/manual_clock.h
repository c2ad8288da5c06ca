#ifndef LACUNA_TESTS_FAKES_MANUAL_CLOCK_H_
#define LACUNA_TESTS_FAKES_MANUAL_CLOCK_H_

#include "absl/time/time.h"
#include "kernels/base/mutex.h"
#include "runtime/engine/clock.h"

namespace lacuna {

// Stands still until a test advances it. Thread-safe.
class ManualClock : public Clock {
 public:
  absl::Time Now() override {
    MutexLock lock(&mu_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    MutexLock lock(&mu_);
    now_ += duration;
  }

 private:
  Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::UnixEpoch() + absl::Hours(1);
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_FAKES_MANUAL_CLOCK_H_
