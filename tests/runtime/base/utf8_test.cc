#include "runtime/base/utf8.h"

#include <gtest/gtest.h>

namespace lacuna {
namespace {

// By construction, from the code point.
std::string Encode(uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  if (c < 0x10000) {
    return {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  }
  return {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
          static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
}

TEST(Utf8, AcceptsEveryCodePointButSurrogates) {
  for (uint32_t c = 0; c < 0x120000; ++c) {
    const std::string s = Encode(c);
    const bool valid = c < 0xD800 || (c > 0xDFFF && c < 0x110000);
    ASSERT_EQ(Utf8CharLength(s), valid ? static_cast<int>(s.size()) : kUtf8Broken) << c;
    ASSERT_EQ(Utf8CharLength(s + "a"), Utf8CharLength(s)) << c;
    for (size_t n = 1; valid && n < s.size(); ++n) {
      ASSERT_EQ(Utf8CharLength(s.substr(0, n)), kUtf8Incomplete) << c << " " << n;
      ASSERT_EQ(Utf8CharLength(s.substr(0, n) + "a"), kUtf8Broken) << c << " " << n;
    }
  }
}

TEST(Utf8, RefusesOverlongForms) {
  for (const std::string& s :
       {std::string("\xC0\x80"), std::string("\xC1\xBF"), std::string("\xE0\x80\x80"),
        std::string("\xE0\x9F\xBF"), std::string("\xF0\x80\x80\x80"),
        std::string("\xF0\x8F\xBF\xBF"), std::string("\xF5\x80\x80\x80"), std::string("\x80"),
        std::string("\xFF")}) {
    EXPECT_EQ(Utf8CharLength(s), kUtf8Broken);
    EXPECT_FALSE(IsValidUtf8("a" + s));
  }
}

TEST(Utf8, IncompleteTextIsNotValid) {
  EXPECT_TRUE(IsValidUtf8(""));
  EXPECT_TRUE(IsValidUtf8(std::string_view("\0a\xE2\x96\x81", 5)));
  EXPECT_FALSE(IsValidUtf8("a\xE2\x96"));
}

TEST(Utf8, MoveReplacesEachBrokenByteAndKeepsAnIncompleteEnd) {
  std::string bytes = "a\xE2\x96z\xFF\xE2\x96";
  std::string text = ">";
  MoveUtf8(&bytes, &text, /*more_follows=*/true);
  EXPECT_EQ(text, ">a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD");
  EXPECT_EQ(bytes, "\xE2\x96");
  text.clear();
  MoveUtf8(&bytes, &text, /*more_follows=*/false);
  EXPECT_EQ(text, "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(bytes, "");
}

TEST(Utf8, QuotedIsOnePrintableLineOfBoundedLength) {
  EXPECT_EQ(Quoted("a\n\"\x1B\xC3\xA9"), "\"a\\n\\\"\\x1b\xC3\xA9\"");
  EXPECT_EQ(Quoted(std::string(1000, 'a')), "\"" + std::string(80, 'a') + "...\"");
}

}  // namespace
}  // namespace lacuna
