#include "runtime/engine/stop_matcher.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace lacuna {
namespace {

// Length of the match after one more byte, from a match of `matched` < text.size() bytes.
size_t Extend(const std::string& text, const std::vector<size_t>& border, size_t matched,
              char byte) {
  while (matched > 0 && text[matched] != byte) matched = border[matched - 1];
  return text[matched] == byte ? matched + 1 : 0;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    assert(!stop.empty());
    Pattern pattern{stop, {0}, 0};
    for (size_t i = 1; i < stop.size(); ++i) {
      pattern.border.push_back(Extend(stop, pattern.border, pattern.border.back(), stop[i]));
    }
    patterns_.push_back(std::move(pattern));
  }
}

int StopMatcher::Advance(char byte) {
  int found = -1;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    Pattern& pattern = patterns_[i];
    pattern.matched = Extend(pattern.text, pattern.border, pattern.matched, byte);
    if (pattern.matched < pattern.text.size()) continue;
    pattern.matched = pattern.border.back();
    if (found < 0 || pattern.text.size() > patterns_[found].text.size()) {
      found = static_cast<int>(i);
    }
  }
  return found;
}

size_t StopMatcher::held() const {
  size_t longest = 0;
  for (const Pattern& pattern : patterns_) longest = std::max(longest, pattern.matched);
  return longest;
}

}  // namespace lacuna
