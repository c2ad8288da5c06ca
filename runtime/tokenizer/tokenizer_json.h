#ifndef LACUNA_RUNTIME_TOKENIZER_TOKENIZER_JSON_H_
#define LACUNA_RUNTIME_TOKENIZER_TOKENIZER_JSON_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/bpe_tokenizer.h"

namespace lacuna {

// A published file of 65,000 tokens has 1.8 MB; with line breaks and indentation they are several
// times as long.
inline constexpr int64_t kMaxTokenizerJson = int64_t{64} << 20;

// What a Hugging Face tokenizer.json of model type BPE says; it names no BOS or EOS. `name` starts
// the messages. INVALID_ARGUMENT says what is broken, UNIMPLEMENTED, by name, what is not
// supported.
absl::StatusOr<BpeTokenizerSpec> ParseTokenizerJson(std::string_view text, const std::string& name);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_TOKENIZER_JSON_H_
