// The vocabularies of GGUF files against the files that they are made from.

#include "runtime/model/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/load_tokenizer.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"
#include "runtime/tokenizer/tokenizer_json.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/gguf_writer.h"
#include "tests/runtime/tokenizer/golden_strings.h"

namespace lacuna {
namespace {

using testing::HasSubstr;

const std::string kRoot = LACUNA_SOURCE_DIR "/";

GoldenStrings Strings() {
  const auto text = ReadFile(kRoot + "tests/data/tokenizers/atoms.json", 1 << 20);
  return GoldenStrings(nlohmann::json::parse(*text)["atoms"].get<std::vector<std::string>>());
}

// Calls `use` with the header of a file; what it returns may not refer to it.
template <typename Use>
auto WithHeader(const GgufWriter& file, Use use) {
  const std::string bytes = file.Bytes();
  return use(*ParseGgufHeader(bytes, static_cast<int64_t>(bytes.size())));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const GgufWriter& file) {
  return WithHeader(file, MakeGgufTokenizer);
}

void ExpectTheSame(const Tokenizer& got, const Tokenizer& want, int strings) {
  EXPECT_EQ(got.vocab_size(), want.vocab_size());
  const GoldenStrings golden = Strings();
  for (int i = 0; i < strings; ++i) {
    const std::string text = golden.Make(i);
    const std::vector<int32_t> ids = want.Encode(text, true).value();
    ASSERT_EQ(got.Encode(text, true).value(), ids) << Quoted(text);
    ASSERT_EQ(got.Decode(ids).value(), want.Decode(ids).value()) << Quoted(text);
    ASSERT_EQ(got.EncodeMarkup(text, {}).value(), want.EncodeMarkup(text, {}).value())
        << Quoted(text);
  }
  for (int32_t id = 0; id < want.vocab_size(); ++id) {
    ASSERT_EQ(got.IsControl(id), want.IsControl(id)) << id;
    ASSERT_EQ(got.TokenBytes(id), want.TokenBytes(id)) << id;
  }
}

// The same vocabulary in a GGUF file and in a tokenizer.json that has its parity with Hugging Face
// tested elsewhere: a folder of tests/data/tokenizers, and the pre-tokenizer's name.
using Family = std::pair<const char*, const char*>;
class GgufByteLevelTest : public testing::TestWithParam<Family> {};

TEST_P(GgufByteLevelTest, IsThatOfTheTokenizerJson) {
  const auto& [folder, pre] = GetParam();
  const std::string directory = kRoot + "tests/data/tokenizers/" + folder;
  const auto text = ReadFile(directory + "/tokenizer.json", 1 << 20);
  const BpeTokenizerSpec spec = ParseTokenizerJson(*text, "tokenizer.json").value();
  std::vector<std::pair<int32_t, std::string>> by_id;
  for (const auto& [token, id] : spec.bpe.vocab) by_id.emplace_back(id, token);
  for (const AddedToken& token : spec.added_tokens) by_id.emplace_back(token.id, token.content);
  std::sort(by_id.begin(), by_id.end());
  by_id.erase(std::unique(by_id.begin(), by_id.end()), by_id.end());
  std::vector<std::string> tokens;
  std::vector<int32_t> types(by_id.size(), 1);
  for (const auto& [id, token] : by_id) {
    ASSERT_EQ(id, static_cast<int32_t>(tokens.size()));
    tokens.push_back(token);
  }
  for (const AddedToken& token : spec.added_tokens) types[token.id] = token.special ? 3 : 4;
  std::vector<std::string> merges;
  for (const auto& [left, right] : spec.bpe.merges) merges.push_back(left + " " + right);

  GgufWriter file;
  file.Set("tokenizer.ggml.model", "gpt2");
  file.Set("tokenizer.ggml.pre", pre);
  file.Set("tokenizer.ggml.tokens", tokens);
  file.Set("tokenizer.ggml.token_type", types);
  file.Set("tokenizer.ggml.merges", merges);
  file.Set("tokenizer.ggml.bos_token_id", 0u);
  const auto got = MakeTokenizer(file);
  ASSERT_TRUE(got.ok()) << got.status();
  ExpectTheSame(**got, **LoadTokenizer(directory), 2000);
}

INSTANTIATE_TEST_SUITE_P(Families, GgufByteLevelTest,
                         testing::Values(Family("gpt2", "gpt-2"), Family("smollm2", "smollm"),
                                         Family("llama3", "llama-bpe"), Family("qwen2", "qwen2"),
                                         Family("o200k", "gpt-4o")),
                         [](const auto& info) { return std::string(info.param.first); });

// `model` as a GGUF file has it.
GgufWriter Scored(const SentencePieceModel& model) {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const Piece& piece : model.pieces) {
    tokens.push_back(piece.text);
    scores.push_back(piece.score);
    types.push_back(static_cast<int32_t>(piece.type));
  }
  GgufWriter file;
  file.Set("tokenizer.ggml.model", "llama");
  file.Set("tokenizer.ggml.tokens", tokens);
  file.Set("tokenizer.ggml.scores", scores);
  file.Set("tokenizer.ggml.token_type", types);
  file.Set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(model.bos_id));
  file.Set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(model.eos_id));
  file.Set("tokenizer.ggml.add_space_prefix", model.add_dummy_prefix);
  file.Set("tokenizer.ggml.remove_extra_whitespaces", model.remove_extra_whitespaces);
  return file;
}

