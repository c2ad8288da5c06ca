#include "runtime/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <ctime>

#include "tests/runtime/base/testing.h"
#include "tests/runtime/tokenizer/sentencepiece_writer.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kBpe = SentencePieceModel::Algorithm::kBpe;
constexpr auto kUnigram = SentencePieceModel::Algorithm::kUnigram;

using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> Make(const std::string& pieces,
                                SentencePieceModel::Algorithm algorithm = kBpe,
                                bool byte_fallback = false) {
  auto tokenizer =
      MakeSentencePieceTokenizer(SpecialPieces() + pieces + TrainerSpec(algorithm, byte_fallback) +
                                 NormalizerSpec("", false, false));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(SentencePieceTokenizer, BpeJoinsTheBestPairThenTheLeftmost) {
  const auto t =
      Make(PieceField("a", -9) + PieceField("b", -9) + PieceField("ab", -2) + PieceField("ba", -1));
  EXPECT_EQ(t->Encode("ab", false).value(), (Ids{5}));
  EXPECT_EQ(t->Encode("aba", false).value(), (Ids{3, 6}));  // "ba" before "ab"
  EXPECT_EQ(t->Encode("abab", false).value(), (Ids{3, 6, 4}));
  EXPECT_EQ(t->Encode("baba", false).value(), (Ids{6, 6}));  // of equals, the leftmost
}

TEST(SentencePieceTokenizer, BpeTakesUnusedPiecesApartAgain) {
  const auto t = Make(PieceField("a", -9) + PieceField("b", -9) +
                      PieceField("ab", -1, PieceType::kUnused) + PieceField("abb", -2));
  EXPECT_EQ(t->Encode("ab", false).value(), (Ids{3, 4}));
  EXPECT_EQ(t->Encode("abb", false).value(), (Ids{6}));
}

TEST(SentencePieceTokenizer, UnigramTakesTheCutWithTheBestSum) {
  const auto t = Make(PieceField("a", -1) + PieceField("b", -1) + PieceField("ab", -2.5) +
                          PieceField("abc", -3) + PieceField("c", -1.5),
                      kUnigram);
  EXPECT_EQ(t->Encode("ab", false).value(), (Ids{3, 4}));
  EXPECT_EQ(t->Encode("abc", false).value(), (Ids{6}));
  EXPECT_EQ(t->Encode("", false).value(), Ids{});
}

TEST(SentencePieceTokenizer, UnknownTextBecomesBytesOrOneUnknownToken) {
  for (const auto algorithm : {kBpe, kUnigram}) {
    const auto plain = Make(PieceField("a", -1), algorithm);
    EXPECT_EQ(plain->Encode("a\u00E9\u00E9za", false).value(), (Ids{3, 0, 3}));
    const auto bytes = Make(PieceField("a", -1) + BytePieces(), algorithm, true);
    EXPECT_EQ(bytes->Encode("a\u00E9", false).value(), (Ids{3, 4 + 0xC3, 4 + 0xA9}));
  }
}

TEST(SentencePieceTokenizer, UserDefinedSymbolsAreNeverCutOrJoined) {
  const std::string pieces =
      PieceField("a", -9) + PieceField("x", -9) + PieceField("<x", 0, PieceType::kUserDefined) +
      PieceField("<xx>", 0, PieceType::kUserDefined) + PieceField("xa", -1) + PieceField("a<x", -1);
  for (const auto algorithm : {kBpe, kUnigram}) {
    const auto t = Make(pieces, algorithm);
    EXPECT_EQ(t->Encode("a<xx>a", false).value(), (Ids{3, 6, 3}));
    EXPECT_EQ(t->Encode("<xxa", false).value(), (Ids{5, 7}));
  }
}

TEST(SentencePieceTokenizer, NestedUserDefinedSymbolsMatchTheLongest) {
  std::string pieces;
  for (int n = 1; n <= 200; ++n) {
    pieces += PieceField(std::string(n, '@'), 0, PieceType::kUserDefined);
  }
  const auto t = Make(pieces);
  EXPECT_EQ(t->Encode(std::string(200, '@'), false).value(), (Ids{202}));
  EXPECT_EQ(t->Encode(std::string(265, '@'), false).value(), (Ids{202, 67}));
}

TEST(SentencePieceTokenizer, TextNeverBecomesControlOrByteTokens) {
  const auto t = Make(PieceField("Z", 0, PieceType::kControl) + BytePieces(), kBpe, true);
  for (const char* const text : {"<s>", "</s>", "<unk>", "<0x41>", "Z"}) {
    const Ids ids = t->Encode(text, false).value();
    ASSERT_EQ(ids.size(), std::string(text).size()) << text;
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(ids[i], 4 + static_cast<unsigned char>(text[i]));
      EXPECT_FALSE(t->IsControl(ids[i]));
    }
  }
}

