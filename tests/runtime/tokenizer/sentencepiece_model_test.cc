#include "runtime/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <limits>

#include "tests/runtime/base/testing.h"
#include "tests/runtime/tokenizer/sentencepiece_writer.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr auto kBpe = SentencePieceModel::Algorithm::kBpe;

absl::Status Error(const std::string& serialized) {
  return ParseSentencePieceModel(serialized).status();
}

TEST(SentencePieceModel, ReadsPiecesAndSettings) {
  const auto model = ParseSentencePieceModel(
      SpecialPieces() + PieceField("\u2581a", -1.5) + PieceField("@", 0, PieceType::kUserDefined) +
      PieceField("z", 0, PieceType::kUnused) + BytePieces() +
      TrainerSpec(kBpe, true, BytesField(44, "?")) + NormalizerSpec("map", false, false));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->algorithm, kBpe);
  ASSERT_EQ(model->pieces.size(), 6u + 256u);
  EXPECT_EQ(model->pieces[3].text, "\u2581a");
  EXPECT_EQ(model->pieces[3].score, -1.5f);
  EXPECT_EQ(model->pieces[4].type, PieceType::kUserDefined);
  EXPECT_EQ(model->unk_id, 0);
  EXPECT_EQ(model->bos_id, 1);
  EXPECT_EQ(model->eos_id, 2);
  EXPECT_EQ(model->unk_surface, "?");
  EXPECT_TRUE(model->byte_fallback);
  EXPECT_EQ(model->byte_ids[0], 6);
  EXPECT_EQ(model->byte_ids[255], 6 + 255);
  EXPECT_EQ(model->charsmap, "map");
  EXPECT_FALSE(model->add_dummy_prefix);
  EXPECT_FALSE(model->remove_extra_whitespaces);
}

TEST(SentencePieceModel, DefaultsAreThoseOfTheSchema) {
  const auto model =
      ParseSentencePieceModel(BytesField(1, BytesField(1, "<unk>") + VarintField(3, 2)) +
                              BytesField(1, BytesField(1, "a")));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->algorithm, SentencePieceModel::Algorithm::kUnigram);
  EXPECT_EQ(model->pieces[1].type, PieceType::kNormal);
  EXPECT_EQ(model->pieces[1].score, 0.0f);
  EXPECT_EQ(model->bos_id, -1);
  EXPECT_EQ(model->eos_id, -1);
  EXPECT_TRUE(model->add_dummy_prefix);
  EXPECT_TRUE(model->remove_extra_whitespaces);
  EXPECT_FALSE(model->byte_fallback);
  EXPECT_EQ(model->unk_surface, " \u2047 ");
}

TEST(SentencePieceModel, SpecialPiecesHaveTheNamesOfTheTrainer) {
  const auto model = ParseSentencePieceModel(
      PieceField("<unk>", 0, PieceType::kUnknown) + PieceField("<b>", 0, PieceType::kControl) +
      PieceField("<e>", 0, PieceType::kControl) +
      TrainerSpec(kBpe, false, BytesField(46, "<b>") + BytesField(47, "<e>")));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->bos_id, 1);
  EXPECT_EQ(model->eos_id, 2);
}

TEST(SentencePieceModel, UnknownFieldsAreSkipped) {
  EXPECT_TRUE(Error(SpecialPieces() + BytesField(4, "self-test") + VarintField(200, 1) +
                    TrainerSpec(kBpe, false, VarintField(4, 8000) + FloatField(10, 0.9995f)))
                  .ok());
}

