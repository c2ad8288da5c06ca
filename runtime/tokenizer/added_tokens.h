#ifndef LACUNA_RUNTIME_TOKENIZER_ADDED_TOKENS_H_
#define LACUNA_RUNTIME_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "runtime/tokenizer/prefix_index.h"
#include "runtime/tokenizer/regex.h"

namespace lacuna {

// A token that is cut out of a text before anything else happens to the text.
struct AddedToken {
  std::string content;  // not empty
  int32_t id = -1;
  bool special = false;      // a control token
  bool normalized = false;   // looked for in the normalized text
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool single_word = false;  // only where no word character touches it
};

// Finds added tokens as Hugging Face's `tokenizers` does: from left to right, the longest that
// starts at a place. Immutable and thread-safe.
class AddedTokens {
 public:
  // The contents must differ.
  explicit AddedTokens(std::vector<AddedToken> tokens);
  AddedTokens(const AddedTokens&) = delete;  // index_ refers to tokens_
  AddedTokens& operator=(const AddedTokens&) = delete;

  // A token that was found, or with id -1 the text between tokens; never empty.
  struct Part {
    ByteRange range;
    int32_t id;
  };
  // Cuts valid UTF-8 `text` into parts. Special tokens are text where they touch `literal`, sorted
  // and disjoint ranges of `text`.
  std::vector<Part> Split(std::string_view text, absl::Span<const ByteRange> literal) const;

 private:
  // The longest token that `text` starts with, or null.
  const AddedToken* Match(std::string_view text) const;

  const std::vector<AddedToken> tokens_;
  const PrefixIndex index_;  // ids are indices of tokens_
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_ADDED_TOKENS_H_
