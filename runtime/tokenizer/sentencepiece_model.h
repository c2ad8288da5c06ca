#ifndef LACUNA_RUNTIME_TOKENIZER_SENTENCEPIECE_MODEL_H_
#define LACUNA_RUNTIME_TOKENIZER_SENTENCEPIECE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lacuna {

// U+2581, which stands for a space inside pieces.
inline constexpr char kSpaceSymbol[] = "\xE2\x96\x81";

// Limits on a model file. LLaMA 2 has 32,000 pieces of at most 48 bytes in 0.5 MB.
inline constexpr int64_t kMaxSentencePieceFile = int64_t{64} << 20;
inline constexpr size_t kMaxPieces = size_t{1} << 20;
inline constexpr size_t kMaxPieceBytes = 1024;

// The numbers are those of the protobuf schema.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct Piece {
  std::string text;  // UTF-8
  float score = 0.0f;
  PieceType type = PieceType::kNormal;

  // True if the piece can stand for text of its own; the others have ids only.
  bool is_text() const {
    return type == PieceType::kNormal || type == PieceType::kUserDefined ||
           type == PieceType::kUnused;
  }
};

// The parts of a SentencePiece `tokenizer.model` that encoding and decoding use.
struct SentencePieceModel {
  enum class Algorithm : uint8_t { kUnigram = 1, kBpe = 2 };

  Algorithm algorithm = Algorithm::kUnigram;
  std::vector<Piece> pieces;  // by id
  int32_t unk_id = -1;        // the one piece of type kUnknown
  int32_t bos_id = -1;        // -1: none
  int32_t eos_id = -1;
  std::string unk_surface = " \xE2\x81\x87 ";  // what the unknown piece is printed as
  bool byte_fallback = false;                  // unknown text becomes byte pieces
  int32_t byte_ids[256] = {};                  // by byte, if byte_fallback
  // Of the normaliser.
  std::string charsmap;  // see TextNormalizer
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// Checks the pieces of a model against each other and fills in what follows from them: the unknown,
// BOS and EOS pieces (the control pieces called `bos` and `eos`) and the byte pieces.
// INVALID_ARGUMENT says what is wrong.
absl::Status IndexPieces(std::string_view bos, std::string_view eos, SentencePieceModel* model);

// Parses and checks the protobuf ModelProto. INVALID_ARGUMENT says what is wrong with it;
// UNIMPLEMENTED names a feature that no language model known to us uses.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view serialized);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_SENTENCEPIECE_MODEL_H_
