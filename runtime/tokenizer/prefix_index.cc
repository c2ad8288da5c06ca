#include "runtime/tokenizer/prefix_index.h"

#include <algorithm>

namespace lacuna {

PrefixIndex::PrefixIndex(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::sort(entries_.begin(), entries_.end());
}

bool PrefixIndex::Cursor::Advance(char byte) {
  // Every string in range has the bytes walked so far; one that is no longer sorts first.
  if (begin_ < end_ && index_->entries_[begin_].first.size() == depth_) ++begin_;
  const auto first = index_->entries_.begin();
  const auto wanted = static_cast<unsigned char>(byte);
  const auto at = [this](const Entry& e) { return static_cast<unsigned char>(e.first[depth_]); };
  const auto low = std::partition_point(first + begin_, first + end_,
                                        [&](const Entry& e) { return at(e) < wanted; });
  const auto high =
      std::partition_point(low, first + end_, [&](const Entry& e) { return at(e) == wanted; });
  begin_ = low - first;
  end_ = high - first;
  ++depth_;
  return begin_ < end_;
}

size_t PrefixIndex::LongestMatch(std::string_view text) const {
  if (entries_.empty()) return 0;
  Cursor cursor(*this);
  size_t longest = 0;
  for (size_t i = 0; i < text.size() && cursor.Advance(text[i]); ++i) {
    if (cursor.id() >= 0) longest = i + 1;
  }
  return longest;
}

}  // namespace lacuna
