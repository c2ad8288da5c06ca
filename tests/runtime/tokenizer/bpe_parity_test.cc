#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "runtime/base/file.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/incremental_decoder.h"
#include "runtime/tokenizer/load_tokenizer.h"
#include "tests/runtime/tokenizer/golden_strings.h"

namespace lacuna {
namespace {

const std::string kFolder = LACUNA_SOURCE_DIR "/tests/data/tokenizers/";

nlohmann::json ReadJson(const std::string& name) {
  absl::StatusOr<std::string> text = ReadFile(kFolder + name, 64 << 20);
  if (!text.ok()) ADD_FAILURE() << text.status();
  return nlohmann::json::parse(text.ok() ? *text : "{}");
}

// Against Hugging Face's `tokenizers`: tests/oracle/make_tokenizers.py made the tokenizers, of the
// kinds that their names say, and golden.json.
class BpeParityTest : public testing::TestWithParam<const char*> {};

TEST_P(BpeParityTest, EncodesAndDecodesTenThousandStringsAsTheLibrary) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> loaded = LoadTokenizer(kFolder + GetParam());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Tokenizer& tokenizer = **loaded;
  const GoldenStrings strings(ReadJson("atoms.json")["atoms"].get<std::vector<std::string>>());
  const nlohmann::json golden = ReadJson("golden.json");
  const nlohmann::json& expected = golden["tokenizers"][GetParam()];

  const int count = golden["strings"].get<int>();
  const int block = golden["block"].get<int>();
  ASSERT_EQ(count, 10000);
  int index = 0;
  for (const nlohmann::json& shown : expected["shown"]) {
    const std::string text = strings.Make(index++);
    ASSERT_EQ(text, shown["text"].get<std::string>());
    EXPECT_EQ(tokenizer.Encode(text, false).value(), shown["ids"].get<std::vector<int32_t>>())
        << Quoted(text);
  }
  for (int begin = 0; begin < count; begin += block) {
    Fnv hash;
    for (int i = begin; i < begin + block; ++i) {
      const std::string text = strings.Make(i);
      const std::vector<int32_t> ids = tokenizer.Encode(text, false).value();
      hash.Add(ids);
      hash.Add(tokenizer.EncodeMarkup(text, {}).value());
      hash.Add(tokenizer.Decode(ids).value());
    }
    EXPECT_EQ(absl::StrFormat("%016x", hash.value()), expected["hashes"][begin / block])
        << "strings " << begin << " to " << begin + block - 1;
  }
}

TEST_P(BpeParityTest, TokensOneByOneAreTheWholeText) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> loaded = LoadTokenizer(kFolder + GetParam());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Tokenizer& tokenizer = **loaded;
  const GoldenStrings strings(ReadJson("atoms.json")["atoms"].get<std::vector<std::string>>());
  for (int i = 0; i < 500; ++i) {
    // A letter first, as the spaces that Decode takes off the start are in the tokens.
    std::vector<int32_t> ids = tokenizer.EncodeMarkup("x" + strings.Make(i), {}).value();
    IncrementalDecoder decoder(&tokenizer);
    std::string text;
    for (const int32_t id : ids) {
      const std::string part = decoder.Append(id);
      ASSERT_TRUE(IsValidUtf8(part));
      text += part;
    }
    text += decoder.Flush();
    const std::string whole = tokenizer.Decode(ids).value();
    ASSERT_EQ(text.substr(text.size() - whole.size()), whole) << i;
    ASSERT_LE(text.size() - whole.size(), 1u);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, BpeParityTest,
                         testing::Values("gpt2", "opt", "llama3", "qwen2", "smollm2", "cl100k",
                                         "o200k", "deepseek", "folding", "llama2", "mistral",
                                         "gemma", "metaspace"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lacuna
