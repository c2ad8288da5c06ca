#include "runtime/chat/text_functions.h"

#include "runtime/tokenizer/unicode.h"

namespace lacuna::jinja {
namespace {

// Whether a character is to be stripped: of `chars`, or space if there are none.
bool IsStripped(int32_t code_point, const Text* chars) {
  if (chars == nullptr) return IsPythonSpace(code_point);
  for (std::string_view rest = chars->bytes(); !rest.empty();) {
    if (TakeCodePoint(&rest) == code_point) return true;
  }
  return false;
}

// Each character through `change`, with its mark.
template <typename Change>
Text MapChars(const Text& text, Change change) {
  const std::vector<size_t> offsets = CharOffsets(text.bytes());
  Text out;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const std::string_view character =
        std::string_view(text.bytes()).substr(offsets[i], offsets[i + 1] - offsets[i]);
    out.Append(Text(change(i, character), text.marked(offsets[i])));
  }
  return out;
}

}  // namespace

Text Strip(const Text& text, const Text* chars, bool left, bool right) {
  const std::vector<size_t> offsets = CharOffsets(text.bytes());
  const auto stripped = [&](size_t i) {
    std::string_view rest = std::string_view(text.bytes()).substr(offsets[i]);
    return IsStripped(TakeCodePoint(&rest), chars);
  };
  size_t begin = 0;
  size_t end = offsets.size() - 1;
  while (left && begin < end && stripped(begin)) ++begin;
  while (right && begin < end && stripped(end - 1)) --end;
  return text.Slice(offsets[begin], offsets[end]);
}

Text Upper(const Text& text) {
  return MapChars(text, [](size_t, std::string_view c) { return ToUpper(c); });
}

Text Lower(const Text& text) {
  return MapChars(text, [](size_t, std::string_view c) { return ToLower(c); });
}

Text Capitalize(const Text& text) {
  return MapChars(text,
                  [](size_t i, std::string_view c) { return i == 0 ? ToUpper(c) : ToLower(c); });
}

Text Title(const Text& text) {
  bool in_word = false;
  return MapChars(text, [&in_word](size_t, std::string_view c) {
    const std::string changed = in_word ? ToLower(c) : ToUpper(c);
    std::string_view rest = c;
    in_word = std::string_view("-({[<").find(c) == std::string_view::npos &&
              !IsPythonSpace(TakeCodePoint(&rest));
    return changed;
  });
}

Value Split(const Text& text, const Text* separator, int64_t limit, Context* context) {
  List parts;
  const std::string_view bytes = text.bytes();
  if (separator != nullptr && separator->empty()) {
    context->Fail("split needs a separator that is not empty");
  } else if (separator != nullptr) {
    size_t begin = 0;
    for (size_t at = bytes.find(separator->bytes()); at != std::string_view::npos && limit-- != 0;
         at = bytes.find(separator->bytes(), begin)) {
      parts.push_back(Value(text.Slice(begin, at)));
      begin = at + separator->size();
      context->Spend(sizeof(Value));
      if (!context->ok()) return Value();
    }
    parts.push_back(Value(text.Slice(begin, bytes.size())));
  } else {
    size_t begin = 0;  // of the word at hand
    for (std::string_view rest = bytes; !rest.empty();) {
      const size_t at = bytes.size() - rest.size();
      if (!IsPythonSpace(TakeCodePoint(&rest))) continue;
      if (begin < at) parts.push_back(Value(text.Slice(begin, at)));
      context->Spend(1 + (begin < at ? sizeof(Value) : 0));
      if (!context->ok()) return Value();
      begin = bytes.size() - rest.size();
    }
    if (begin < bytes.size()) parts.push_back(Value(text.Slice(begin, bytes.size())));
  }
  return Value::Of(std::move(parts));
}

Text Replace(const Text& text, const Text& from, const Text& to, Context* context) {
  Text out;
  if (from.empty()) {
    context->Fail("replace needs a text that is not empty");
    return out;
  }
  size_t begin = 0;
  for (size_t at = text.bytes().find(from.bytes()); at != std::string::npos && context->ok();
       at = text.bytes().find(from.bytes(), begin)) {
    out.Append(text.Slice(begin, at));
    out.Append(to);
    context->Spend(1 + at - begin + to.size());
    begin = at + from.size();
  }
  out.Append(text.Slice(begin, text.size()));
  return out;
}

}  // namespace lacuna::jinja
