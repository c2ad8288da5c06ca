#ifndef LACUNA_RUNTIME_TOKENIZER_SENTENCEPIECE_TOKENIZER_H_
#define LACUNA_RUNTIME_TOKENIZER_SENTENCEPIECE_TOKENIZER_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/sentencepiece_model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// A tokenizer from the bytes of a SentencePiece `tokenizer.model` (BPE or unigram), giving the ids
// and texts of the SentencePiece library. The code is ours: the library of Debian 12 brings its own
// protobuf, which aborts a process that also links the system's, and trusts its input.
// `add_bos`: Encode(text, add_special = true) puts the BOS first.
// INVALID_ARGUMENT says what is wrong with the model, UNIMPLEMENTED what is not supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view serialized,
                                                                      bool add_bos = true);

// The same from a model that was read elsewhere and went through IndexPieces; the texts of its
// pieces are UTF-8 of 1 to kMaxPieceBytes bytes, their scores finite.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(SentencePieceModel model,
                                                                      bool add_bos = true);

// The same from a file; messages name it. Pieces called as one of `control` are control tokens,
// whatever the file says: what other files of the model call special is spelt by nobody's text.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(
    const std::string& path, bool add_bos = true,
    const absl::flat_hash_set<std::string>& control = {});

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_SENTENCEPIECE_TOKENIZER_H_
