#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "runtime/tokenizer/unicode.h"

namespace lacuna {
namespace {

std::vector<PrefixIndex::Entry> Contents(const std::vector<AddedToken>& tokens) {
  std::vector<PrefixIndex::Entry> entries;
  for (size_t i = 0; i < tokens.size(); ++i) {
    entries.emplace_back(tokens[i].content, static_cast<int32_t>(i));
  }
  return entries;
}

bool StartsWithWord(std::string_view text) {
  return !text.empty() && IsWordCharacter(TakeCodePoint(&text));
}

bool EndsWithWord(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0 && (text[--begin] & 0xC0) == 0x80) {
  }
  return StartsWithWord(text.substr(begin));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), index_(Contents(tokens_)) {}

const AddedToken* AddedTokens::Match(std::string_view text) const {
  const AddedToken* longest = nullptr;
  PrefixIndex::Cursor cursor(index_);
  for (size_t i = 0; i < text.size() && cursor.Advance(text[i]); ++i) {
    if (cursor.id() >= 0) longest = &tokens_[cursor.id()];
  }
  return longest;
}

std::vector<AddedTokens::Part> AddedTokens::Split(std::string_view text,
                                                  absl::Span<const ByteRange> literal) const {
  std::vector<Part> parts;
  size_t done = 0;          // bytes that are in `parts`
  size_t next_literal = 0;  // the first that ends behind `at`
  const auto add_text = [&](size_t end) {
    if (done < end) parts.push_back({{done, end}, -1});
  };
  for (size_t at = 0; at < text.size() && !tokens_.empty();) {
    const AddedToken* token = Match(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    ByteRange found = {at, at + token->content.size()};
    while (next_literal < literal.size() && literal[next_literal].end <= at) ++next_literal;
    if (token->special && next_literal < literal.size() &&
        literal[next_literal].begin < found.end) {
      const ByteRange& hit = literal[next_literal];
      const bool inside = hit.begin <= found.begin && found.end <= hit.end;
      at = inside ? found.end : at + 1;
      continue;
    }
    if (token->single_word &&
        (EndsWithWord(text.substr(0, found.begin)) || StartsWithWord(text.substr(found.end)))) {
      at = found.end;
      continue;
    }
    if (token->lstrip) {
      found.begin = std::max(done, TrailingSpaceBegin(text.substr(0, found.begin)));
    }
    if (token->rstrip) found.end += LeadingSpace(text.substr(found.end));
    add_text(found.begin);
    parts.push_back({found, token->id});
    done = at = found.end;
  }
  add_text(text.size());
  return parts;
}

}  // namespace lacuna