TEST(SentencePieceTokenizer, BosComesFirstIfAskedForAndWanted) {
  const std::string model = SpecialPieces() + PieceField("a", -1) + TrainerSpec(kBpe, false) +
                            NormalizerSpec("", false, false);
  EXPECT_EQ((*MakeSentencePieceTokenizer(model))->Encode("a", true).value(), (Ids{1, 3}));
  EXPECT_EQ((*MakeSentencePieceTokenizer(model))->Encode("a", false).value(), (Ids{3}));
  EXPECT_EQ((*MakeSentencePieceTokenizer(model))->Encode("", true).value(), (Ids{1}));
  EXPECT_EQ((*MakeSentencePieceTokenizer(model, false))->Encode("a", true).value(), (Ids{3}));
  const auto without_bos =
      MakeSentencePieceTokenizer(PieceField("<unk>", 0, PieceType::kUnknown) + PieceField("a", -1));
  EXPECT_EQ((*without_bos)->bos_id(), -1);
  EXPECT_EQ((*without_bos)->Encode("", true).value(), Ids{});
}

TEST(SentencePieceTokenizer, RefusesTextThatIsNotUtf8) {
  const auto t = Make(PieceField("a", -1));
  for (const char* const text : {"\xFF", "a\xE2\x96", "\xC0\x80", "\xED\xA0\x80"}) {
    EXPECT_TRUE(IsError(t->Encode(text, true).status(), kInvalid, "not valid UTF-8"));
  }
}

TEST(SentencePieceTokenizer, TokenBytesAreWhatATokenAddsToRunningText) {
  const auto t = Make(PieceField("\u2581a\u2581", -1) + BytePieces(), kBpe, true);
  EXPECT_EQ(t->vocab_size(), 4 + 256);
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_id(), 2);
  EXPECT_EQ(t->TokenBytes(0), " \u2047 ");
  EXPECT_EQ(t->TokenBytes(1), "");
  EXPECT_EQ(t->TokenBytes(2), "");
  EXPECT_EQ(t->TokenBytes(3), " a ");
  EXPECT_EQ(t->TokenBytes(4), std::string_view("\0", 1));
  EXPECT_EQ(t->TokenBytes(4 + 0xFF), "\xFF");
  EXPECT_FALSE(t->IsControl(0));
  EXPECT_TRUE(t->IsControl(1));
  EXPECT_TRUE(t->IsControl(2));
  EXPECT_FALSE(t->IsControl(3));
}

TEST(SentencePieceTokenizer, DecodeRefusesIdsOutOfRange) {
  const auto t = Make(PieceField("a", -1));
  EXPECT_TRUE(IsError(t->Decode({{3, 4}}).status(), kInvalid, "token id 4 is not in [0, 4)"));
  EXPECT_TRUE(IsError(t->Decode({{-1}}).status(), kInvalid, "token id -1 is not in [0, 4)"));
  EXPECT_TRUE(IsError(t->Decode({{INT32_MAX}}).status(), kInvalid, "token id 2147483647"));
  EXPECT_EQ(t->Decode({}).value(), "");
}

TEST(SentencePieceTokenizer, RefusesBrokenCharsmaps) {
  const auto error = [](const std::string& map) {
    return MakeSentencePieceTokenizer(SpecialPieces() + NormalizerSpec(map, true, true)).status();
  };
  for (const char* const map : {"x", "xy", "xyz"}) {
    EXPECT_TRUE(IsError(error(map), kInvalid, "charsmap: "));
  }
}

TEST(SentencePieceTokenizer, MessagesNameTheFile) {
  const TempDir dir;
  EXPECT_TRUE(IsError(LoadSentencePieceTokenizer(dir.File("none")).status(),
                      absl::StatusCode::kNotFound, dir.File("none")));
  EXPECT_TRUE(IsError(LoadSentencePieceTokenizer(dir.Write("f", "")).status(), kInvalid,
                      dir.File("f") + ": no piece is of the type unknown"));
}

// A run of one letter keeps joins in reach of one another: the case that is quadratic in naive
// implementations. Eight times the text may take 8 * log factor, not 64 times the time.
TEST(SentencePieceTokenizer, TimeIsNearlyLinearInARunOfOneLetter) {
  std::string pieces;
  for (int n = 1; n <= 64; n *= 2) pieces += PieceField(std::string(n, 'a'), -1.0f * n);
  for (const auto algorithm : {kBpe, kUnigram}) {
    const auto t = Make(pieces, algorithm);
    const auto cpu_time = [&](size_t n) {
      const std::string text(n, 'a');
      double best = 1e18;
      for (int repeat = 0; repeat < 3; ++repeat) {
        const std::clock_t start = std::clock();  // of this process: others do not matter
        EXPECT_TRUE(t->Encode(text, false).ok());
        best = std::min(best, static_cast<double>(std::clock() - start));
      }
      return best;
    };
    EXPECT_LT(cpu_time(160'000), 24 * cpu_time(20'000));
  }
}

}  // namespace
}  // namespace lacuna
