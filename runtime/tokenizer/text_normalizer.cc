#include "runtime/tokenizer/text_normalizer.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/growth.h"

namespace lacuna {
namespace {

// The largest map that SentencePiece ships, nfkc_cf, has 0.25 MB; its longest replacement,
// that of U+FDFA, 33 bytes; its longest key 12 bytes.
constexpr size_t kMaxCharsmap = size_t{4} << 20;
constexpr size_t kMaxReplacement = 256;
constexpr size_t kMaxKey = 256;
// Darts-clone allocates units by 256, the children of one node within one block.
constexpr size_t kBlock = 256;

// Fields of a unit of Darts-clone's double array.
bool IsLeaf(uint32_t unit) { return unit >> 31 != 0; }
uint32_t LeafValue(uint32_t unit) { return unit & 0x7FFFFFFF; }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Label(uint32_t unit) { return unit & 0x800000FF; }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

// After this, no walk leaves the trie and every value is the start of a replacement.
absl::Status CheckTrie(const std::vector<uint32_t>& trie, std::string_view replacements) {
  if (IsLeaf(trie[0])) return absl::InvalidArgumentError("charsmap: the trie's root is a leaf");
  for (size_t i = 0; i < trie.size(); ++i) {
    const uint32_t unit = trie[i];
    if (!IsLeaf(unit)) {
      const size_t children = i ^ Offset(unit);
      if (children >= trie.size() || (HasLeaf(unit) && !IsLeaf(trie[children]))) {
        return absl::InvalidArgumentError(
            absl::StrCat("charsmap: unit ", i, " of the trie points to ", children, ", out of its ",
                         trie.size(), " units or to one without a value"));
      }
      continue;
    }
    const size_t value = LeafValue(unit);
    if (value >= replacements.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("charsmap: unit ", i, " of the trie has the value ", value, ", there are ",
                       replacements.size(), " bytes of replacements"));
    }
    const std::string_view replacement = replacements.substr(value, kMaxReplacement + 1);
    const size_t length = replacement.find('\0');
    if (length == std::string_view::npos || !IsValidUtf8(replacement.substr(0, length))) {
      return absl::InvalidArgumentError(absl::StrCat("charsmap: the replacement at ", value,
                                                     " is not UTF-8 of at most ", kMaxReplacement,
                                                     " bytes"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TextNormalizer> TextNormalizer::Create(const SentencePieceModel& model,
                                                      const PrefixIndex* user_defined) {
  TextNormalizer normalizer;
  normalizer.user_defined_ = user_defined;
  normalizer.add_dummy_prefix_ = model.add_dummy_prefix;
  normalizer.remove_extra_whitespaces_ = model.remove_extra_whitespaces;
  const std::string_view map = model.charsmap;
  if (map.empty()) return normalizer;
  if (map.size() > kMaxCharsmap) {
    return absl::InvalidArgumentError(
        absl::StrCat("charsmap: ", map.size(), " bytes, the limit is ", kMaxCharsmap));
  }
  const auto word = [map](size_t i) {
    const auto byte = [&](size_t k) { return uint32_t{static_cast<uint8_t>(map[4 * i + k])}; };
    return byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
  };
  const size_t trie_bytes = map.size() < 4 ? 0 : word(0);
  if (trie_bytes == 0 || trie_bytes % (4 * kBlock) != 0 || trie_bytes > map.size() - 4) {
    return absl::InvalidArgumentError(absl::StrCat("charsmap: ", map.size(),
                                                   " bytes cannot hold a trie of ", trie_bytes,
                                                   " bytes, expected a multiple of ", 4 * kBlock));
  }
  normalizer.trie_.resize(trie_bytes / 4);
  for (size_t i = 0; i < normalizer.trie_.size(); ++i) normalizer.trie_[i] = word(i + 1);
  normalizer.replacements_ = std::string(map.substr(4 + trie_bytes));
  absl::Status status = CheckTrie(normalizer.trie_, normalizer.replacements_);
  if (!status.ok()) return status;
  return normalizer;
}

size_t TextNormalizer::FindReplacement(std::string_view text, std::string_view* replacement) const {
  if (trie_.empty()) return 0;
  size_t longest = 0;
  size_t node = Offset(trie_[0]);
  const size_t limit = std::min(text.size(), kMaxKey);
  for (size_t i = 0; i < limit; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const size_t child = node ^ byte;
    const uint32_t unit = trie_[child];
    if (Label(unit) != byte) break;
    node = child ^ Offset(unit);
    if (HasLeaf(unit)) {
      longest = i + 1;
      *replacement = replacements_.c_str() + LeafValue(trie_[node]);
    }
  }
  return longest;
}

std::string_view TextNormalizer::NormalizePrefix(std::string_view text, size_t* consumed) const {
  *consumed = user_defined_->LongestMatch(text);
  if (*consumed > 0) return text.substr(0, *consumed);
  std::string_view replacement;
  *consumed = FindReplacement(text, &replacement);
  if (*consumed > 0) return replacement;
  // A key of the map may end inside a character; what is left of it is replaced.
  const int length = Utf8CharLength(text);
  *consumed = length > 0 ? static_cast<size_t>(length) : 1;
  return length > 0 ? text.substr(0, *consumed) : kReplacementCharacter;
}

absl::StatusOr<std::string> TextNormalizer::Normalize(std::string_view text) const {
  const size_t size = text.size();
  size_t consumed = 0;
  if (remove_extra_whitespaces_) {
    while (!text.empty() && NormalizePrefix(text, &consumed) == " ") text.remove_prefix(consumed);
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (add_dummy_prefix_) out += kSpaceSymbol;
  bool skip_spaces = remove_extra_whitespaces_;  // a space was just written
  while (!text.empty()) {
    std::string_view part = NormalizePrefix(text, &consumed);
    text.remove_prefix(consumed);
    if (skip_spaces) part = part.substr(std::min(part.find_first_not_of(' '), part.size()));
    for (const char c : part) {
      if (c == ' ') {
        out += kSpaceSymbol;
      } else {
        out += c;
      }
    }
    if (absl::Status status = CheckGrowth(size, out.size()); !status.ok()) return status;
    if (!part.empty()) skip_spaces = remove_extra_whitespaces_ && part.back() == ' ';
  }
  if (remove_extra_whitespaces_) {
    while (std::string_view(out).ends_with(kSpaceSymbol)) out.resize(out.size() - 3);
  }
  return out;
}

}  // namespace lacuna
