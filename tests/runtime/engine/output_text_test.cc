#include "runtime/engine/output_text.h"

#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_tokenizer.h"

namespace lacuna {
namespace {

struct Case {
  const char* name;
  std::vector<std::string> pieces;  // one token each
  std::vector<std::string> stops;
  std::vector<std::string> released;  // after each token, up to the match; then the end
  std::string matched;                // "" if none
  bool include_stop = false;
  int32_t min_tokens = 0;
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class OutputTextTest : public testing::TestWithParam<Case> {};

TEST_P(OutputTextTest, ReleasesWhatCannotBecomeAStopString) {
  const Case& c = GetParam();
  const FakeTokenizer tokenizer(c.pieces);
  StoppingParams stopping;
  stopping.stop_strings = c.stops;
  stopping.include_stop = c.include_stop;
  OutputText text(&tokenizer, &stopping);
  std::vector<std::string> released;
  bool stopped = false;
  for (size_t i = 0; i < c.pieces.size() && !stopped; ++i) {
    stopped = text.Append(FakeTokenizer::kFirstPiece + static_cast<int32_t>(i),
                          static_cast<int32_t>(i) + 1 >= c.min_tokens);
    released.push_back(text.Take());
  }
  if (!stopped) {
    text.Finish();
    released.push_back(text.Take());
  }
  EXPECT_EQ(released, c.released);
  EXPECT_EQ(text.matched_stop(), c.matched);
  EXPECT_EQ(stopped, !c.matched.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Cases, OutputTextTest,
    testing::ValuesIn(std::vector<Case>{
        {"NoStops", {"ab", "c"}, {}, {"ab", "c", ""}, ""},
        {"WithinAToken", {"xxSTOPyy"}, {"STOP"}, {"xx"}, "STOP"},
        {"IncludedStopIsCutBehindIt", {"xxSTOPyy"}, {"STOP"}, {"xxSTOP"}, "STOP", true},
        {"AcrossTokens", {"aS", "TO", "Pb"}, {"STOP"}, {"a", "", ""}, "STOP"},
        {"AcrossTokensIncluded", {"aS", "TO", "Pb"}, {"STOP"}, {"a", "", "STOP"}, "STOP", true},
        {"AtTheFirstByte", {"S", "a"}, {"S"}, {""}, "S"},
        {"FalseStartIsReleased", {"aST", "x"}, {"STOP"}, {"a", "STx", ""}, ""},
        {"FalseStartMayHoldAnotherStart",
         {"aab", "aab", "aac"},
         {"aabaac"},
         {"", "aab", ""},
         "aabaac"},
        {"HeldTextIsReleasedAtTheEnd", {"aSTO"}, {"STOP"}, {"a", "STO"}, ""},
        {"FirstCompletedWins", {"abcd"}, {"bcd", "abc"}, {""}, "abc"},
        {"LongestWinsIfCompletedTogether", {"xabc"}, {"c", "abc", "bc"}, {"x"}, "abc"},
        {"HoldsForTheLongestCandidate", {"aab", "x"}, {"bz", "abq"}, {"a", "abx", ""}, ""},
        {"BeforeMinTokensItIsText", {"S", "S"}, {"S"}, {"S", ""}, "S", false, 2},
        {"MayBeginBeforeMinTokens", {"aST", "OP"}, {"STOP"}, {"a", ""}, "STOP", false, 2},
        {"OverlapAfterAnIgnoredOne", {"aa", "a"}, {"aa"}, {"a", ""}, "aa", false, 2},
        {"Utf8AcrossTokens", {"\xE2\x82", "\xAC!"}, {"!"}, {"", "\xE2\x82\xAC"}, "!"},
        {"Utf8Stop", {"a\xC3", "\xA9"}, {"\xC3\xA9"}, {"a", ""}, "\xC3\xA9"},
        {"Utf8StopFalseStart",
         {"a\xC3", "\xA9", "b"},
         {"\xC3\xA9x"},
         {"a", "",
          "\xC3\xA9"
          "b",
          ""},
         ""},
        {"BrokenUtf8AtTheEnd", {"a\xE2"}, {}, {"a", "\xEF\xBF\xBD"}, ""},
    }),
    [](const auto& info) { return info.param.name; });

// However the text is cut into tokens, the same text comes out.
TEST(OutputTextTest, DoesNotDependOnTokenBoundaries) {
  const std::string full = "one two twotwo three ttwo!!";
  for (const std::string stop : {"two!", "twotwo ", "three", "zzz", "tt"}) {
    const size_t at = full.find(stop);
    const std::string expected = full.substr(0, at);
    for (size_t cut = 1; cut < 9; ++cut) {
      std::vector<std::string> pieces;
      for (size_t i = 0; i < full.size(); i += cut) pieces.push_back(full.substr(i, cut));
      const FakeTokenizer tokenizer(pieces);
      StoppingParams stopping;
      stopping.stop_strings = {stop};
      OutputText text(&tokenizer, &stopping);
      std::string out;
      bool stopped = false;
      for (size_t i = 0; i < pieces.size() && !stopped; ++i) {
        stopped = text.Append(FakeTokenizer::kFirstPiece + static_cast<int32_t>(i), true);
        out += text.Take();
      }
      if (!stopped) text.Finish();
      out += text.Take();
      EXPECT_EQ(stopped, at != std::string::npos);
      EXPECT_EQ(out, expected) << stop << " cut by " << cut;
    }
  }
}

}  // namespace
}  // namespace lacuna
