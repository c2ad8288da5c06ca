#include "runtime/tokenizer/incremental_decoder.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"
#include "tests/runtime/tokenizer/sentencepiece_writer.h"

namespace lacuna {
namespace {

constexpr int32_t kFirstByte = 3;  // id of <0x00>

// Ids: 0 to 2 special, 3 to 258 bytes, 259 "hello", 260 a word with its space, 261 an emoji.
class IncrementalDecoderTest : public testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = MakeSentencePieceTokenizer(
        SpecialPieces() + BytePieces() + PieceField("hello", 0) + PieceField("\u2581world", 0) +
        PieceField("\U0001F600", 0) + TrainerSpec(SentencePieceModel::Algorithm::kBpe, true) +
        NormalizerSpec("", true, false));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }
  static int32_t Byte(unsigned char b) { return kFirstByte + b; }
  // What each token adds, then what Flush adds.
  std::vector<std::string> Run(const std::vector<int32_t>& tokens) {
    IncrementalDecoder decoder(tokenizer_.get());
    std::vector<std::string> out;
    for (const int32_t token : tokens) out.push_back(decoder.Append(token));
    out.push_back(decoder.Flush());
    return out;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

using Texts = std::vector<std::string>;

TEST_F(IncrementalDecoderTest, WordsComeAtOnceWithTheirSpaces) {
  EXPECT_EQ(Run({259, 260, 261}), (Texts{"hello", " world", "\U0001F600", ""}));
}

TEST_F(IncrementalDecoderTest, ControlTokensAddNothing) {
  EXPECT_EQ(Run({1, 259, 2}), (Texts{"", "hello", "", ""}));
}

TEST_F(IncrementalDecoderTest, BytesAreHeldBackUntilTheCharacterIsComplete) {
  EXPECT_EQ(Run({Byte(0xF0), Byte(0x9F), Byte(0x98), Byte(0x80)}),
            (Texts{"", "", "", "\U0001F600", ""}));
}

TEST_F(IncrementalDecoderTest, BrokenBytesAreReplacedAsSoonAsTheyProveBroken) {
  EXPECT_EQ(Run({Byte(0xE2), Byte(0x96), 259}), (Texts{"", "", "\uFFFD\uFFFDhello", ""}));
  EXPECT_EQ(Run({Byte(0xFF)}), (Texts{"\uFFFD", ""}));
  EXPECT_EQ(Run({Byte(0xC3), Byte(0xC3), Byte(0xA9)}), (Texts{"", "\uFFFD", "\u00E9", ""}));
}

TEST_F(IncrementalDecoderTest, FlushReplacesWhatIsHeldBack) {
  EXPECT_EQ(Run({259, Byte(0xE2), Byte(0x96)}), (Texts{"hello", "", "", "\uFFFD\uFFFD"}));
}

TEST_F(IncrementalDecoderTest, PartsTogetherAreWhatDecodeGivesAfterAWord) {
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    std::vector<int32_t> tokens = {259};
    for (int n = static_cast<int>(random() % 10); n > 0; --n) {
      // Mostly bytes that lead or follow in UTF-8.
      tokens.push_back(random() % 4 ? Byte(0x80 + random() % 128)
                                    : static_cast<int32_t>(random() % 262));
    }
    std::string joined;
    for (const std::string& part : Run(tokens)) {
      ASSERT_TRUE(IsValidUtf8(part));
      joined += part;
    }
    ASSERT_EQ(joined, tokenizer_->Decode(tokens).value());
  }
}

}  // namespace
}  // namespace lacuna
