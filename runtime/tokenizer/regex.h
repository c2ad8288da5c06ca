#ifndef LACUNA_RUNTIME_TOKENIZER_REGEX_H_
#define LACUNA_RUNTIME_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/byte_range.h"

namespace lacuna {

// A regular expression of a tokenizer.json, with the meaning that Oniguruma gives it there. PCRE2
// runs it; what the two read differently is rewritten (\s, \w, \p{Han}, ...) or refused (&& and
// nested classes, inline options but (?i, rare escapes). Immutable and thread-safe.
//
// The Unicode tables are those of the installed PCRE2 (10.42: Unicode 14), so characters that were
// assigned later are no letters yet.
class Regex {
 public:
  // INVALID_ARGUMENT if it is no pattern, UNIMPLEMENTED, by name, what is not supported.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Matches exactly `text`, which is not empty.
  static absl::StatusOr<Regex> Literal(std::string_view text);

  // The matches in valid UTF-8 `text`, left to right, not overlapping; may include empty ones.
  // INVALID_ARGUMENT if a match needs more than kMaxSteps steps of backtracking, or all of them
  // more than `max_seconds` of this thread's time, as hostile patterns do.
  absl::StatusOr<std::vector<ByteRange>> FindAll(std::string_view text,
                                                 double max_seconds = kMaxSeconds) const;

  // Of backtracking, for one match.
  static constexpr int kMaxSteps = 10'000'000;
  // Real patterns take 0.1 s for a text of 1 MiB.
  static constexpr double kMaxSeconds = 10;

 private:
  struct Code;  // the compiled pattern

  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}

  std::shared_ptr<const Code> code_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_REGEX_H_
