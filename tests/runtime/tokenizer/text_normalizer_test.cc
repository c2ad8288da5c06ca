#include "runtime/tokenizer/text_normalizer.h"

#include <map>

#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Word(uint32_t value) {
  std::string out;
  for (int i = 0; i < 4; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

// A charsmap of one block of units: the root's children start at 0, and the key "x" leads to the
// replacement at `value`. `change` may spoil units.
std::string Charsmap(const std::string& replacements, uint32_t value = 0,
                     const std::map<size_t, uint32_t>& change = {}) {
  std::vector<uint32_t> units(256, 0);
  constexpr uint32_t kBase = 1;              // children of "x": unit 'x' ^ 1
  units['x'] = kBase << 10 | 1u << 8 | 'x';  // offset, has a leaf, label
  units['x' ^ kBase] = 1u << 31 | value;     // the leaf
  for (const auto& [i, unit] : change) units[i] = unit;
  std::string out = Word(1024);
  for (const uint32_t unit : units) out += Word(unit);
  return out + replacements;
}

absl::StatusOr<TextNormalizer> Make(const std::string& charsmap, bool prefix = false,
                                    bool trim = false) {
  static const PrefixIndex* const kNone = new PrefixIndex({});
  SentencePieceModel model;
  model.charsmap = charsmap;
  model.add_dummy_prefix = prefix;
  model.remove_extra_whitespaces = trim;
  return TextNormalizer::Create(model, kNone);
}

TEST(TextNormalizer, WritesSpacesAsTheirSymbol) {
  EXPECT_EQ(Make("")->Normalize(" a  b ").value(), "\u2581a\u2581\u2581b\u2581");
  EXPECT_EQ(Make("", true)->Normalize("a b").value(), "\u2581a\u2581b");
  EXPECT_EQ(Make("", true)->Normalize("").value(), "");
}

TEST(TextNormalizer, TrimsAndJoinsSpacesIfAsked) {
  EXPECT_EQ(Make("", true, true)->Normalize("  a   b  ").value(), "\u2581a\u2581b");
  EXPECT_EQ(Make("", true, true)->Normalize("   ").value(), "");
  EXPECT_EQ(Make("", false, true)->Normalize(" a ").value(), "a");
}

TEST(TextNormalizer, ReplacesByTheMap) {
  const std::string replacements("yz\0  q \0", 9);
  EXPECT_EQ(Make(Charsmap(replacements))->Normalize("axbx").value(), "ayzbyz");
  EXPECT_EQ(Make(Charsmap(replacements, 3), false, true)->Normalize("xax").value(),
            "q\u2581a\u2581\u2581q");
  EXPECT_EQ(Make(Charsmap(std::string(1, '\0')))->Normalize("axb").value(), "ab");
}

TEST(TextNormalizer, AMapCannotFillTheMemory) {
  const std::string replacements = std::string(200, 'y') + '\0';
  const auto normalizer = Make(Charsmap(replacements));
  EXPECT_EQ(normalizer->Normalize("x").value().size(), 200u);
  EXPECT_TRUE(IsError(normalizer->Normalize(std::string(1000, 'x')).status(), kInvalid,
                      "more than 32 times"));
}

TEST(TextNormalizer, KeepsUserDefinedSymbolsFromTheMap) {
  const PrefixIndex symbols({{"xx", 5}});
  SentencePieceModel model;
  model.charsmap = Charsmap(std::string("y\0", 2));
  model.add_dummy_prefix = false;
  const auto normalizer = TextNormalizer::Create(model, &symbols);
  ASSERT_TRUE(normalizer.ok());
  EXPECT_EQ(normalizer->Normalize("xxx").value(), "xxy");
}

TEST(TextNormalizer, CharacterCutByAKeyOfTheMapIsReplaced) {
  // The key is the first byte of "\u00E9".
  const std::string map =
      Charsmap(std::string("y\0", 2), 0, {{0xC3, 1u << 10 | 1u << 8 | 0xC3}, {0xC2, 1u << 31}});
  const auto normalizer = Make(map);
  ASSERT_TRUE(normalizer.ok()) << normalizer.status();
  EXPECT_EQ(normalizer->Normalize("\u00E9").value(), "y\uFFFD");
}

TEST(TextNormalizer, RefusesMalformedMaps) {
  const std::string good = Charsmap(std::string("y\0", 2));
  ASSERT_TRUE(Make(good).ok());
  for (size_t size = 1; size < 1028; ++size) {
    EXPECT_TRUE(IsError(Make(good.substr(0, size)).status(), kInvalid, "cannot hold a trie"));
  }
  const auto error = [](const std::string& map) { return Make(map).status(); };
  EXPECT_TRUE(IsError(error(Word(0) + good.substr(4)), kInvalid, "a trie of 0 bytes"));
  EXPECT_TRUE(IsError(error(Word(1020) + good.substr(4)), kInvalid, "a trie of 1020 bytes"));
  EXPECT_TRUE(IsError(error(Word(0xFFFFFC00) + good.substr(4)), kInvalid, "cannot hold"));
  EXPECT_TRUE(IsError(error(good.substr(0, 1028)), kInvalid, "there are 0 bytes"));
  EXPECT_TRUE(IsError(error(Charsmap("y")), kInvalid, "not UTF-8 of at most 256"));
  EXPECT_TRUE(IsError(error(Charsmap(std::string("\xFF\0", 2))), kInvalid, "not UTF-8"));
  EXPECT_TRUE(IsError(error(Charsmap(std::string("\xC3\xA9\0", 3), 1)), kInvalid, "not UTF-8"));
  EXPECT_TRUE(IsError(error(Charsmap(std::string(257, 'y') + '\0')), kInvalid, "not UTF-8 of"));
  EXPECT_TRUE(Make(Charsmap(std::string(256, 'y') + '\0')).ok());
  EXPECT_TRUE(IsError(error(Charsmap(std::string("y\0", 2), 2)), kInvalid,
                      "has the value 2, there are 2 bytes"));
  const std::string replacements("y\0", 2);
  // A root, and a node, that point out of the trie; a node whose leaf is none; a root as a leaf.
  EXPECT_TRUE(IsError(error(Charsmap(replacements, 0, {{0, 256u << 10}})), kInvalid,
                      "unit 0 of the trie points to 256, out of its 256"));
  EXPECT_TRUE(IsError(error(Charsmap(replacements, 0, {{'x', 0x1FFFFFu << 10 | 'x'}})), kInvalid,
                      "out of its 256"));
  EXPECT_TRUE(IsError(error(Charsmap(replacements, 0, {{'x', 2u << 10 | 1u << 8 | 'x'}})), kInvalid,
                      "or to one without a value"));
  EXPECT_TRUE(
      IsError(error(Charsmap(replacements, 0, {{0, 1u << 31}})), kInvalid, "root is a leaf"));
  EXPECT_TRUE(IsError(error(std::string((4 << 20) + 1, '\0')), kInvalid, "the limit is 4194304"));
}

TEST(TextNormalizer, FlippedBitsOfTheTrieNeverGiveBrokenText) {
  const std::string good = Charsmap(std::string("yz\0\xC3\xA9\0", 6));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string map = good;
    map[bit / 8] = static_cast<char>(map[bit / 8] ^ 1 << bit % 8);
    const auto normalizer = Make(map);
    if (!normalizer.ok()) continue;
    EXPECT_LE(normalizer->Normalize("axb xx\u00E9").value().size(), 100u);
  }
}

}  // namespace
}  // namespace lacuna
