#include "runtime/tokenizer/unicode.h"

#include <gtest/gtest.h>

namespace lacuna {
namespace {

TEST(Unicode, FormsAreThoseOfAnnex15) {
  EXPECT_EQ(ToUnicodeForm("e\u0301", UnicodeForm::kNfc), "\u00E9");
  EXPECT_EQ(ToUnicodeForm("\u00E9", UnicodeForm::kNfd), "e\u0301");
  EXPECT_EQ(ToUnicodeForm("\u212B", UnicodeForm::kNfc), "\u00C5");
  EXPECT_EQ(ToUnicodeForm("\u1100\u1161\u11A8", UnicodeForm::kNfc), "\uAC01");
  EXPECT_EQ(ToUnicodeForm("\uFB01\u2460", UnicodeForm::kNfc), "\uFB01\u2460");
  EXPECT_EQ(ToUnicodeForm("\uFB01\u2460", UnicodeForm::kNfkc), "fi1");
  EXPECT_EQ(ToUnicodeForm("\u1E9B\u0323", UnicodeForm::kNfkd), "s\u0323\u0307");
  // Marks are sorted by their classes, 202 before 230, and not across a letter.
  EXPECT_EQ(ToUnicodeForm("q\u0307\u0323\u0301r", UnicodeForm::kNfd), "q\u0323\u0307\u0301r");
}

TEST(Unicode, ALongRunOfMarksTakesNoQuadraticTime) {
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";
  std::string sorted = "\u1EA1";  // the first \u0323 joins the letter
  for (int i = 1; i < 100000; ++i) sorted += "\u0323";
  for (int i = 0; i < 100000; ++i) sorted += "\u0301";
  EXPECT_EQ(ToUnicodeForm(marks, UnicodeForm::kNfc), sorted);
}

TEST(Unicode, CasesAreOfOneCharacter) {
  EXPECT_EQ(ToLower("ÀΣ\u0130ǅ"), "àσi\u0307ǆ");
  EXPECT_EQ(ToUpper("àσi"), "ÀΣI");
}

TEST(Unicode, FindsSpaceAtBothEnds) {
  EXPECT_EQ(LeadingSpace("\u3000 a "), 4u);
  EXPECT_EQ(TrailingSpaceBegin("a\u3000 "), 1u);
  EXPECT_EQ(TrailingSpaceBegin(" \n"), 0u);
  EXPECT_EQ(LeadingSpace("\u200B"), 0u);  // no white space
}

TEST(Unicode, WordCharactersAreLettersMarksNumbersAndConnectors) {
  for (const int32_t c : {0x61, 0x301, 0x37, 0xBD, 0x5F, 0x6F22})
    EXPECT_TRUE(IsWordCharacter(c)) << c;
  for (const int32_t c : {0x20, 0x2D, 0x1F600, 0x200B}) EXPECT_FALSE(IsWordCharacter(c)) << c;
}

}  // namespace
}  // namespace lacuna
