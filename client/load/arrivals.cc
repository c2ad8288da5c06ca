#include "client/load/arrivals.h"

#include <utility>

namespace lacuna {

Arrivals::Arrivals(ArrivalOptions options) : options_(std::move(options)), random_(options_.seed) {}

std::optional<Arrival> Arrivals::Next() {
  if (options_.max_requests != 0 && made_ == options_.max_requests) return std::nullopt;
  Arrival arrival{
      .index = made_, .prompt_tokens = options_.prompt_tokens, .max_tokens = options_.max_tokens};
  if (!options_.trace.empty()) {
    if (made_ == options_.trace.size()) return std::nullopt;
    const TraceEntry& entry = options_.trace[made_];
    arrival.due = entry.offset / options_.trace_speed;
    arrival.prompt_tokens = entry.prompt_tokens;
    arrival.max_tokens = entry.generated_tokens;
  } else if (options_.rate_per_s > 0) {
    clock_ += absl::Seconds(std::exponential_distribution<double>(options_.rate_per_s)(random_));
    arrival.due = clock_;
  }
  if (arrival.due.has_value() && *arrival.due > options_.max_due) return std::nullopt;
  ++made_;
  return arrival;
}

}  // namespace lacuna
