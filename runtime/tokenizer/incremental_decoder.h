#ifndef LACUNA_RUNTIME_TOKENIZER_INCREMENTAL_DECODER_H_
#define LACUNA_RUNTIME_TOKENIZER_INCREMENTAL_DECODER_H_

#include <cstdint>
#include <string>

#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// Turns generated tokens into text one at a time. What it returns is always valid UTF-8: an
// incomplete sequence is held back until it completes or proves broken (then U+FFFD).
// One sequence, one thread.
class IncrementalDecoder {
 public:
  // `tokenizer` must outlive the decoder.
  explicit IncrementalDecoder(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  // Text that became complete with this token; may be empty.
  std::string Append(int32_t token);
  // What is still held back, broken bytes replaced; nothing may follow but a new decoder.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // at most 3 bytes between calls
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_INCREMENTAL_DECODER_H_
