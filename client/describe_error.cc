#include "client/describe_error.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/status.h"

namespace lacuna {

std::string PrintableText(absl::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) c = '?';
  }
  return printable;
}

std::string DescribeError(const absl::Status& status) {
  std::string text = absl::StrCat(StatusCodeName(status.code()), ": ", status.message());
  for (const FieldViolation& violation : FieldViolations(status)) {
    const std::string line = absl::StrCat(violation.field, ": ", violation.description);
    if (!absl::StrContains(status.message(), line)) absl::StrAppend(&text, "\n  ", line);
  }
  if (const std::optional<absl::Duration> delay = RetryAfter(status)) {
    absl::StrAppend(&text, "\n  retry after ", absl::FormatDuration(*delay));
  }
  return PrintableText(text);
}

}  // namespace lacuna
