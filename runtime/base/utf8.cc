#include "runtime/base/utf8.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace lacuna {

int Utf8CharLength(std::string_view s) {
  const auto byte = [s](size_t i) { return static_cast<uint8_t>(s[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return kUtf8Broken;
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte carries the limits: no overlong form, surrogate or too large code point.
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (s.size() > 1 && (byte(1) < low || byte(1) > high)) return kUtf8Broken;
  for (int i = 2; i < length; ++i) {
    if (s.size() > static_cast<size_t>(i) && (byte(i) & 0xC0) != 0x80) return kUtf8Broken;
  }
  return s.size() < static_cast<size_t>(length) ? kUtf8Incomplete : length;
}

bool IsValidUtf8(std::string_view s) {
  while (!s.empty()) {
    const int length = Utf8CharLength(s);
    if (length <= 0) return false;
    s.remove_prefix(static_cast<size_t>(length));
  }
  return true;
}

void MoveUtf8(std::string* bytes, std::string* text, bool more_follows) {
  std::string_view rest = *bytes;
  while (!rest.empty()) {
    const int length = Utf8CharLength(rest);
    if (length == kUtf8Incomplete && more_follows) break;
    *text += length > 0 ? rest.substr(0, length) : kReplacementCharacter;
    rest.remove_prefix(length > 0 ? length : 1);
  }
  bytes->erase(0, bytes->size() - rest.size());
}

std::string Quoted(std::string_view s) {
  constexpr size_t kLongest = 80;
  const absl::string_view shown(s.data(), std::min(s.size(), kLongest));
  if (shown.size() == s.size()) return absl::StrCat("\"", absl::Utf8SafeCHexEscape(shown), "\"");
  return absl::StrCat("\"", absl::CHexEscape(shown), "...\"");
}

}  // namespace lacuna
