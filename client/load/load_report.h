#ifndef LACUNA_CLIENT_LOAD_LOAD_REPORT_H_
#define LACUNA_CLIENT_LOAD_LOAD_REPORT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace lacuna {

// What the client saw of one request. Times count from when the request was due, so that a client
// that lags behind its own arrival rate does not hide the wait.
struct RequestRecord {
  absl::StatusCode code = absl::StatusCode::kOk;
  absl::Duration lag;         // due to sent
  absl::Duration first_text;  // due to first delta; = `total` if there was none
  absl::Duration total;       // due to end
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  bool cut = false;  // shortened to fit the model's context
};

// Service level objectives; absent: always met.
struct Objectives {
  std::optional<absl::Duration> ttft;
  std::optional<absl::Duration> tpot;
};

// The `q`-quantile, q in [0, 1], of `sorted` (ascending), interpolated linearly between the two
// nearest ranks; 0 if empty.
double Quantile(const std::vector<double>& sorted, double q);

// Time per output token: (total - first) / (tokens - 1); absent with fewer than two tokens.
std::optional<absl::Duration> TimePerOutputToken(const RequestRecord& record);

struct LatencySummary {
  uint64_t count = 0;
  double mean_ms = 0, p50_ms = 0, p90_ms = 0, p95_ms = 0, p99_ms = 0, max_ms = 0;
};

// Sums up a load test. Latencies and tokens count requests that ended with OK.
struct LoadReport {
  double elapsed_s = 0;
  uint64_t requests = 0;
  uint64_t ok = 0;
  std::map<std::string, uint64_t> errors_by_code;  // "RESOURCE_EXHAUSTED": 3
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  double requests_per_s = 0;
  double completion_tokens_per_s = 0;
  LatencySummary ttft;
  LatencySummary tpot;
  LatencySummary total;
  double max_lag_ms = 0;
  uint64_t cut = 0;  // requests shortened to fit the model's context
  // Requests that ended with OK within every objective: per second, and of all requests. A
  // request with fewer than two tokens has no time per output token to miss.
  Objectives objectives;
  double goodput_per_s = 0;
  double goodput_ratio = 0;
};

LoadReport MakeLoadReport(const std::vector<RequestRecord>& records, absl::Duration elapsed,
                          const Objectives& objectives);

std::string ToText(const LoadReport& report);  // a table for people, ends with a newline
std::string ToJson(const LoadReport& report);  // one object with the names above

}  // namespace lacuna

#endif  // LACUNA_CLIENT_LOAD_LOAD_REPORT_H_
