#ifndef LACUNA_RUNTIME_TOKENIZER_TEXT_STEPS_H_
#define LACUNA_RUNTIME_TOKENIZER_TEXT_STEPS_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/growth.h"
#include "runtime/tokenizer/regex.h"
#include "runtime/tokenizer/unicode.h"

namespace lacuna {

// The steps between a text and the words that BPE sees, with the results of Hugging Face's
// `tokenizers`. All are thread-safe; texts are valid UTF-8.

// A change of the whole text. INVALID_ARGUMENT if a pattern gives up.
using NormalizeStep = std::function<absl::StatusOr<std::string>(std::string text)>;

NormalizeStep UnicodeFormStep(UnicodeForm form);
NormalizeStep LowercaseStep();
NormalizeStep StripStep(bool left, bool right);  // white space
NormalizeStep PrependStep(std::string prefix);   // unless the text is empty
NormalizeStep ReplaceStep(Regex pattern, std::string replacement);

// Applies one after the other. Errors as of the steps and of CheckGrowth.
absl::StatusOr<std::string> Normalize(const std::vector<NormalizeStep>& steps,
                                      std::string_view text);

struct Word {
  std::string text;       // not empty
  bool at_start = false;  // nothing is before it
};

// Appends the words that one word becomes to `words`. INVALID_ARGUMENT if a pattern gives up.
using SplitStep = std::function<absl::Status(const Word& word, std::vector<Word>* words)>;

// What becomes of the text that a pattern matches.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// `invert`: what the pattern does not match takes the part of what it matches.
SplitStep SplitByPattern(Regex pattern, SplitBehavior behavior, bool invert);
// Puts a space before words that have none.
SplitStep AddPrefixSpace();

enum class PrependScheme { kAlways, kFirst, kNever };
// Writes spaces as `symbol`, puts one first by `scheme`, and with `split` cuts before each.
SplitStep SplitAtSpaces(std::string symbol, PrependScheme scheme, bool split);

// Applies one after the other to all words. Errors as of the steps and of CheckGrowth.
absl::Status Split(const std::vector<SplitStep>& steps, std::vector<Word>* words);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_TEXT_STEPS_H_
