#include "runtime/chat/value.h"

#include <algorithm>

#include "runtime/tokenizer/unicode.h"

namespace lacuna::jinja {

Value Value::Of(List list) {
  int depth = 0;
  for (const Value& item : list) depth = std::max(depth, item.depth());
  Value value(std::make_shared<const List>(std::move(list)));
  value.depth_ = depth + 1;
  return value;
}

Value Value::Of(Dict dict) {
  int depth = 0;
  for (const auto& [key, item] : dict) depth = std::max(depth, item.depth());
  Value value(std::make_shared<const Dict>(std::move(dict)));
  value.depth_ = depth + 1;
  return value;
}

bool Value::truthy() const {
  if (const Text* t = text()) return !t->empty();
  if (const bool* b = boolean()) return *b;
  if (const int64_t* i = integer()) return *i != 0;
  if (const List* l = list()) return !l->empty();
  if (const Dict* d = dict()) return !d->empty();
  return ns() != nullptr || function() != nullptr;
}

const char* Value::kind() const {
  constexpr const char* kKinds[] = {"undefined",    "none",        "a boolean",
                                    "an integer",   "a text",      "a list",
                                    "a dictionary", "a namespace", "a function"};
  return kKinds[variant_.index()];
}

const Value* Find(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::vector<size_t> CharOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xC0) != 0x80) offsets.push_back(i);
  }
  offsets.push_back(text.size());
  return offsets;
}

bool IsPythonSpace(int32_t code_point) {
  return IsWhiteSpace(code_point) || (code_point >= 0x1C && code_point <= 0x1F);
}

}  // namespace lacuna::jinja
