#ifndef LACUNA_RUNTIME_BASE_UTF8_H_
#define LACUNA_RUNTIME_BASE_UTF8_H_

#include <string>
#include <string_view>

namespace lacuna {

// U+FFFD, which stands for bytes that are not UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

inline constexpr int kUtf8Incomplete = 0;
inline constexpr int kUtf8Broken = -1;

// Bytes (1 to 4) of the character that starts `s`; kUtf8Incomplete if all of `s` is a proper
// prefix of a character; kUtf8Broken if no character starts so. Overlong forms, surrogates and
// code points above U+10FFFF are broken (Unicode 15, table 3-7). `s` is not empty.
int Utf8CharLength(std::string_view s);

// Moves `*bytes` to the end of `*text`, each byte that is part of no character replaced by
// kReplacementCharacter. With `more_follows`, an incomplete character at the end stays.
void MoveUtf8(std::string* bytes, std::string* text, bool more_follows);

bool IsValidUtf8(std::string_view s);

// `s` from an untrusted file, for a message: in double quotes, control bytes escaped, long text
// cut.
std::string Quoted(std::string_view s);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_BASE_UTF8_H_
