#include "runtime/chat/lexer.h"

#include <algorithm>
#include <cctype>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/unicode.h"

namespace lacuna::jinja {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\f\v";

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsNamePart(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source)
      : normalized_(absl::StrReplaceAll(absl::string_view(source.data(), source.size()),
                                        {{"\r\n", "\n"}, {"\r", "\n"}})),
        source_(normalized_) {
    if (source_.ends_with('\n')) source_.remove_suffix(1);
  }

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) {
      if (absl::Status status = DataAndTag(); !status.ok()) return status;
    }
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  // The text up to the next tag, and the tag.
  absl::Status DataAndTag() {
    size_t tag = at_;
    while (true) {
      tag = std::min(source_.find('{', tag), source_.size());
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (tag == source_.size() || next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    std::string_view data = source_.substr(at_, tag - at_);
    if (tag == source_.size()) {
      AddData(data);
      at_ = tag;
      return absl::OkStatus();
    }
    const char kind = source_[tag + 1];
    const char modifier = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (modifier == '-') {
      data = data.substr(0, data.find_last_not_of(kSpaces) + 1);
    } else if (modifier != '+' && kind != '{') {
      // Blanks between the start of the line and the tag; the line may have begun in a tag.
      const size_t line = data.rfind('\n');
      const size_t text = data.find_last_not_of(" \t\f\v") + 1;
      const bool at_line_start = line != std::string_view::npos || at_line_start_;
      if (at_line_start && text <= (line == std::string_view::npos ? 0 : line + 1)) {
        data = data.substr(0, text);
      }
    }
    AddData(data);
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + tag, '\n'));
    at_ = tag + 2 + (modifier == '-' || modifier == '+' ? 1 : 0);
    if (kind == '#') return Comment();
    Add(kind == '{' ? Token::Kind::kPrintBegin : Token::Kind::kBlockBegin, "");
    return Expression(kind == '{' ? "}}" : "%}");
  }

  absl::Status Comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) return Fail("a comment has no end");
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + end, '\n'));
    const char modifier = end > at_ ? source_[end - 1] : '\0';
    at_ = end + 2;
    TrimAfter(modifier, /*is_block=*/true);
    return absl::OkStatus();
  }

  // The tokens up to `closing`.
  absl::Status Expression(std::string_view closing) {
    while (true) {
      const size_t begin = std::min(source_.find_first_not_of(kSpaces, at_), source_.size());
      line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + begin, '\n'));
      at_ = begin;
      const std::string_view rest = source_.substr(at_);
      if (rest.empty()) return Fail(absl::StrCat("a tag has no ", std::string(closing)));
      const bool modified = rest[0] == '-' || rest[0] == '+';
      if (braces_ == 0 && rest.substr(modified ? 1 : 0).starts_with(closing)) {
        const char modifier = modified ? rest[0] : '\0';
        at_ += closing.size() + (modified ? 1 : 0);
        const bool is_block = closing == "%}";
        Add(is_block ? Token::Kind::kBlockEnd : Token::Kind::kPrintEnd, "");
        TrimAfter(modifier, is_block);
        return absl::OkStatus();
      }
      if (absl::Status status = Next(rest); !status.ok()) return status;
    }
  }

  absl::Status Next(std::string_view rest) {
    if (rest[0] == '"' || rest[0] == '\'') return String(rest);
    size_t size = 0;
    if (IsNameStart(rest[0])) {
      while (size < rest.size() && IsNamePart(rest[size])) ++size;
      Add(Token::Kind::kName, rest.substr(0, size));
    } else if (std::isdigit(static_cast<unsigned char>(rest[0])) != 0) {
      while (size < rest.size() && std::isdigit(static_cast<unsigned char>(rest[size]))) ++size;
      int64_t number = 0;
      if (!absl::SimpleAtoi(std::string(rest.substr(0, size)), &number) ||
          (size < rest.size() && (IsNamePart(rest[size]) || rest[size] == '.'))) {
        return Fail("a number is no integer of 64 bits");
      }
      Add(Token::Kind::kInteger, rest.substr(0, size));
      tokens_.back().number = number;
    } else {
      for (const std::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
        if (rest.starts_with(two)) size = 2;
      }
      if (size == 0 &&
          std::string_view("+-*/%~<>=.,:()[]{}|").find(rest[0]) != std::string_view::npos) {
        size = 1;
      }
      if (size == 0) return Fail(absl::StrCat("cannot read ", Quoted(rest.substr(0, 1))));
      if (rest[0] == '{') ++braces_;
      if (rest[0] == '}' && --braces_ < 0) return Fail("a } has no {");
      Add(Token::Kind::kOperator, rest.substr(0, size));
    }
    at_ += size;
    return absl::OkStatus();
  }

  absl::Status String(std::string_view rest) {
    const char quote = rest[0];
    std::string text;
    size_t i = 1;
    for (; i < rest.size() && rest[i] != quote; ++i) {
      if (rest[i] == '\n') ++line_;
      if (rest[i] != '\\' || i + 1 == rest.size()) {
        text += rest[i];
        continue;
      }
      const char escaped = rest[++i];
      constexpr std::string_view kLetters = "ntrbfav0\\'\"";
      constexpr std::string_view kMeanings("\n\t\r\b\f\a\v\0\\'\"", 11);
      const size_t known = kLetters.find(escaped);
      if (known != std::string_view::npos) {
        text += kMeanings[known];
      } else if (escaped == 'u' || escaped == 'x') {
        const size_t digits = escaped == 'u' ? 4 : 2;
        uint32_t code_point = 0;
        if (!absl::SimpleHexAtoi(std::string(rest.substr(i + 1, digits)), &code_point) ||
            rest.size() < i + 1 + digits || (code_point >= 0xD800 && code_point < 0xE000)) {
          return Fail("a string has a broken escape");
        }
        AppendCodePoint(static_cast<int32_t>(code_point), &text);
        i += digits;
      } else {
        text += '\\';
        text += escaped;
      }
    }
    if (i >= rest.size()) return Fail("a string has no end");
    Add(Token::Kind::kString, text);
    at_ += i + 1;
    return absl::OkStatus();
  }

  void TrimAfter(char modifier, bool is_block) {
    at_line_start_ = false;
    if (modifier == '-') {
      const size_t end = std::min(source_.find_first_not_of(kSpaces, at_), source_.size());
      const std::string_view skipped = source_.substr(at_, end - at_);
      at_line_start_ = skipped.find('\n') != std::string_view::npos;
      line_ += static_cast<int>(std::count(skipped.begin(), skipped.end(), '\n'));
      at_ = end;
    } else if (modifier != '+' && is_block && source_.substr(at_).starts_with('\n')) {
      at_line_start_ = true;
      ++line_;
      ++at_;
    }
  }

  void Add(Token::Kind kind, std::string_view text) {
    tokens_.push_back({.kind = kind, .text = std::string(text), .line = line_});
  }
  void AddData(std::string_view data) {
    if (!data.empty()) Add(Token::Kind::kData, data);
  }
  absl::Status Fail(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", std::string(what)));
  }

  const std::string normalized_;
  std::string_view source_;  // without the line break at the end
  size_t at_ = 0;
  int line_ = 1;
  int braces_ = 0;             // open { of dictionaries
  bool at_line_start_ = true;  // a tag before took the line break
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace lacuna::jinja
