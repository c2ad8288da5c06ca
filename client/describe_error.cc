#include "client/describe_error.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/status.h"

namespace lacuna {

std::string PrintableText(absl::string_view text) {
  std::string printable;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool is_c1 = byte == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009F
    if (is_c1) ++i;
    const bool is_control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    printable += is_control || is_c1 ? '?' : text[i];
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
