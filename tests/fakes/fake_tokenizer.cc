#include "tests/fakes/fake_tokenizer.h"

#include "absl/strings/str_cat.h"
#include "runtime/tokenizer/incremental_decoder.h"

namespace lacuna {

FakeTokenizer::FakeTokenizer(std::vector<std::string> pieces) : bytes_(kFirstPiece) {
  for (int32_t b = 0; b < 256; ++b) bytes_[2 + b] = std::string(1, static_cast<char>(b));
  bytes_.insert(bytes_.end(), pieces.begin(), pieces.end());
}

absl::StatusOr<std::vector<int32_t>> FakeTokenizer::Encode(std::string_view text,
                                                           bool add_special) const {
  std::vector<int32_t> ids;
  if (add_special) ids.push_back(kBos);
  for (const char c : text) ids.push_back(Byte(c));
  return ids;
}

absl::StatusOr<std::string> FakeTokenizer::Decode(absl::Span<const int32_t> ids) const {
  IncrementalDecoder decoder(this);
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " is out of range"));
    }
    text += decoder.Append(id);
  }
  return text + decoder.Flush();
}

}  // namespace lacuna
