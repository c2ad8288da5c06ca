#include "runtime/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

namespace lacuna {
namespace {

// The parts as text, tokens in brackets.
std::string Parts(const AddedTokens& tokens, std::string_view text,
                  const std::vector<ByteRange>& literal = {}) {
  std::string out;
  for (const auto& [range, id] : tokens.Split(text, literal)) {
    const std::string part(text.substr(range.begin, range.end - range.begin));
    out += id < 0 ? part : "[" + std::to_string(id) + ":" + part + "]";
  }
  return out;
}

TEST(AddedTokens, TheLongestTokenWins) {
  const AddedTokens tokens({{.content = "<a", .id = 1}, {.content = "<a>", .id = 2}});
  EXPECT_EQ(Parts(tokens, "x<a><a<a"), "x[2:<a>][1:<a][1:<a]");
  EXPECT_EQ(Parts(tokens, ""), "");
  EXPECT_EQ(Parts(AddedTokens({}), "x"), "x");
}

TEST(AddedTokens, TakeSpaceAlong) {
  const AddedTokens tokens(
      {{.content = "<l>", .id = 1, .lstrip = true}, {.content = "<r>", .id = 2, .rstrip = true}});
  EXPECT_EQ(Parts(tokens, "a \n<l> b <r>\u3000 c"), "a[1: \n<l>] b [2:<r>\u3000 ]c");
  EXPECT_EQ(Parts(tokens, "<r>  <l>"), "[2:<r>  ][1:<l>]");
}

TEST(AddedTokens, SingleWordsHaveNoWordCharacterBeside) {
  const AddedTokens tokens({{.content = "cat", .id = 1, .single_word = true}});
  EXPECT_EQ(Parts(tokens, "cat cats bobcat éat-cat"), "[1:cat] cats bobcat éat-[1:cat]");
  EXPECT_EQ(Parts(tokens, "écat"), "écat");
}

TEST(AddedTokens, ControlTokensAreTextWhereTheyTouchLiteralBytes) {
  const AddedTokens tokens(
      {{.content = "<s>", .id = 1, .special = true}, {.content = "__", .id = 2}});
  const std::string text = "<s>a<s>__b<s>";
  EXPECT_EQ(Parts(tokens, text), "[1:<s>]a[1:<s>][2:__]b[1:<s>]");
  EXPECT_EQ(Parts(tokens, text, {{3, 10}}), "[1:<s>]a<s>[2:__]b[1:<s>]");
  EXPECT_EQ(Parts(tokens, text, {{0, text.size()}}), "<s>a<s>[2:__]b<s>");
  // One byte of it is enough, at either end; an empty range is nothing.
  EXPECT_EQ(Parts(tokens, "<s><s>", {{2, 3}}), "<s>[1:<s>]");
  EXPECT_EQ(Parts(tokens, "<s><s>", {{3, 4}}), "[1:<s>]<s>");
  EXPECT_EQ(Parts(tokens, "<s><s>", {{3, 3}}), "[1:<s>][1:<s>]");
}

TEST(AddedTokens, LiteralBytesCannotHideTheTokenBehindThem) {
  const AddedTokens tokens({{.content = "<<s>", .id = 1, .special = true},
                            {.content = "<s>", .id = 2, .special = true}});
  EXPECT_EQ(Parts(tokens, "<<s>", {{0, 1}}), "<[2:<s>]");
}

}  // namespace
}  // namespace lacuna