TEST(GgufScored, IsThatOfTheSentencePieceModel) {
  const auto bytes = ReadFile(kRoot + "models/lacuna-stories-3m/tokenizer.model", 1 << 24);
  const SentencePieceModel model = ParseSentencePieceModel(*bytes).value();
  ASSERT_EQ(model.algorithm, SentencePieceModel::Algorithm::kBpe);
  ASSERT_TRUE(model.charsmap.empty());
  const auto got = MakeTokenizer(Scored(model));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ((*got)->bos_id(), model.bos_id);
  EXPECT_EQ((*got)->eos_id(), model.eos_id);
  ExpectTheSame(**got, **MakeSentencePieceTokenizer(*bytes), 2000);
}

TEST(GgufScored, SpacesOfAddedTokensAreSpaces) {
  GgufWriter file = SmallGguf();
  const auto with = [&](const std::string& token, int32_t type) {
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "\xE2\x96\x81", "a", token};
    file.Set("tokenizer.ggml.tokens", tokens);
    file.Set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1, 1, type});
    file.Set("tokenizer.ggml.scores", std::vector<float>(6, -1.0f));
    return MakeTokenizer(file).value();
  };
  EXPECT_EQ(with("  ", 4)->Encode("a  a", false).value(), (std::vector<int32_t>{3, 4, 5, 4}));
  EXPECT_EQ(with("x", 4)->Encode("axa", false).value(), (std::vector<int32_t>{3, 4, 5, 4}));
}

TEST(GgufScored, ControlTokensComeFromMarkupOnly) {
  const auto tokenizer = MakeTokenizer(SmallGguf()).value();
  EXPECT_EQ(tokenizer->EncodeMarkup("</s>", {}).value(), (std::vector<int32_t>{2}));
  EXPECT_GT(tokenizer->Encode("</s>", false).value().size(), 1u);
}

TEST(GgufTokenizer, BosComesFirstUnlessTheFileSaysNo) {
  GgufWriter file = SmallGguf();
  EXPECT_EQ(MakeTokenizer(file).value()->Encode("", true).value(), (std::vector<int32_t>{1}));
  file.Set("tokenizer.ggml.add_bos_token", false);
  EXPECT_TRUE(MakeTokenizer(file).value()->Encode("", true).value().empty());
  file.Set("tokenizer.ggml.model", "gpt2");
  file.Set("tokenizer.ggml.pre", "gpt-2");
  EXPECT_TRUE(MakeTokenizer(file).value()->Encode("", true).value().empty());
  file.Set("tokenizer.ggml.add_bos_token", true);
  EXPECT_EQ(MakeTokenizer(file).value()->Encode("", true).value(), (std::vector<int32_t>{1}));
  file.Remove("tokenizer.ggml.add_bos_token");
  file.Set("tokenizer.ggml.pre", "llama-bpe");
  EXPECT_EQ(MakeTokenizer(file).value()->Encode("", true).value(), (std::vector<int32_t>{1}));
}

