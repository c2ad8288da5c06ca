#include "runtime/tokenizer/load_tokenizer.h"

#include "tests/runtime/base/testing.h"
#include "tests/runtime/tokenizer/sentencepiece_writer.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Model() {
  return SpecialPieces() + PieceField("\u2581", -1) + PieceField("a", -2) +
         TrainerSpec(SentencePieceModel::Algorithm::kBpe, false);
}

std::vector<int32_t> EncodeA(const TempDir& dir) {
  const auto tokenizer = LoadTokenizer(dir.path());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? (*tokenizer)->Encode("a", true).value() : std::vector<int32_t>{};
}

TEST(LoadTokenizer, PutsBosFirstUnlessTheConfigSaysNo) {
  const TempDir dir;
  dir.Write("tokenizer.model", Model());
  EXPECT_EQ(EncodeA(dir), (std::vector<int32_t>{1, 3, 4}));
  dir.Write("tokenizer_config.json", R"({"add_bos_token": true})");
  EXPECT_EQ(EncodeA(dir), (std::vector<int32_t>{1, 3, 4}));
  dir.Write("tokenizer_config.json", R"({"add_bos_token": null})");
  EXPECT_EQ(EncodeA(dir), (std::vector<int32_t>{1, 3, 4}));
  dir.Write("tokenizer_config.json", R"({"add_bos_token": false})");
  EXPECT_EQ(EncodeA(dir), (std::vector<int32_t>{3, 4}));
}

TEST(LoadTokenizer, OnlyTokenizerJsonIsUnimplemented) {
  const TempDir dir;
  dir.Write("tokenizer.json", "{}");
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), absl::StatusCode::kUnimplemented,
                      "has tokenizer.json but no tokenizer.model"));
}

TEST(LoadTokenizer, NothingIsNotFound) {
  const TempDir dir;
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), absl::StatusCode::kNotFound,
                      dir.path() + " has no tokenizer.model"));
}

TEST(LoadTokenizer, BrokenFilesAreNamed) {
  const TempDir dir;
  dir.Write("tokenizer.model", "\xFF");
  dir.Write("tokenizer.json", "{}");
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), kInvalid,
                      dir.File("tokenizer.model") + ": the model is not a valid protobuf"));
  dir.Write("tokenizer_config.json", R"({"add_bos_token": "no"})");
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), kInvalid,
                      dir.File("tokenizer_config.json") + " has add_bos_token = \"no\""));
  dir.Write("tokenizer_config.json", "{");
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), kInvalid, "is not valid JSON"));
}

}  // namespace
}  // namespace lacuna
