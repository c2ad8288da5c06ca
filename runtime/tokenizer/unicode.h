#ifndef LACUNA_RUNTIME_TOKENIZER_UNICODE_H_
#define LACUNA_RUNTIME_TOKENIZER_UNICODE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace lacuna {

// Unicode as tokenizers and templates need it: a face of utf8proc 2.8 (Unicode 15). Every text is
// valid UTF-8.

// Takes the first character off `*text`, which is not empty.
int32_t TakeCodePoint(std::string_view* text);
void AppendCodePoint(int32_t code_point, std::string* text);

bool IsWhiteSpace(int32_t code_point);     // the property White_Space
bool IsWordCharacter(int32_t code_point);  // letters, marks, numbers and connectors

// Where the white space at the start or the end of `text` ends or begins, in bytes.
size_t LeadingSpace(std::string_view text);
size_t TrailingSpaceBegin(std::string_view text);

// The normalization forms of Unicode Standard Annex 15.
enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// O(n log n), also for long runs of combining marks.
std::string ToUnicodeForm(std::string_view text, UnicodeForm form);

// Each character in lower or upper case, whatever is around it.
std::string ToLower(std::string_view text);
std::string ToUpper(std::string_view text);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_UNICODE_H_