TEST(GgufTokenizer, ABosThatIsNotThereCannotComeFirst) {
  constexpr char kWhatToDo[] =
      "there is no key \"tokenizer.ggml.bos_token_id\", but a text is to begin with that token; "
      "add it with: gguf-new-metadata --special-token bos TOKEN FILE NEW_FILE";
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  GgufWriter file = SmallGguf();
  file.Remove("tokenizer.ggml.bos_token_id");
  EXPECT_TRUE(IsError(MakeTokenizer(file).status(), kInvalid, kWhatToDo));
  file.Set("tokenizer.ggml.model", "gpt2");
  file.Set("tokenizer.ggml.pre", "llama-bpe");
  EXPECT_TRUE(IsError(MakeTokenizer(file).status(), kInvalid, kWhatToDo));
  file.Set("tokenizer.ggml.add_bos_token", false);
  EXPECT_TRUE(MakeTokenizer(file).value()->Encode("", true).value().empty());
}

TEST(GgufTokenizer, ListsLongerThanAnyVocabularyAreRefusedBeforeTheyTakeMemory) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  GgufWriter file = SmallGguf();
  file.Set("tokenizer.ggml.model", "gpt2");
  file.Set("tokenizer.ggml.pre", "gpt-2");
  const uint64_t count = (1 << 20) + 1;
  const std::string empty(count * sizeof(uint64_t), '\0');
  file.SetArray("tokenizer.ggml.merges", GgufValueType::kString, count, empty);
  EXPECT_TRUE(IsError(MakeTokenizer(file).status(), kInvalid,
                      "key \"tokenizer.ggml.merges\" lists 1048577 texts, the limit is 1048576"));
  file.SetArray("tokenizer.ggml.tokens", GgufValueType::kString, count, empty);
  EXPECT_TRUE(IsError(MakeTokenizer(file).status(), kInvalid,
                      "key \"tokenizer.ggml.tokens\" lists 1048577 texts, the limit is 1048576"));
}

TEST(GgufTokenizer, AnEndAfterEachPromptIsRefused) {
  GgufWriter file = SmallGguf();
  file.Set("tokenizer.ggml.add_eos_token", true);
  EXPECT_EQ(MakeTokenizer(file).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(GgufTokenizer, TheDefaultCutsNumbersAndPunctuation) {
  GgufWriter file;
  std::vector<std::string> tokens = {"1", "2", "3", "4", "12", "123", ",", "a", ",a"};
  file.Set("tokenizer.ggml.model", "gpt2");
  file.Set("tokenizer.ggml.pre", "default");
  file.Set("tokenizer.ggml.tokens", tokens);
  file.Set("tokenizer.ggml.merges", std::vector<std::string>{"1 2", "12 3", ", a"});
  EXPECT_EQ(MakeTokenizer(file).value()->Encode("1234,a", false).value(),
            (std::vector<int32_t>{5, 3, 6, 7}));
}

TEST(GgufChatTemplate, KnowsTheSpecialTokens) {
  GgufWriter file = SmallGguf();
  EXPECT_EQ(WithHeader(file, MakeGgufChatTemplate).status().code(), absl::StatusCode::kNotFound);
  file.Set("tokenizer.chat_template",
           "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}");
  const auto chat = WithHeader(file, MakeGgufChatTemplate);
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ((*chat)->Render({{"user", "hi"}})->text, "<s>hi</s>");
  file.Set("tokenizer.chat_template", "{% for");
  EXPECT_EQ(WithHeader(file, MakeGgufChatTemplate).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lacuna
