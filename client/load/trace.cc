#include "client/load/trace.h"

#include <cmath>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace lacuna {
namespace {

constexpr absl::string_view kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr uint32_t kMaxTokens = 1'000'000;

// Time since the Unix epoch for a date, since an arbitrary start for a number.
bool ParseTimestamp(absl::string_view text, absl::Duration* time) {
  double seconds;
  if (absl::SimpleAtod(text, &seconds)) {
    *time = absl::Seconds(seconds);
    return std::isfinite(seconds);
  }
  for (const char* format :
       {"%Y-%m-%d %H:%M:%E*S", "%Y-%m-%d %H:%M:%E*S%Ez", "%Y-%m-%dT%H:%M:%E*S%Ez"}) {
    absl::Time parsed;
    if (absl::ParseTime(format, text, &parsed, nullptr)) {
      *time = parsed - absl::UnixEpoch();
      return parsed != absl::InfiniteFuture() && parsed != absl::InfinitePast();
    }
  }
  return false;
}

bool ParseCount(absl::string_view text, uint32_t* count) {
  return absl::SimpleAtoi(text, count) && *count >= 1 && *count <= kMaxTokens;
}

}  // namespace

absl::StatusOr<std::vector<TraceEntry>> ParseTrace(absl::string_view csv) {
  std::vector<TraceEntry> entries;
  absl::Duration first;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(csv, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    const auto error = [&](absl::string_view what) {
      return absl::InvalidArgumentError(
          absl::StrCat("trace line ", line_number, ": ", what, ": \"", line.substr(0, 80), "\""));
    };
    if (line_number == 1) {
      if (line != kHeader) return error(absl::StrCat("expected the header ", kHeader));
      continue;
    }
    if (line.empty()) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ',');
    if (fields.size() != 3) return error(absl::StrCat(fields.size(), " fields instead of 3"));
    absl::Duration time;
    TraceEntry entry;
    if (!ParseTimestamp(fields[0], &time)) return error("bad timestamp");
    if (!ParseCount(fields[1], &entry.prompt_tokens)) return error("bad ContextTokens");
    if (!ParseCount(fields[2], &entry.generated_tokens)) return error("bad GeneratedTokens");
    if (entries.empty()) first = time;
    entry.offset = time - first;
    if (!entries.empty() && entry.offset < entries.back().offset) {
      return error("timestamp goes backwards");
    }
    entries.push_back(entry);
  }
  if (entries.empty()) return absl::InvalidArgumentError("the trace has no requests");
  return entries;
}

}  // namespace lacuna
