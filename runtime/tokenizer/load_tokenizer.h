#ifndef LACUNA_RUNTIME_TOKENIZER_LOAD_TOKENIZER_H_
#define LACUNA_RUNTIME_TOKENIZER_LOAD_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// The tokenizer of a Hugging Face directory: tokenizer.model (SentencePiece), else tokenizer.json,
// else vocab.json and merges.txt (GPT-2, OPT). A tokenizer.model that lacks tokens which
// tokenizer_config.json or added_tokens.json adds gives way to tokenizer.json.
//
// Whether Encode puts BOS first: add_bos_token of tokenizer_config.json; if it is not said, yes for
// tokenizer.model, as its post-processor says for tokenizer.json, no for vocab.json.
//
// NOT_FOUND if there is none of them, INVALID_ARGUMENT if a file is broken, UNIMPLEMENTED if a
// tokenizer.json uses something, named, that is not supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_LOAD_TOKENIZER_H_
