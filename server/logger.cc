#include "server/logger.h"

#include <unistd.h>

#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace lacuna {
namespace {

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "?";
}

}  // namespace

void Log(LogLevel level, std::string_view event, const nlohmann::ordered_json& fields) {
  nlohmann::ordered_json line = {
      {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone())},
      {"level", LevelName(level)},
      {"event", event}};
  if (fields.is_object()) line.update(fields);
  std::string text =
      line.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  // DEL is ASCII to JSON, and the one control character that it leaves alone.
  for (char& c : text) {
    if (c == '\x7f') c = '?';
  }
  text.push_back('\n');
  // One write per line keeps lines whole. A broken stderr is no reason to stop serving.
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

}  // namespace lacuna
