#include "runtime/tokenizer/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/bpe_model.h"

namespace lacuna {
namespace {

// Wire types of protobuf (its encoding guide); groups are refused.
constexpr int kVarint = 0;
constexpr int kFixed64 = 1;
constexpr int kBytes = 2;
constexpr int kFixed32 = 5;

// One field of a message. `number` and one of the values are set, by `wire`.
struct Field {
  uint64_t number = 0;
  int wire = kVarint;
  uint64_t value = 0;      // kVarint, kFixed64, kFixed32
  std::string_view bytes;  // kBytes
};

bool TakeVarint(std::string_view* in, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (in->empty()) return false;
    const auto byte = static_cast<uint8_t>(in->front());
    in->remove_prefix(1);
    *value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;  // more than 10 bytes
}

bool TakeFixed(std::string_view* in, size_t bytes, uint64_t* value) {
  if (in->size() < bytes) return false;
  *value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    *value |= uint64_t{static_cast<uint8_t>((*in)[i])} << (8 * i);
  }
  in->remove_prefix(bytes);
  return true;
}

bool TakeField(std::string_view* in, Field* field) {
  uint64_t tag = 0;
  if (!TakeVarint(in, &tag) || tag >> 32 != 0 || tag >> 3 == 0) return false;
  field->number = tag >> 3;
  field->wire = static_cast<int>(tag & 7);
  switch (field->wire) {
    case kVarint:
      return TakeVarint(in, &field->value);
    case kFixed64:
      return TakeFixed(in, 8, &field->value);
    case kFixed32:
      return TakeFixed(in, 4, &field->value);
    case kBytes:
      if (!TakeVarint(in, &field->value) || field->value > in->size()) return false;
      field->bytes = in->substr(0, field->value);
      in->remove_prefix(field->value);
      return true;
    default:
      return false;
  }
}

// Calls `visit` with each field of a message, until one fails.
absl::Status WalkFields(std::string_view message, absl::string_view what,
                        absl::FunctionRef<absl::Status(const Field&)> visit) {
  const size_t size = message.size();
  while (!message.empty()) {
    Field field;
    const size_t position = size - message.size();
    if (!TakeField(&message, &field)) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " is not a valid protobuf message: error at its byte ", position));
    }
    if (absl::Status status = visit(field); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WireError(absl::string_view what, const Field& field) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " has field ", field.number, " with wire type ", field.wire));
}

