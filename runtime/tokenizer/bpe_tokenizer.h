#ifndef LACUNA_RUNTIME_TOKENIZER_BPE_TOKENIZER_H_
#define LACUNA_RUNTIME_TOKENIZER_BPE_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe_model.h"
#include "runtime/tokenizer/text_steps.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// How the text of a token that is not a control token is printed. At byte level it is the bytes
// that the token spells (FromByteLevel), else:
struct TokenPrinting {
  std::vector<std::pair<std::string, std::string>> replacements;  // in each token, in this order
  bool byte_fallback = false;                                     // <0x0A> is a byte
  // Spaces that Decode takes off the start, as the normalizer or the pre-tokenizer put them there.
  enum class LeadingSpaces { kKept, kOneRemoved, kFirstTokenRemoved };
  LeadingSpaces leading_spaces = LeadingSpaces::kKept;  // of the text; of its first token: all
};

// What a BPE tokenizer is made of, wherever it was read.
struct BpeTokenizerSpec {
  BpeSpec bpe;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizeStep> normalizers;
  std::vector<SplitStep> pre_tokenizers;
  TokenPrinting printing;
  std::vector<int32_t> prefix_ids;  // that Encode puts first with add_special
  std::vector<int32_t> suffix_ids;  // and last
  int32_t bos_id = -1;
  int32_t eos_id = -1;
};

// A tokenizer that gives the ids of Hugging Face's `tokenizers` with special tokens in the text
// left as text (its `encode_special_tokens`). INVALID_ARGUMENT if parts of the spec contradict
// each other, as BpeModel::Create says, or an id among them has no token.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeTokenizerSpec spec);

// The pre-tokenizer of GPT-2's tokenizer, and of many after it.
inline constexpr char kGpt2Pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_BPE_TOKENIZER_H_
