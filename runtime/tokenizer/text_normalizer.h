#ifndef LACUNA_RUNTIME_TOKENIZER_TEXT_NORMALIZER_H_
#define LACUNA_RUNTIME_TOKENIZER_TEXT_NORMALIZER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/prefix_index.h"
#include "runtime/tokenizer/sentencepiece_model.h"

namespace lacuna {

// What SentencePiece does to a text before it looks for pieces: replaces characters by the map of
// the model, trims and joins spaces if asked to, puts a space first if asked to, and writes every
// space as kSpaceSymbol. Immutable.
//
// The map ("precompiled_charsmap") is: the size of a trie in bytes, 32 bits little-endian; a
// double-array trie of 32-bit units as Darts-clone builds it, whose values are offsets into what
// follows; the replacements, each ended by NUL.
class TextNormalizer {
 public:
  // `user_defined` symbols are kept as they are; it must outlive the normalizer. INVALID_ARGUMENT
  // if a unit of the trie points out of it or out of the replacements, or one is not UTF-8.
  static absl::StatusOr<TextNormalizer> Create(const SentencePieceModel& model,
                                               const PrefixIndex* user_defined);

  // `text` is UTF-8. Errors as of CheckGrowth.
  absl::StatusOr<std::string> Normalize(std::string_view text) const;

 private:
  TextNormalizer() = default;

  // Bytes of the longest key that `text` starts with, and its replacement; 0 if there is none.
  size_t FindReplacement(std::string_view text, std::string_view* replacement) const;
  // What the start of `text`, not empty, becomes; `*consumed` bytes of it.
  std::string_view NormalizePrefix(std::string_view text, size_t* consumed) const;

  const PrefixIndex* user_defined_ = nullptr;
  std::vector<uint32_t> trie_;  // empty: no map
  std::string replacements_;    // each NUL-terminated
  bool add_dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_TEXT_NORMALIZER_H_
