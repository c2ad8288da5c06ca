#ifndef LACUNA_RUNTIME_TOKENIZER_PREFIX_INDEX_H_
#define LACUNA_RUNTIME_TOKENIZER_PREFIX_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace lacuna {

// Finds which of many strings are prefixes of a text. A sorted list that each further byte of the
// text narrows by binary search: no memory beyond the list. Immutable; the strings must outlive it.
class PrefixIndex {
 public:
  using Entry = std::pair<std::string_view, int32_t>;  // a distinct string, not empty, and its id

  // The strings that start with the bytes walked so far.
  class Cursor {
   public:
    explicit Cursor(const PrefixIndex& index) : end_(index.entries_.size()), index_(&index) {}

    // Walks one byte; false, and the walk is over, if no string starts so.
    bool Advance(char byte);
    // Id of the string that equals the bytes walked so far, or -1.
    int32_t id() const {
      const Entry& entry = index_->entries_[begin_];
      return entry.first.size() == depth_ ? entry.second : -1;
    }

   private:
    size_t begin_ = 0;
    size_t end_;
    size_t depth_ = 0;
    const PrefixIndex* index_;
  };

  explicit PrefixIndex(std::vector<Entry> entries);

  // Bytes of the longest string that `text` starts with; 0 if there is none.
  size_t LongestMatch(std::string_view text) const;

 private:
  std::vector<Entry> entries_;  // sorted by string
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_PREFIX_INDEX_H_
