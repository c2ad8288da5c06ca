#ifndef LACUNA_RUNTIME_TOKENIZER_LOAD_TOKENIZER_H_
#define LACUNA_RUNTIME_TOKENIZER_LOAD_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// The tokenizer of a Hugging Face directory: tokenizer.model, with add_bos_token of
// tokenizer_config.json (true if it is not said). UNIMPLEMENTED if there is only tokenizer.json,
// NOT_FOUND if there is neither, INVALID_ARGUMENT if a file is broken.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_LOAD_TOKENIZER_H_
