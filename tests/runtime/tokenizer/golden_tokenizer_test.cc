#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "runtime/tokenizer/incremental_decoder.h"
#include "runtime/tokenizer/load_tokenizer.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"

namespace lacuna {
namespace {

// tests/oracle/make_golden.py writes these with the SentencePiece library.
TEST(GoldenTokenizer, EncodesAndDecodesAsTheLibrary) {
  const std::string root = LACUNA_SOURCE_DIR;
  absl::StatusOr<std::string> text = ReadFile(root + "/tests/data/golden/tokenizer.json", 64 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  const nlohmann::json golden = nlohmann::json::parse(*text);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadTokenizer(root + "/models/" + golden["model"].get<std::string>());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), golden["vocab_size"].get<int>());
  ASSERT_GT(golden["cases"].size(), 100u);
  for (const nlohmann::json& item : golden["cases"]) {
    const auto input = item["text"].get<std::string>();
    const auto ids = item["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ((*tokenizer)->Encode(input, false).value(), ids) << input;
    EXPECT_EQ((*tokenizer)->Decode(ids).value(), item["decoded"].get<std::string>()) << input;
  }
}

}  // namespace
}  // namespace lacuna