absl::Status ParsePiece(std::string_view message, size_t id, Piece* piece) {
  const std::string what = absl::StrCat("piece ", id);
  absl::Status status = WalkFields(message, what, [&](const Field& field) -> absl::Status {
    switch (field.number) {
      case 1:
        if (field.wire != kBytes) return WireError(what, field);
        piece->text = std::string(field.bytes);
        break;
      case 2:
        if (field.wire != kFixed32) return WireError(what, field);
        piece->score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
        break;
      case 3:
        if (field.wire != kVarint) return WireError(what, field);
        if (field.value < 1 || field.value > 6) {
          return absl::InvalidArgumentError(
              absl::StrCat(what, " has the unknown type ", field.value));
        }
        piece->type = static_cast<PieceType>(field.value);
        break;
      default:
        break;
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (piece->text.empty()) return absl::InvalidArgumentError(absl::StrCat(what, " is empty"));
  if (piece->text.size() > kMaxPieceBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has ", piece->text.size(), " bytes, the limit is ", kMaxPieceBytes));
  }
  if (!IsValidUtf8(piece->text) || piece->text.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is not UTF-8 without NUL: ", Quoted(piece->text)));
  }
  if (!std::isfinite(piece->score)) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has the score ", piece->score));
  }
  return absl::OkStatus();
}

// Names of special pieces; the model says their ids.
struct SpecialNames {
  std::string bos = "<s>";
  std::string eos = "</s>";
};

absl::Status ParseTrainerSpec(std::string_view message, SentencePieceModel* model,
                              SpecialNames* names) {
  constexpr absl::string_view kWhat = "trainer_spec";
  return WalkFields(message, kWhat, [&](const Field& field) -> absl::Status {
    switch (field.number) {
      case 3:
        if (field.wire != kVarint) return WireError(kWhat, field);
        if (field.value != 1 && field.value != 2) {
          return absl::UnimplementedError(absl::StrCat("model_type ", field.value,
                                                       " of SentencePiece, expected unigram (1) "
                                                       "or bpe (2)"));
        }
        model->algorithm = static_cast<SentencePieceModel::Algorithm>(field.value);
        break;
      case 24:
        if (field.wire != kVarint) return WireError(kWhat, field);
        if (field.value != 0) {
          return absl::UnimplementedError("treat_whitespace_as_suffix of SentencePiece");
        }
        break;
      case 35:
        if (field.wire != kVarint) return WireError(kWhat, field);
        model->byte_fallback = field.value != 0;
        break;
      case 44:
        if (field.wire != kBytes) return WireError(kWhat, field);
        if (field.bytes.size() > kMaxPieceBytes || !IsValidUtf8(field.bytes)) {
          return absl::InvalidArgumentError(
              absl::StrCat("unk_surface is not UTF-8 of at most ", kMaxPieceBytes, " bytes"));
        }
        model->unk_surface = std::string(field.bytes);
        break;
      case 46:
      case 47:
        if (field.wire != kBytes) return WireError(kWhat, field);
        (field.number == 46 ? names->bos : names->eos) = std::string(field.bytes);
        break;
      default:
        break;
    }
    return absl::OkStatus();
  });
}

absl::Status ParseNormalizerSpec(std::string_view message, SentencePieceModel* model) {
  constexpr absl::string_view kWhat = "normalizer_spec";
  return WalkFields(message, kWhat, [&](const Field& field) -> absl::Status {
    switch (field.number) {
      case 2:
        if (field.wire != kBytes) return WireError(kWhat, field);
        model->charsmap = std::string(field.bytes);
        break;
      case 3:
        if (field.wire != kVarint) return WireError(kWhat, field);
        model->add_dummy_prefix = field.value != 0;
        break;
      case 4:
        if (field.wire != kVarint) return WireError(kWhat, field);
        model->remove_extra_whitespaces = field.value != 0;
        break;
      case 5:
        if (field.wire != kVarint) return WireError(kWhat, field);
        if (field.value == 0) {
          return absl::UnimplementedError("escape_whitespaces = false of SentencePiece");
        }
        break;
      default:
        break;
    }
    return absl::OkStatus();
  });
}

absl::Status CheckDenormalizerSpec(std::string_view message) {
  return WalkFields(message, "denormalizer_spec", [](const Field& field) -> absl::Status {
    if (field.number == 2 && !field.bytes.empty()) {
      return absl::UnimplementedError("a denormalizer of SentencePiece");
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::Status IndexPieces(std::string_view bos, std::string_view eos, SentencePieceModel* model) {
  absl::flat_hash_map<std::string_view, int32_t> ids;
  ids.reserve(model->pieces.size());
  int byte_pieces = 0;
  for (int32_t id = 0; id < static_cast<int32_t>(model->pieces.size()); ++id) {
    const Piece& piece = model->pieces[id];
    const auto [it, is_new] = ids.emplace(piece.text, id);
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("pieces ", it->second, " and ", id, " are both ", Quoted(piece.text)));
    }
    if (piece.type == PieceType::kUnknown) {
      if (model->unk_id >= 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("pieces ", model->unk_id, " and ", id, " are both of the type unknown"));
      }
      model->unk_id = id;
    } else if (piece.type == PieceType::kByte) {
      const int byte = FallbackByte(piece.text);
      if (byte < 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "byte piece ", id, " is ", Quoted(piece.text), ", expected <0x00> to <0xFF>"));
      }
      model->byte_ids[byte] = id;
      ++byte_pieces;
    } else if (piece.type == PieceType::kControl) {
      if (piece.text == bos) model->bos_id = id;
      if (piece.text == eos) model->eos_id = id;
    }
  }
  if (model->unk_id < 0) {
    return absl::InvalidArgumentError("no piece is of the type unknown");
  }
  if (byte_pieces != (model->byte_fallback ? 256 : 0)) {
    return absl::InvalidArgumentError(absl::StrCat(byte_pieces, " byte pieces with byte_fallback ",
                                                   model->byte_fallback ? "on" : "off",
                                                   ", expected 256 with it and none without"));
  }
  return absl::OkStatus();
}

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string_view serialized) {
  if (serialized.size() > static_cast<size_t>(kMaxSentencePieceFile)) {
    return absl::InvalidArgumentError(absl::StrCat("the model has ", serialized.size(),
                                                   " bytes, the limit is ", kMaxSentencePieceFile));
  }
  SentencePieceModel model;
  SpecialNames names;
  constexpr absl::string_view kWhat = "the model";
  absl::Status status = WalkFields(serialized, kWhat, [&](const Field& field) -> absl::Status {
    if (field.number > 5) return absl::OkStatus();  // extensions
    if (field.wire != kBytes) return WireError(kWhat, field);
    switch (field.number) {
      case 1:
        if (model.pieces.size() == kMaxPieces) {
          return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxPieces, " pieces"));
        }
        model.pieces.emplace_back();
        return ParsePiece(field.bytes, model.pieces.size() - 1, &model.pieces.back());
      case 2:
        return ParseTrainerSpec(field.bytes, &model, &names);
      case 3:
        return ParseNormalizerSpec(field.bytes, &model);
      case 5:
        return CheckDenormalizerSpec(field.bytes);
      default:
        return absl::OkStatus();  // self-test data
    }
  });
  status.Update(status.ok() ? IndexPieces(names.bos, names.eos, &model) : absl::OkStatus());
  if (!status.ok()) return status;
  return model;
}

}  // namespace lacuna
