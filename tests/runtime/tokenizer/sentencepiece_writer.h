#ifndef LACUNA_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_WRITER_H_
#define LACUNA_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_WRITER_H_

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/strings/str_format.h"
#include "runtime/tokenizer/sentencepiece_model.h"

namespace lacuna {

// Fields of protobuf messages, right or wrong.
inline std::string VarintBytes(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}
inline std::string VarintField(uint32_t number, uint64_t value) {
  return VarintBytes(uint64_t{number} << 3) + VarintBytes(value);
}
inline std::string BytesField(uint32_t number, std::string_view bytes) {
  return (VarintBytes(uint64_t{number} << 3 | 2) + VarintBytes(bytes.size())).append(bytes);
}
inline std::string FloatField(uint32_t number, float value) {
  std::string out = VarintBytes(uint64_t{number} << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int i = 0; i < 4; ++i) out += static_cast<char>(bits >> (8 * i));
  return out;
}

inline std::string PieceField(std::string_view text, float score,
                              PieceType type = PieceType::kNormal) {
  return BytesField(
      1, BytesField(1, text) + FloatField(2, score) + VarintField(3, static_cast<uint64_t>(type)));
}

// "<unk>", "<s>" and "</s>" with ids 0, 1 and 2, as every model has them.
inline std::string SpecialPieces() {
  return PieceField("<unk>", 0, PieceType::kUnknown) + PieceField("<s>", 0, PieceType::kControl) +
         PieceField("</s>", 0, PieceType::kControl);
}
inline std::string BytePieces() {
  std::string out;
  for (int byte = 0; byte < 256; ++byte) {
    out += PieceField(absl::StrFormat("<0x%02X>", byte), 0, PieceType::kByte);
  }
  return out;
}

inline std::string TrainerSpec(SentencePieceModel::Algorithm algorithm, bool byte_fallback,
                               std::string_view more = "") {
  return BytesField(
      2, (VarintField(3, static_cast<uint64_t>(algorithm)) + VarintField(35, byte_fallback))
             .append(more));
}
inline std::string NormalizerSpec(std::string_view charsmap, bool add_dummy_prefix,
                                  bool remove_extra_whitespaces) {
  return BytesField(3, BytesField(2, charsmap) + VarintField(3, add_dummy_prefix) +
                           VarintField(4, remove_extra_whitespaces));
}

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_WRITER_H_
