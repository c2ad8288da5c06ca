#ifndef LACUNA_RUNTIME_MODEL_GGUF_TOKENIZER_H_
#define LACUNA_RUNTIME_MODEL_GGUF_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/chat/chat_template.h"
#include "runtime/model/gguf_header.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// The tokenizer of a GGUF file, which keeps nothing of `header`. tokenizer.ggml.model is `llama`
// (pieces with scores, as SentencePiece's BPE) or `gpt2` (byte-level BPE, for which
// tokenizer.ggml.pre names the patterns that cut a text into words). Control tokens (type 3) and
// those added later (type 4) come from tokenizer.ggml.token_type.
//
// Whether Encode puts BOS first: add_bos_token; if it is not said, yes for `llama` and where the
// family of the pre-tokenizer does.
//
// INVALID_ARGUMENT says what is wrong, UNIMPLEMENTED names what is not supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufTokenizer(const GgufHeader& header);

// tokenizer.chat_template; NOT_FOUND if there is none. Other errors as ChatTemplate::Create.
absl::StatusOr<std::unique_ptr<ChatTemplate>> MakeGgufChatTemplate(const GgufHeader& header);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_TOKENIZER_H_
