#ifndef LACUNA_RUNTIME_CHAT_LEXER_H_
#define LACUNA_RUNTIME_CHAT_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lacuna::jinja {

struct Token {
  enum class Kind {
    kData,        // text outside of tags
    kPrintBegin,  // {{
    kPrintEnd,    // }}
    kBlockBegin,  // {%
    kBlockEnd,    // %}
    kName,        // also keywords
    kString,
    kInteger,
    kOperator,
    kEnd,  // of the template
  };
  Kind kind = Kind::kEnd;
  std::string text;    // data, name, contents of a string, operator
  int64_t number = 0;  // of kInteger
  int line = 0;
};

// Cuts a template, valid UTF-8, into tokens with the white space rules that Hugging Face sets for
// chat templates (trim_blocks, lstrip_blocks): of a block or comment, the line break behind it and
// the blanks before it on its line go; `-` takes all white space on its side, `+` none. One line
// break at the end of the template goes. Comments give no tokens. The last token is kEnd.
// INVALID_ARGUMENT, with the line, says what cannot be read.
absl::StatusOr<std::vector<Token>> Lex(std::string_view source);

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_LEXER_H_
