#ifndef LACUNA_CLIENT_LOAD_ARRIVALS_H_
#define LACUNA_CLIENT_LOAD_ARRIVALS_H_

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "client/load/trace.h"

namespace lacuna {

struct Arrival {
  uint64_t index = 0;
  std::optional<absl::Duration> due;  // from the start of the test; absent: as soon as possible
  uint32_t prompt_tokens = 0;
  uint32_t max_tokens = 0;
};

// When requests leave and how long they are. Exactly one of three shapes:
//   closed loop  `rate_per_s` 0 and no trace: each request leaves when another has ended
//   Poisson      `rate_per_s` > 0: independent exponential gaps of that mean rate
//   replay       `trace`: its arrival times divided by `trace_speed`, and its token counts
struct ArrivalOptions {
  double rate_per_s = 0;
  std::vector<TraceEntry> trace;
  double trace_speed = 1;
  uint32_t prompt_tokens = 128;  // closed loop and Poisson
  uint32_t max_tokens = 64;
  uint64_t max_requests = 0;                          // 0: no bound
  absl::Duration max_due = absl::InfiniteDuration();  // later arrivals are not made
  uint64_t seed = 0;
};

// The sequence of arrivals, a pure function of the options. Not thread-safe.
class Arrivals {
 public:
  explicit Arrivals(ArrivalOptions options);
  // Absent after the last one; due times ascend.
  std::optional<Arrival> Next();

 private:
  const ArrivalOptions options_;
  std::mt19937_64 random_;
  absl::Duration clock_;
  uint64_t made_ = 0;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_LOAD_ARRIVALS_H_
