#ifndef LACUNA_TESTS_RUNTIME_TOKENIZER_GOLDEN_STRINGS_H_
#define LACUNA_TESTS_RUNTIME_TOKENIZER_GOLDEN_STRINGS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/utf8.h"

namespace lacuna {

// The strings of tests/oracle/make_tokenizers.py, which has the same generator.
class GoldenStrings {
 public:
  explicit GoldenStrings(std::vector<std::string> atoms) : atoms_(std::move(atoms)) {}

  std::string Make(uint64_t index) const {
    uint64_t state = index;
    const auto below = [&state](uint64_t n) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return (state >> 33) % n;
    };
    std::string text;
    if (index % 500 == 7) {
      const std::string& atom = atoms_[below(atoms_.size())];
      const std::string letter = atom.substr(0, Utf8CharLength(atom));
      for (int i = 0; i < 4000; ++i) text += letter;
      return text;
    }
    constexpr std::string_view kJoints[] = {"", "", " ", " ", "  ", "\n"};
    for (uint64_t count = 1 + below(10); count > 0; --count) {
      text += atoms_[below(atoms_.size())];
      text += kJoints[below(std::size(kJoints))];
    }
    return text;
  }

 private:
  const std::vector<std::string> atoms_;
};

// FNV-1a, 64 bits.
class Fnv {
 public:
  void Add(std::string_view bytes) {
    for (const char c : bytes) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  }
  void Add(int32_t number) {  // little-endian
    for (int i = 0; i < 4; ++i) {
      state_ = (state_ ^ (static_cast<uint32_t>(number) >> (8 * i) & 0xFF)) * 0x100000001B3u;
    }
  }
  void Add(const std::vector<int32_t>& ids) {
    Add(static_cast<int32_t>(ids.size()));
    for (const int32_t id : ids) Add(id);
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0xCBF29CE484222325u;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_TOKENIZER_GOLDEN_STRINGS_H_
