#include "runtime/tokenizer/bpe_tokenizer.h"

#include <ctime>

#include "runtime/tokenizer/incremental_decoder.h"
#include "runtime/tokenizer/load_tokenizer.h"
#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
const std::string kFolder = LACUNA_SOURCE_DIR "/tests/data/tokenizers/";

using Ids = std::vector<int32_t>;

BpeTokenizerSpec Letters() {
  BpeTokenizerSpec spec;
  spec.bpe.vocab = {{"a", 0}, {"b", 1}, {"ab", 2}, {"abb", 3}, {"<unk>", 4}, {"bb", 5}};
  spec.bpe.merges = {{"a", "b"}, {"ab", "b"}, {"b", "b"}};
  return spec;
}

std::unique_ptr<Tokenizer> Make(BpeTokenizerSpec spec) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeBpeTokenizer(std::move(spec));
  if (!tokenizer.ok()) ADD_FAILURE() << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

TEST(BpeTokenizer, MergesByRankThenFromTheLeft) {
  const auto tokenizer = Make(Letters());
  EXPECT_EQ(tokenizer->Encode("abb", false).value(), (Ids{3}));
  EXPECT_EQ(tokenizer->Encode("bbb", false).value(), (Ids{5, 1}));
  EXPECT_EQ(tokenizer->Encode("bbabbb", false).value(), (Ids{5, 3, 1}));
}

TEST(BpeTokenizer, UnknownCharactersAreLeftOutOrUnknownTokens) {
  BpeTokenizerSpec spec = Letters();
  EXPECT_EQ(Make(spec)->Encode("axyb", false).value(), (Ids{2}));
  spec.bpe.unk_token = "<unk>";
  EXPECT_EQ(Make(spec)->Encode("axyb", false).value(), (Ids{0, 4, 4, 1}));
  spec.bpe.fuse_unk = true;
  EXPECT_EQ(Make(spec)->Encode("axyb", false).value(), (Ids{0, 4, 1}));
}

TEST(BpeTokenizer, AWholeWordThatIsATokenMayNeedNoMerges) {
  BpeTokenizerSpec spec = Letters();
  spec.bpe.vocab.emplace_back("ba", 6);
  EXPECT_EQ(Make(spec)->Encode("ba", false).value(), (Ids{1, 0}));
  spec.bpe.ignore_merges = true;
  EXPECT_EQ(Make(spec)->Encode("ba", false).value(), (Ids{6}));
}

TEST(BpeTokenizer, RefusesTextThatIsNotUtf8AndIdsOutOfRange) {
  const auto tokenizer = Make(Letters());
  EXPECT_TRUE(IsError(tokenizer->Encode("a\xFF", false).status(), kInvalid, "not valid UTF-8"));
  EXPECT_TRUE(IsError(tokenizer->EncodeMarkup("\xFF", {}).status(), kInvalid, "not valid UTF-8"));
  EXPECT_TRUE(IsError(tokenizer->Decode(Ids{6}).status(), kInvalid, "6 is not in [0, 6)"));
  EXPECT_TRUE(IsError(tokenizer->Decode(Ids{-1}).status(), kInvalid, "-1"));
}

TEST(BpeTokenizer, IdsWithoutATokenPrintNothing) {
  BpeTokenizerSpec spec = Letters();
  spec.added_tokens.push_back({.content = "<x>", .id = 9, .special = true});
  const auto tokenizer = Make(spec);
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_TRUE(tokenizer->IsControl(7));
  EXPECT_EQ(tokenizer->Decode(Ids{0, 7, 9, 1}).value(), "ab");
}

TEST(BpeTokenizer, ControlTokensAreReadInMarkupOnly) {
  BpeTokenizerSpec spec = Letters();
  spec.added_tokens.push_back({.content = "ab", .id = 2, .special = true});
  spec.prefix_ids = {4};
  const auto tokenizer = Make(spec);
  EXPECT_EQ(tokenizer->EncodeMarkup("abb", {}).value(), (Ids{2, 1}));
  EXPECT_EQ(tokenizer->EncodeMarkup("abab", std::vector<ByteRange>{{1, 2}}).value(), (Ids{2, 2}));
  EXPECT_EQ(tokenizer->Encode("abb", true).value(), (Ids{4, 3}));
}

