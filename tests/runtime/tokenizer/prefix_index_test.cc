#include "runtime/tokenizer/prefix_index.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

namespace lacuna {
namespace {

TEST(PrefixIndex, FindsEveryStringThatStartsTheText) {
  const PrefixIndex index({{"abc", 3}, {"a", 1}, {"b", 9}, {"ab", 2}, {"abd", 4}});
  PrefixIndex::Cursor cursor(index);
  const std::string text = "abdx";
  std::vector<int32_t> found;
  for (size_t i = 0; i < text.size() && cursor.Advance(text[i]); ++i) found.push_back(cursor.id());
  EXPECT_EQ(found, (std::vector<int32_t>{1, 2, 4}));
  EXPECT_EQ(index.LongestMatch("abzz"), 2u);
  EXPECT_EQ(index.LongestMatch("ab"), 2u);
  EXPECT_EQ(index.LongestMatch("xab"), 0u);
  EXPECT_EQ(index.LongestMatch(""), 0u);
}

TEST(PrefixIndex, EmptyIndexMatchesNothing) {
  const PrefixIndex index({});
  EXPECT_EQ(index.LongestMatch("a"), 0u);
  PrefixIndex::Cursor cursor(index);
  EXPECT_FALSE(cursor.Advance('a'));
}

TEST(PrefixIndex, AgreesWithASetOnRandomBytes) {
  std::mt19937 random(1);
  const auto random_string = [&](int max) {
    std::string s;
    for (int n = 1 + static_cast<int>(random() % max); n > 0; --n) s += "a\x80\xFF\0"[random() % 4];
    return s;
  };
  std::set<std::string> strings;
  for (int i = 0; i < 300; ++i) strings.insert(random_string(6));
  std::vector<PrefixIndex::Entry> entries;
  for (const std::string& s : strings) entries.emplace_back(s, 0);
  const PrefixIndex index(entries);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = random_string(8);
    size_t want = 0;
    for (size_t n = 1; n <= text.size(); ++n) {
      if (strings.count(text.substr(0, n))) want = n;
    }
    ASSERT_EQ(index.LongestMatch(text), want);
  }
}

}  // namespace
}  // namespace lacuna
