#ifndef LACUNA_RUNTIME_TOKENIZER_TOKENIZER_H_
#define LACUNA_RUNTIME_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/base/byte_range.h"

namespace lacuna {

// Text to token ids and back. Immutable and thread-safe after construction.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // For people: "SentencePiece BPE", "SentencePiece unigram", "BPE" or "byte-level BPE". Static
  // storage.
  virtual const char* kind() const = 0;
  // Number of ids; every id is in [0, vocab_size()).
  virtual int32_t vocab_size() const = 0;
  // -1 if the vocabulary has none.
  virtual int32_t bos_id() const = 0;
  virtual int32_t eos_id() const = 0;

  // Ids of UTF-8 `text` (INVALID_ARGUMENT if it is not UTF-8), with the leading BOS that the model
  // was trained with if `add_special`. Time is O(n log n) in the bytes of the text: callers
  // bound them first. Text never becomes control tokens. INVALID_ARGUMENT too if a pattern of
  // the model's files needs too much work for this text.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      bool add_special) const = 0;

  // Ids of a text that a chat template has written: as Encode without BOS, but control tokens that
  // are spelt in it are those tokens, unless they touch a byte of `literal`, sorted and disjoint
  // ranges of `text`, which is what others put into the conversation.
  virtual absl::StatusOr<std::vector<int32_t>> EncodeMarkup(
      std::string_view text, absl::Span<const ByteRange> literal) const = 0;

  // The bytes that a token adds to running text: empty for control tokens, possibly a part of a
  // UTF-8 sequence for byte tokens, a leading space where the piece starts a word.
  // `id` must be in range.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  virtual bool IsControl(int32_t id) const = 0;

  // Text of a whole sequence, as the reference library prints it: control tokens skipped, the
  // space that Encode put before the first word removed, broken UTF-8 replaced by U+FFFD.
  // INVALID_ARGUMENT if an id is out of range.
  virtual absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const = 0;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_TOKENIZER_H_
