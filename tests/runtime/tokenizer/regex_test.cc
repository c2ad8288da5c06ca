#include "runtime/tokenizer/regex.h"

#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

using Ranges = std::vector<ByteRange>;

Ranges Find(std::string_view pattern, std::string_view text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) ADD_FAILURE() << regex.status();
  return regex.ok() ? regex->FindAll(text).value() : Ranges{};
}

TEST(Regex, FindsEveryMatchFromLeftToRight) {
  EXPECT_EQ(Find("a+", "aabca"), (Ranges{{0, 2}, {4, 5}}));
  EXPECT_EQ(Find("é", "né"), (Ranges{{1, 3}}));
  EXPECT_EQ(Find("b*", "é"), (Ranges{{0, 0}, {2, 2}}));
  EXPECT_TRUE(Find("x", "").empty());
}

TEST(Regex, LooksAheadAtSpaces) {
  EXPECT_EQ(Find(R"(\s+(?!\S)|\s+)", "a   b"), (Ranges{{1, 3}, {3, 4}}));
}

// PCRE2's own \s has U+180E, its \w no marks, its \p{Han} also what Han texts share with others.
TEST(Regex, ClassesAreThoseOfTheUnicodeProperties) {
  EXPECT_TRUE(Find(R"([\s])", "\u180e").empty());
  EXPECT_EQ(Find(R"(\s)", "\u0085\u2003").size(), 2u);
  EXPECT_EQ(Find(R"(\S)", "\u180e").size(), 1u);
  EXPECT_EQ(Find(R"(\w+)", "a\u0301_½"), (Ranges{{0, 6}}));
  EXPECT_EQ(Find(R"([^\w]+|\W)", "é!").size(), 1u);
  EXPECT_TRUE(Find(R"(\p{Han})", "\u3001").empty());
  EXPECT_EQ(Find(R"(\p{^L}|\P{N})", "1").size(), 1u);
}

TEST(Regex, CaretAndDollarStandAtEveryLine) {
  EXPECT_EQ(Find("^b", "a\nb").size(), 1u);
  EXPECT_EQ(Find(R"(\s+$)", "a \nb").size(), 1u);
}

TEST(Regex, EscapesAreThoseOfOniguruma) {
  EXPECT_EQ(Find(R"([\u4E00-\u9FFF])", "漢").size(), 1u);
  EXPECT_EQ(Find(R"((?i:'s))", "'S'ſ").size(), 2u);
}

TEST(Regex, LiteralsMeanThemselves) {
  EXPECT_EQ(Regex::Literal(".[\\d]")->FindAll("x.[\\d]").value(), (Ranges{{1, 6}}));
}

TEST(Regex, RefusesWhatPcre2ReadsDifferently) {
  for (const char* pattern : {"[a&&b]", "[a[b]]", "[]a]", "(?m:a)", "(?<name>a)", "(*COMMIT)",
                              "a{1,2}+", R"(\h)", R"(\K)", R"([\W])", R"(\pL)", R"(\u12)"}) {
    EXPECT_TRUE(IsError(Regex::Compile(pattern).status(), kUnimplemented, "regular expressions"))
        << pattern;
  }
}

TEST(Regex, RefusesBrokenPatterns) {
  for (const char* pattern : {"a(", "[a", "*", "a\\", R"(\p{Klingon})", R"(\p{L)", "(?<=a*)"}) {
    EXPECT_FALSE(Regex::Compile(pattern).ok()) << pattern;
  }
  EXPECT_TRUE(IsError(Regex::Compile("a(").status(), kInvalid, "\"a(\" is broken"));
  EXPECT_TRUE(IsError(Regex::Compile(std::string(9000, 'a')).status(), kInvalid, "9000 bytes"));
  EXPECT_TRUE(IsError(Regex::Compile(std::string(100, '(') + std::string(100, ')')).status(),
                      kInvalid, "nested"));
}

TEST(Regex, GivesUpOnHostilePatterns) {
  const absl::StatusOr<Regex> regex = Regex::Compile("(a+)+[bc]");
  ASSERT_TRUE(regex.ok()) << regex.status();
  EXPECT_TRUE(IsError(regex->FindAll(std::string(60, 'a')).status(),
                      absl::StatusCode::kInvalidArgument, "gave up at byte 0"));
  const std::string many(1000, 'a');
  EXPECT_TRUE(Regex::Compile("a")->FindAll(many, /*max_seconds=*/60).ok());
  EXPECT_TRUE(IsError(Regex::Compile("a")->FindAll(many, /*max_seconds=*/0).status(),
                      absl::StatusCode::kInvalidArgument, "of 1000 after 0 s"));
}

}  // namespace
}  // namespace lacuna