TEST(BpeTokenizer, RefusesSpecsThatContradictThemselves) {
  const auto expect = [](BpeTokenizerSpec spec, std::string_view phrase) {
    EXPECT_TRUE(IsError(MakeBpeTokenizer(std::move(spec)).status(), kInvalid, phrase));
  };
  BpeTokenizerSpec spec;
  expect(spec, "the vocabulary is empty");
  spec = Letters();
  spec.bpe.vocab.emplace_back("c", 2);
  expect(spec, "two tokens have the id 2");
  spec = Letters();
  spec.bpe.vocab.emplace_back("a", 9);
  expect(spec, "token \"a\" is there twice");
  spec = Letters();
  spec.bpe.vocab.emplace_back("", 9);
  expect(spec, "token 9 has 0 bytes");
  spec = Letters();
  spec.bpe.vocab.emplace_back(std::string(4097, 'x'), 9);
  expect(spec, "token 9 has 4097 bytes");
  spec = Letters();
  spec.bpe.vocab.emplace_back("c", kMaxTokenId + 1);
  expect(spec, "has id 1048576, the limit is 1048575");
  spec = Letters();
  spec.bpe.merges.emplace_back("a", "c");
  expect(spec, "merge 3 names \"c\"");
  spec = Letters();
  spec.bpe.merges.emplace_back("b", "a");
  expect(spec, "merge 3 names \"ba\"");
  spec = Letters();
  spec.bpe.unk_token = "?";
  expect(spec, "unknown token \"?\" is not in the vocabulary");
  spec = Letters();
  spec.bpe.byte_fallback = true;
  spec.bpe.vocab.emplace_back("<0x0A>", 9);
  expect(spec, "needs 256 byte tokens, 1 are there");
  spec = Letters();
  spec.added_tokens.push_back({.content = "a", .id = 9});
  expect(spec, "token \"a\" has the ids 0 and 9");
  spec = Letters();
  spec.added_tokens.push_back({.content = "<x>", .id = 0});
  expect(spec, "\"<x>\" has the id 0 of another token");
  spec = Letters();
  spec.added_tokens.push_back({.content = "", .id = 9});
  expect(spec, "must have 1 to 4096 bytes");
  spec = Letters();
  spec.eos_id = 6;
  expect(spec, "special token id 6 is not in the vocabulary of 6 tokens");
  spec = Letters();
  spec.prefix_ids = {7};
  expect(spec, "special token id 7");
}

TEST(BpeTokenizer, ANormalizerCannotFillTheMemory) {
  BpeTokenizerSpec spec = Letters();
  for (int i = 0; i < 4; ++i) {
    spec.normalizers.push_back(ReplaceStep(Regex::Literal("a").value(), std::string(60, 'a')));
  }
  EXPECT_TRUE(IsError(Make(spec)->Encode("aaaaaaaa", false).status(),
                      absl::StatusCode::kInvalidArgument, "more than 32 times"));
}

TEST(BpeTokenizer, NeitherCanStepsThatSplitWords) {
  BpeTokenizerSpec spec = Letters();
  for (int i = 0; i < 12; ++i) {  // each pair doubles the number of words
    const std::string symbol(1, static_cast<char>('A' + i));
    spec.pre_tokenizers.push_back(SplitAtSpaces(symbol, PrependScheme::kAlways, /*split=*/false));
    spec.pre_tokenizers.push_back(
        SplitByPattern(Regex::Compile(".").value(), SplitBehavior::kIsolated, /*invert=*/false));
  }
  EXPECT_TRUE(IsError(Make(spec)->Encode(std::string(100, 'a'), false).status(),
                      absl::StatusCode::kInvalidArgument, "more than 32 times"));
}

TEST(FromByteLevel, ReadsGpt2sAlphabet) {
  std::string bytes;
  EXPECT_TRUE(FromByteLevel("\u0120aÃ©\u010A\u0143", &bytes));
  EXPECT_EQ(bytes, " a\xC3\xA9\n\xAD");
  for (const char* token : {" ", "\n", "\u00AD", "\u0144", "\u6F22", "\u00A0"}) {
    EXPECT_FALSE(FromByteLevel(token, &bytes)) << token;
  }
}

TEST(FallbackByte, NeedsTheExactSpelling) {
  EXPECT_EQ(FallbackByte("<0x0A>"), 10);
  EXPECT_EQ(FallbackByte("<0xFF>"), 255);
  for (const char* token : {"<0xff>", "<0x0>", "<0x-1>", "<0xZZ>", "<0x0A> ", "0x0A", ""}) {
    EXPECT_EQ(FallbackByte(token), -1) << token;
  }
}

// CPU time, as the machine may be busy with other things.
double Seconds(const std::function<void()>& work) {
  timespec before, after;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  work();
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  return static_cast<double>(after.tv_sec - before.tv_sec) +
         1e-9 * (after.tv_nsec - before.tv_nsec);
}

class LongTextTest : public testing::TestWithParam<const char*> {};

TEST_P(LongTextTest, AMegabyteTakesLessThanTwoSeconds) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr double kLimit = 30.0;
#else
  constexpr double kLimit = 2.0;
#endif
  constexpr size_t kBytes = 1 << 20;
  const auto tokenizer = LoadTokenizer(kFolder + GetParam());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const std::string_view pattern :
       {"a", " ", "\n", "ab", "the whale and ", "\u0301\u0323", "漢", "<", "<|im_", "don't "}) {
    std::string text;
    while (text.size() < kBytes) text += pattern;
    absl::StatusOr<Ids> ids;
    EXPECT_LT(Seconds([&] { ids = (*tokenizer)->Encode(text, false); }), kLimit) << pattern;
    ASSERT_TRUE(ids.ok()) << ids.status();
    std::string decoded;
    EXPECT_LT(Seconds([&] { decoded = (*tokenizer)->Decode(*ids).value(); }), kLimit) << pattern;
    if (std::string_view(GetParam()) != "qwen2") {  // which changes marks
      EXPECT_TRUE(decoded == text) << pattern;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LongTextTest,
                         testing::Values("gpt2", "llama3", "qwen2", "deepseek", "llama2", "gemma"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lacuna
