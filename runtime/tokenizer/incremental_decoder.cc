#include "runtime/tokenizer/incremental_decoder.h"

#include "runtime/base/utf8.h"

namespace lacuna {

std::string IncrementalDecoder::Append(int32_t token) {
  pending_ += tokenizer_->TokenBytes(token);
  std::string text;
  // Bytes on both sides of a control token are no character, here as in Decode.
  MoveUtf8(&pending_, &text, /*more_follows=*/!tokenizer_->IsControl(token));
  return text;
}

std::string IncrementalDecoder::Flush() {
  std::string text;
  MoveUtf8(&pending_, &text, /*more_follows=*/false);
  return text;
}

}  // namespace lacuna
