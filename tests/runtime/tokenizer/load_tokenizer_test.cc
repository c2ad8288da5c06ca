#include "runtime/tokenizer/load_tokenizer.h"

#include <algorithm>

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

constexpr char kJson[] = R"({
  "added_tokens": [{"id": 2, "content": "<s>", "special": true, "normalized": false},
                   {"id": 3, "content": "<end>", "special": false, "normalized": false}],
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
  "decoder": {"type": "ByteLevel"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})";

std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.Encode(text, true).value();
}

TEST(LoadTokenizer, TheConfigurationNamesControlTokensOfTokenizerJson) {
  const TempDir dir;
  dir.Write("tokenizer.json", kJson);
  auto tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), -1);
  EXPECT_EQ(Encode(**tokenizer, "a<s><end>"), (std::vector<int32_t>{0, 3}));

  dir.Write("tokenizer_config.json",
            R"({"bos_token": "<s>", "eos_token": {"content": "<end>"}, "add_bos_token": true})");
  tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), 2);
  EXPECT_EQ((*tokenizer)->eos_id(), 3);
  EXPECT_TRUE((*tokenizer)->IsControl(3));
  EXPECT_EQ(Encode(**tokenizer, "a<end>"), (std::vector<int32_t>{2, 0}));
  EXPECT_EQ((*tokenizer)->EncodeMarkup("a<end>", {}).value(), (std::vector<int32_t>{0, 3}));
}

TEST(LoadTokenizer, SpecialTokensMapIsReadToo) {
  const TempDir dir;
  dir.Write("tokenizer.json", kJson);
  dir.Write("special_tokens_map.json", R"({"eos_token": "<end>", "pad_token": false})");
  const auto tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos_id(), 3);
}

TEST(LoadTokenizer, AddBosTokenFalseTakesTheBosOfThePostProcessorAway) {
  const TempDir dir;
  std::filesystem::copy(LACUNA_SOURCE_DIR "/tests/data/tokenizers/llama3/tokenizer.json",
                        dir.File("tokenizer.json"));
  auto tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Encode(**tokenizer, "").size(), 1u);
  dir.Write("tokenizer_config.json",
            R"({"bos_token": "<|begin_of_text|>", "add_bos_token": false})");
  tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Encode(**tokenizer, "").size(), 0u);
}

TEST(LoadTokenizer, OptPutsItsEndTokenFirst) {
  const auto tokenizer = LoadTokenizer(LACUNA_SOURCE_DIR "/tests/data/tokenizers/opt");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), 2);
  EXPECT_EQ((*tokenizer)->eos_id(), 2);
  EXPECT_TRUE((*tokenizer)->IsControl(2));
  EXPECT_EQ(Encode(**tokenizer, "").size(), 1u);
  EXPECT_EQ(Encode(**tokenizer, "").front(), 2);
}

TEST(LoadTokenizer, Gpt2NeedsNoConfiguration) {
  const TempDir dir;
  dir.Write("vocab.json", R"({"a": 0, "<|endoftext|>": 1})");
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), absl::StatusCode::kNotFound,
                      "not both vocab.json and merges.txt"));
  dir.Write("merges.txt", "");
  dir.Write("added_tokens.json", R"({"<x>": 2})");
  const auto tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->eos_id(), 1);
  EXPECT_EQ(Encode(**tokenizer, "a<x>"), (std::vector<int32_t>{0, 2}));
}

TEST(LoadTokenizer, ASentencePieceModelThatLacksAddedTokensGivesWayToTokenizerJson) {
  const TempDir dir;
  dir.Write("tokenizer.model", Model());
  dir.Write("tokenizer_config.json", R"({"added_tokens_decoder": {"5": {"content": "<x>"}}})");
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), kInvalid,
                      "has no token 5, which another file adds as \"<x>\""));
  dir.Write("tokenizer.json", kJson);
  const auto tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 4);
}

TEST(LoadTokenizer, ControlPiecesOfASentencePieceModelAreReadInMarkup) {
  const TempDir dir;
  dir.Write("tokenizer.model", Model());
  const auto tokenizer = LoadTokenizer(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->EncodeMarkup("<s>a</s>", {}).value(), (std::vector<int32_t>{1, 3, 4, 2}));
  const auto literal = (*tokenizer)->EncodeMarkup("<s>a</s>", std::vector<ByteRange>{{3, 8}});
  EXPECT_EQ(literal->front(), 1);
  EXPECT_NE(literal->back(), 2);
}

TEST(LoadTokenizer, PiecesThatTheConfigurationCallsSpecialAreControlTokens) {
  const TempDir dir;
  const std::string pieces = SpecialPieces() + PieceField("\u2581", -1) + PieceField("a", -1) +
                             PieceField("<turn>", 0, PieceType::kUserDefined) +
                             PieceField("<end>", -2);
  dir.Write("tokenizer.model", pieces + TrainerSpec(SentencePieceModel::Algorithm::kBpe, false));
  const auto turns = [&] {
    const auto tokenizer = LoadTokenizer(dir.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    const std::vector<int32_t> ids = Encode(**tokenizer, "a<turn>");
    return std::count(ids.begin(), ids.end(), 5);
  };
  EXPECT_EQ(turns(), 1);
  dir.Write("tokenizer_config.json", R"({"eos_token": "<end>",
      "added_tokens_decoder": {"5": {"content": "<turn>", "special": true}}})");
  EXPECT_EQ(turns(), 0) << "a text must not spell it";
  const auto tokenizer = LoadTokenizer(dir.path());
  EXPECT_EQ((*tokenizer)->EncodeMarkup("<turn><end>", {}).value(), (std::vector<int32_t>{5, 6}));
  EXPECT_TRUE((*tokenizer)->IsControl(6));
}

TEST(LoadTokenizer, NothingIsNotFound) {
  const TempDir dir;
  EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), absl::StatusCode::kNotFound,
                      dir.path() + " has no tokenizer.model"));
}

TEST(LoadTokenizer, BrokenSmallFilesAreNamed) {
  const std::pair<const char*, const char*> kCases[] = {
      {"tokenizer_config.json", R"({"bos_token": 3})"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": []})"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"-1": {}}})"},
      {"special_tokens_map.json", R"({"eos_token": {"content": 1}})"},
      {"added_tokens.json", R"({"<x>": "1"})"},
      {"added_tokens.json", "["},
  };
  for (const auto& [file, text] : kCases) {
    const TempDir dir;
    dir.Write("tokenizer.json", kJson);
    dir.Write(file, text);
    EXPECT_TRUE(IsError(LoadTokenizer(dir.path()).status(), kInvalid, dir.File(file))) << text;
  }
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
