#ifndef LACUNA_CLIENT_CLI_UTF8_H_
#define LACUNA_CLIENT_CLI_UTF8_H_

#include "absl/strings/string_view.h"

namespace lacuna {

// Whether `text` is well-formed UTF-8 as in RFC 3629: no overlong forms, surrogates or code points
// past U+10FFFF.
bool IsUtf8(absl::string_view text);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_UTF8_H_