TEST(SentencePieceModel, RefusesMalformedProtobuf) {
  const std::string good = SpecialPieces();
  struct Case {
    const char* name;
    std::string bytes;
  };
  for (const Case& c : {Case{"cut tag", good + "\x80"},
                        {"cut value", good + "\x10\x80"},
                        {"length beyond the end", good + "\x0A\x05zz"},
                        {"length of 2^64 - 1", good + "\x0A" + VarintBytes(UINT64_MAX)},
                        {"varint of 11 bytes", good + "\x10" + std::string(10, '\x80') + "\x01"},
                        {"field number 0", good + std::string("\x02\x00", 2)},
                        {"field number beyond 2^29", good + VarintBytes(uint64_t{1} << 35)},
                        {"group", good + "\x0B"},
                        {"end of group", good + "\x0C"},
                        {"wire type 6", good + "\x0E"},
                        {"wire type 7", good + "\x0F"},
                        {"cut fixed32", good + "\xCD\x3F\x01"},
                        {"cut fixed64", good + "\xC9\x3F\x01"}}) {
    EXPECT_TRUE(IsError(Error(c.bytes), kInvalid,
                        "the model is not a valid protobuf message: error at its byte " +
                            std::to_string(good.size())))
        << c.name;
  }
  EXPECT_TRUE(IsError(Error(BytesField(1, "\x0A\x7F")), kInvalid, "piece 0 is not a valid"));
  EXPECT_TRUE(IsError(Error(BytesField(2, "\x80")), kInvalid, "trainer_spec is not a valid"));
  EXPECT_TRUE(IsError(Error(BytesField(3, "\x80")), kInvalid, "normalizer_spec is not a valid"));
  EXPECT_TRUE(IsError(Error(BytesField(5, "\x80")), kInvalid, "denormalizer_spec is not a valid"));
}

TEST(SentencePieceModel, RefusesFieldsOfTheWrongWireType) {
  EXPECT_TRUE(
      IsError(Error(VarintField(1, 5)), kInvalid, "the model has field 1 with wire type 0"));
  const auto piece = [](const std::string& fields) { return Error(BytesField(1, fields)); };
  EXPECT_TRUE(IsError(piece(VarintField(1, 5)), kInvalid, "piece 0 has field 1"));
  EXPECT_TRUE(IsError(piece(VarintField(2, 5)), kInvalid, "piece 0 has field 2"));
  EXPECT_TRUE(IsError(piece(BytesField(3, "x")), kInvalid, "piece 0 has field 3"));
  for (const int field : {3, 24, 35}) {
    EXPECT_TRUE(IsError(Error(BytesField(2, BytesField(field, "x"))), kInvalid,
                        "trainer_spec has field " + std::to_string(field)));
  }
  for (const int field : {44, 46, 47}) {
    EXPECT_TRUE(IsError(Error(BytesField(2, VarintField(field, 1))), kInvalid,
                        "trainer_spec has field " + std::to_string(field)));
  }
  EXPECT_TRUE(IsError(Error(BytesField(3, VarintField(2, 1))), kInvalid, "normalizer_spec has"));
  for (const int field : {3, 4, 5}) {
    EXPECT_TRUE(IsError(Error(BytesField(3, BytesField(field, "x"))), kInvalid,
                        "normalizer_spec has field " + std::to_string(field)));
  }
}

