#ifndef LACUNA_RUNTIME_CHAT_TEXT_FUNCTIONS_H_
#define LACUNA_RUNTIME_CHAT_TEXT_FUNCTIONS_H_

#include <cstdint>

#include "runtime/chat/context.h"
#include "runtime/chat/value.h"

namespace lacuna::jinja {

// Functions of texts, as Python's methods have them. Characters keep their marks.

// Without the characters of `chars`, or without space if it is null, at either end.
Text Strip(const Text& text, const Text* chars, bool left, bool right);
Text Upper(const Text& text);
Text Lower(const Text& text);
Text Capitalize(const Text& text);
// As Jinja's filter: words begin after space and -({[<.
Text Title(const Text& text);
// At each `separator`, at most `limit` times unless it is negative; at space if `separator` is
// null.
Value Split(const Text& text, const Text* separator, int64_t limit, Context* context);
Text Replace(const Text& text, const Text& from, const Text& to, Context* context);

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_TEXT_FUNCTIONS_H_
