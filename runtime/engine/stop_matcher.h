#ifndef LACUNA_RUNTIME_ENGINE_STOP_MATCHER_H_
#define LACUNA_RUNTIME_ENGINE_STOP_MATCHER_H_

#include <cstddef>
#include <string>
#include <vector>

namespace lacuna {

// Finds stop strings in text that arrives byte by byte, however tokens cut it. Knuth-Morris-Pratt
// for each string, so the time per byte is constant on average. One sequence, one thread.
class StopMatcher {
 public:
  // Stop strings are not empty.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Index of the stop string that this byte completes, the longest one if several; -1 if none.
  int Advance(char byte);

  // Length of the longest end of the text that may yet grow into a stop string.
  size_t held() const;

 private:
  struct Pattern {
    std::string text;
    // border[i]: length of the longest proper prefix of text[0..i] that is also its suffix.
    std::vector<size_t> border;
    size_t matched = 0;  // bytes of `text` that end the text so far; < text.size()
  };
  std::vector<Pattern> patterns_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_STOP_MATCHER_H_
