#ifndef LACUNA_RUNTIME_TOKENIZER_GPT2_FILES_H_
#define LACUNA_RUNTIME_TOKENIZER_GPT2_FILES_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/bpe_tokenizer.h"

namespace lacuna {

// The tokenizer of GPT-2 and OPT from the contents of vocab.json (tokens and ids) and merges.txt (a
// merge a line, best first, after a line "#version: ..."). Without added tokens, BOS and EOS.
// INVALID_ARGUMENT, with file and line, says what is broken.
absl::StatusOr<BpeTokenizerSpec> ParseGpt2Files(std::string_view vocab, std::string_view merges,
                                                bool add_prefix_space);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_GPT2_FILES_H_
