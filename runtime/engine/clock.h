#ifndef LACUNA_RUNTIME_ENGINE_CLOCK_H_
#define LACUNA_RUNTIME_ENGINE_CLOCK_H_

#include "absl/time/time.h"

namespace lacuna {

// A monotonic clock that tests replace. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back. Comparable only with times of the same clock.
  virtual absl::Time Now() = 0;
  // The machine's monotonic clock; never deleted.
  static Clock* Real();
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_CLOCK_H_