TEST(SentencePieceModel, RefusesBadPieces) {
  const auto with = [](const std::string& piece) { return Error(SpecialPieces() + piece); };
  EXPECT_TRUE(IsError(with(PieceField("", 0)), kInvalid, "piece 3 is empty"));
  EXPECT_TRUE(IsError(with(PieceField(std::string(1025, 'a'), 0)), kInvalid,
                      "piece 3 has 1025 bytes, the limit is 1024"));
  EXPECT_TRUE(with(PieceField(std::string(1024, 'a'), 0)).ok());
  EXPECT_TRUE(IsError(with(PieceField(std::string(200'000, 'a'), 0)), kInvalid, "200000 bytes"));
  EXPECT_TRUE(IsError(with(PieceField("a\xFF", 0)), kInvalid, "piece 3 is not UTF-8"));
  EXPECT_TRUE(IsError(with(PieceField(std::string_view("a\0b", 3), 0)), kInvalid,
                      "piece 3 is not UTF-8 without NUL"));
  EXPECT_TRUE(IsError(with(PieceField("a", 0) + PieceField("b", 0) + PieceField("a", 0)), kInvalid,
                      "pieces 3 and 5 are both \"a\""));
  for (const float score : {NAN, INFINITY, -INFINITY}) {
    EXPECT_TRUE(IsError(with(PieceField("a", score)), kInvalid, "piece 3 has the score"));
  }
  for (const int type : {0, 7, 255}) {
    EXPECT_TRUE(IsError(with(PieceField("a", 0, static_cast<PieceType>(type))), kInvalid,
                        "piece 3 has the unknown type " + std::to_string(type)));
  }
  EXPECT_TRUE(IsError(with(PieceField("b", 0, PieceType::kUnknown)), kInvalid,
                      "pieces 0 and 3 are both of the type unknown"));
  EXPECT_TRUE(IsError(Error(PieceField("a", 0)), kInvalid, "no piece is of the type unknown"));
  EXPECT_TRUE(IsError(Error(""), kInvalid, "no piece is of the type unknown"));
}

TEST(SentencePieceModel, RefusesBadBytePieces) {
  const std::string spec = TrainerSpec(kBpe, true);
  for (const char* const text : {"<0x-1>", "<0xZZ>", "<0xff>", "<0x1>", "<0x100>", "0x41", "a"}) {
    EXPECT_TRUE(IsError(Error(SpecialPieces() + PieceField(text, 0, PieceType::kByte) + spec),
                        kInvalid, std::string("byte piece 3 is \"") + text))
        << text;
  }
  EXPECT_TRUE(IsError(Error(SpecialPieces() + spec), kInvalid, "0 byte pieces with byte_fallback"));
  EXPECT_TRUE(IsError(Error(SpecialPieces() + PieceField("<0x00>", 0, PieceType::kByte) + spec),
                      kInvalid, "1 byte pieces with byte_fallback on, expected 256"));
  EXPECT_TRUE(IsError(Error(SpecialPieces() + BytePieces() + TrainerSpec(kBpe, false)), kInvalid,
                      "256 byte pieces with byte_fallback off"));
  EXPECT_TRUE(IsError(Error(SpecialPieces() + BytePieces() + BytePieces() + spec), kInvalid,
                      "are both \"<0x00>\""));
}

TEST(SentencePieceModel, RefusesWhatItDoesNotRun) {
  const auto trainer = [](const std::string& fields) {
    return Error(SpecialPieces() + BytesField(2, fields));
  };
  EXPECT_TRUE(IsError(trainer(VarintField(3, 3)), kUnimplemented, "model_type 3"));
  EXPECT_TRUE(IsError(trainer(VarintField(3, 4)), kUnimplemented, "model_type 4"));
  EXPECT_TRUE(IsError(trainer(VarintField(24, 1)), kUnimplemented, "treat_whitespace_as_suffix"));
  EXPECT_TRUE(IsError(Error(SpecialPieces() + BytesField(3, VarintField(5, 0))), kUnimplemented,
                      "escape_whitespaces = false"));
  EXPECT_TRUE(IsError(Error(SpecialPieces() + BytesField(5, BytesField(2, "x"))), kUnimplemented,
                      "a denormalizer"));
  EXPECT_TRUE(IsError(trainer(BytesField(44, "\xFF")), kInvalid, "unk_surface is not UTF-8"));
  EXPECT_TRUE(IsError(trainer(BytesField(44, std::string(1025, 'a'))), kInvalid,
                      "unk_surface is not UTF-8 of at most 1024 bytes"));
}

TEST(SentencePieceModel, BoundsTheFileAndTheNumberOfPieces) {
  EXPECT_TRUE(IsError(Error(std::string((64 << 20) + 1, '\0')), kInvalid, "the limit is 67108864"));
  std::string many;
  const std::string piece = BytesField(1, BytesField(1, "a"));
  for (int i = 0; i <= 1 << 20; ++i) many += piece;
  EXPECT_TRUE(IsError(Error(many), kInvalid, "more than 1048576 pieces"));
}

TEST(SentencePieceModel, TruncationAndFlippedBitsAreNeverMoreThanAnError) {
  const std::string good = SpecialPieces() + PieceField("\u2581a", -1) + PieceField("b", -2) +
                           TrainerSpec(kBpe, false, BytesField(46, "<s>")) +
                           NormalizerSpec("", true, false);
  ASSERT_TRUE(Error(good).ok());
  for (size_t size = 0; size < good.size(); ++size) {
    const absl::Status status = Error(good.substr(0, size));
    EXPECT_TRUE(status.ok() || status.code() == kInvalid) << size << " " << status;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    const absl::Status status = Error(bytes);
    if (!status.ok()) {
      EXPECT_TRUE(status.code() == kInvalid || status.code() == kUnimplemented) << status;
    }
  }
}

}  // namespace
}  // namespace lacuna
