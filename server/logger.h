#ifndef LACUNA_SERVER_LOGGER_H_
#define LACUNA_SERVER_LOGGER_H_

#include <nlohmann/json.hpp>
#include <string_view>

namespace lacuna {

enum class LogLevel { kInfo, kWarning, kError };

// Writes one JSON object as one line to stderr: time, level, event, then `fields`. Everything that
// is not printable ASCII is escaped, so that no value can forge a line. Thread-safe.
// Never pass text of a prompt or of an output.
void Log(LogLevel level, std::string_view event, const nlohmann::ordered_json& fields = {});

}  // namespace lacuna

#endif  // LACUNA_SERVER_LOGGER_H_
