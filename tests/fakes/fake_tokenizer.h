#ifndef LACUNA_TESTS_FAKES_FAKE_TOKENIZER_H_
#define LACUNA_TESTS_FAKES_FAKE_TOKENIZER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// Id 0 is <s>, 1 is </s>, 2 + b is the byte b, and from 258 on come `pieces`, which Encode never
// makes. No space is added before text.
class FakeTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kBos = 0;
  static constexpr int32_t kEos = 1;
  static constexpr int32_t kFirstPiece = 258;
  static constexpr int32_t Byte(char c) { return 2 + static_cast<uint8_t>(c); }

  explicit FakeTokenizer(std::vector<std::string> pieces = {});

  const char* kind() const override { return "fake"; }
  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  int32_t bos_id() const override { return kBos; }
  int32_t eos_id() const override { return kEos; }
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special) const override;
  // As Encode: <s> and </s> are text.
  absl::StatusOr<std::vector<int32_t>> EncodeMarkup(
      std::string_view text, absl::Span<const ByteRange> /*literal*/) const override {
    return Encode(text, /*add_special=*/false);
  }
  std::string_view TokenBytes(int32_t id) const override { return bytes_[id]; }
  bool IsControl(int32_t id) const override { return id == kBos || id == kEos; }
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const override;

 private:
  std::vector<std::string> bytes_;  // by id
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_FAKES_FAKE_TOKENIZER_H_
