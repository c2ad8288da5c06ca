#include "runtime/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

namespace lacuna {
namespace {

// Code points of the longest decomposition: U+FDFA has 18.
constexpr int kLongestDecomposition = 32;

auto CombiningClass(int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// The library's own reordering takes quadratic time on a long run of marks.
void SortMarks(std::vector<int32_t>* code_points) {
  const auto is_mark = [](int32_t c) { return CombiningClass(c) != 0; };
  for (auto it = code_points->begin(); it != code_points->end();) {
    it = std::find_if(it, code_points->end(), is_mark);
    const auto end = std::find_if_not(it, code_points->end(), is_mark);
    std::stable_sort(it, end,
                     [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    it = end;
  }
}

}  // namespace

int32_t TakeCodePoint(std::string_view* text) {
  utf8proc_int32_t code_point = 0;
  const utf8proc_ssize_t length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text->data()),
                       static_cast<utf8proc_ssize_t>(text->size()), &code_point);
  text->remove_prefix(length > 0 ? length : text->size());  // valid UTF-8 has a length
  return code_point;
}

void AppendCodePoint(int32_t code_point, std::string* text) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length = utf8proc_encode_char(code_point, bytes);
  text->append(reinterpret_cast<const char*>(bytes), length);
}

bool IsWhiteSpace(int32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsWordCharacter(int32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(code_point);
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO) ||
         category == UTF8PROC_CATEGORY_PC;
}

size_t LeadingSpace(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t before = rest.size();
    if (!IsWhiteSpace(TakeCodePoint(&rest))) return text.size() - before;
  }
  return text.size();
}

size_t TrailingSpaceBegin(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
    std::string_view last = text.substr(begin, end - begin);
    if (!IsWhiteSpace(TakeCodePoint(&last))) break;
    end = begin;
  }
  return end;
}

std::string ToUnicodeForm(std::string_view text, UnicodeForm form) {
  const bool compose = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  const bool compat = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const auto options = static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
      (compat ? UTF8PROC_COMPAT : 0));
  std::vector<int32_t> code_points;
  code_points.reserve(text.size());
  while (!text.empty()) {
    utf8proc_int32_t parts[kLongestDecomposition];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        TakeCodePoint(&text), parts, kLongestDecomposition, options, &boundary);
    code_points.insert(code_points.end(), parts, parts + count);
  }
  SortMarks(&code_points);
  if (compose) {
    code_points.resize(utf8proc_normalize_utf32(
        code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), options));
  }
  std::string out;
  for (const int32_t code_point : code_points) AppendCodePoint(code_point, &out);
  return out;
}

std::string ToLower(std::string_view text) {
  constexpr int32_t kCapitalIWithDot = 0x130;  // the one whose lower case is two characters
  std::string out;
  while (!text.empty()) {
    const int32_t code_point = TakeCodePoint(&text);
    if (code_point == kCapitalIWithDot) {
      out += "i\u0307";
    } else {
      AppendCodePoint(utf8proc_tolower(code_point), &out);
    }
  }
  return out;
}

std::string ToUpper(std::string_view text) {
  std::string out;
  while (!text.empty()) AppendCodePoint(utf8proc_toupper(TakeCodePoint(&text)), &out);
  return out;
}

}  // namespace lacuna
