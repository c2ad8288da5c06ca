#ifndef LACUNA_CLIENT_LOAD_TRACE_H_
#define LACUNA_CLIENT_LOAD_TRACE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lacuna {

// One request of a recorded workload.
struct TraceEntry {
  absl::Duration offset;  // arrival, from the first one
  uint32_t prompt_tokens = 0;
  uint32_t generated_tokens = 0;
};

// Parses a CSV with the header `TIMESTAMP,ContextTokens,GeneratedTokens`, the format of the Azure
// LLM inference traces. A timestamp is a number of seconds or `YYYY-MM-DD HH:MM:SS[.fraction]`
// with an optional UTC offset. INVALID_ARGUMENT, with the line number: wrong header or number of
// fields, an unreadable value, a count outside [1, 10^6], a timestamp before the one above it.
absl::StatusOr<std::vector<TraceEntry>> ParseTrace(absl::string_view csv);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_LOAD_TRACE_H_
