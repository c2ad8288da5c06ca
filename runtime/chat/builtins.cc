#include "runtime/chat/builtins.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/utf8.h"
#include "runtime/chat/text_functions.h"

namespace lacuna::jinja {
namespace {

Text Join(const List& list, const Text& separator, Context* context) {
  Text out;
  for (size_t i = 0; i < list.size() && context->ok(); ++i) {
    if (i > 0) out.Append(separator);
    out.Append(Print(list[i], context));
    context->Spend(1 + separator.size());
  }
  return out;
}

int64_t Length(const Value& value, Context* context) {
  if (value.text() != nullptr)
    return static_cast<int64_t>(CharOffsets(value.text()->bytes()).size()) - 1;
  if (value.list() != nullptr) return static_cast<int64_t>(value.list()->size());
  if (value.dict() != nullptr) return static_cast<int64_t>(value.dict()->size());
  if (!value.is_undefined()) context->Fail(absl::StrCat(value.kind(), " has no length"));
  return 0;
}

std::optional<int64_t> Number(const Value& value) {
  if (const bool* b = value.boolean()) return *b ? 1 : 0;
  if (const int64_t* i = value.integer()) return *i;
  return std::nullopt;
}

// The argument as text; null if it was not given or is none.
const Text* TextArgument(const CallArguments& arguments, size_t index, std::string_view name,
                         Context* context) {
  const Value* value = arguments.Get(index, name);
  if (value == nullptr || value->is_none()) return nullptr;
  if (value->text() == nullptr) {
    context->Fail(absl::StrCat("the argument ", std::string(name), " is ", value->kind(),
                               ", expected a text"));
  }
  return value->text();
}

void AppendJsonString(const std::string& text, std::string* out) {
  *out += '"';
  for (const char c : text) {
    constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f";
    constexpr std::string_view kNames = "\"\\nrtbf";
    const size_t known = kSpecial.find(c);
    if (known != std::string_view::npos) {
      *out += '\\';
      *out += kNames[known];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(out, "\\u%04x", c);
    } else {
      *out += c;
    }
  }
  *out += '"';
}

// `marked` becomes true if text of the conversation is in it.
void AppendJson(const Value& value, std::string* out, bool* marked, Context* context) {
  context->Spend(1);
  if (!context->ok()) return;
  if (const Text* text = value.text()) {
    context->Spend(text->size());
    *marked |= text->any_marked();
    AppendJsonString(text->bytes(), out);
  } else if (const List* list = value.list()) {
    *out += '[';
    for (size_t i = 0; i < list->size(); ++i) {
      if (i > 0) *out += ", ";
      AppendJson((*list)[i], out, marked, context);
    }
    *out += ']';
  } else if (const Dict* dict = value.dict()) {
    *out += '{';
    for (size_t i = 0; i < dict->size(); ++i) {
      if (i > 0) *out += ", ";
      context->Spend((*dict)[i].first.size());
      AppendJsonString((*dict)[i].first, out);
      *out += ": ";
      AppendJson((*dict)[i].second, out, marked, context);
    }
    *out += '}';
  } else if (const bool* boolean = value.boolean()) {
    *out += *boolean ? "true" : "false";
  } else if (const int64_t* integer = value.integer()) {
    absl::StrAppend(out, *integer);
  } else if (value.is_none()) {
    *out += "null";
  } else {
    context->Fail(absl::StrCat(value.kind(), " has no JSON"));
  }
}

}  // namespace

const Value* CallArguments::Get(size_t index, std::string_view name) const {
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return index < values.size() ? &values[index] : nullptr;
}

Text Print(const Value& value, Context* context) {
  if (const Text* text = value.text()) {
    context->Spend(text->size());
    return *text;
  }
  if (const bool* boolean = value.boolean()) return Text(*boolean ? "True" : "False");
  if (const int64_t* integer = value.integer()) return Text(absl::StrCat(*integer));
  if (value.is_none()) return Text("None");
  if (!value.is_undefined()) context->Fail(absl::StrCat(value.kind(), " cannot be printed"));
  return Text();
}

Text ToJson(const Value& value, Context* context) {
  std::string out;
  bool marked = false;
  AppendJson(value, &out, &marked, context);
  return Text(out, marked);
}

bool Equal(const Value& a, const Value& b, Context* context) {
  context->Spend(1);
  if (!context->ok()) return false;
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->bytes() == b.text()->bytes();
  if (Number(a).has_value() && Number(b).has_value()) return Number(a) == Number(b);
  if (a.list() != nullptr && b.list() != nullptr) {
    return std::equal(a.list()->begin(), a.list()->end(), b.list()->begin(), b.list()->end(),
                      [&](const Value& x, const Value& y) { return Equal(x, y, context); });
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    return a.dict()->size() == b.dict()->size() &&
           std::all_of(a.dict()->begin(), a.dict()->end(), [&](const auto& item) {
             context->Spend(b.dict()->size());
             if (!context->ok()) return false;
             const Value* other = Find(*b.dict(), item.first);
             return other != nullptr && Equal(item.second, *other, context);
           });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined()) ||
         (a.ns() != nullptr && a.ns() == b.ns());
}

bool Contains(const Value& container, const Value& item, Context* context) {
  if (container.text() != nullptr && item.text() != nullptr) {
    context->Spend(container.text()->size());
    return container.text()->bytes().find(item.text()->bytes()) != std::string::npos;
  }
  if (const List* list = container.list()) {
    context->Spend(list->size());
    return std::any_of(list->begin(), list->end(),
                       [&](const Value& v) { return Equal(v, item, context); });
  }
  if (const Dict* dict = container.dict()) {
    context->Spend(dict->size());
    return item.text() != nullptr && Find(*dict, item.text()->bytes()) != nullptr;
  }
  if (!container.is_undefined()) {
    context->Fail(absl::StrCat("cannot look for ", item.kind(), " in ", container.kind()));
  }
  return false;
}

Value Slice(const Value& object, const Value& begin, const Value& end, const Value& step,
            Context* context) {
  const auto bound = [&](const Value& value, int64_t missing) {
    if (value.is_undefined() || value.is_none()) return missing;
    if (value.integer() == nullptr) context->Fail("a slice needs integers");
    return value.integer() == nullptr ? missing : *value.integer();
  };
  const int64_t size = Length(object, context);
  const int64_t by = bound(step, 1);
  if (by != 1 && by != -1) context->Fail("a slice needs a step of 1 or -1");
  // As Python clips: [0, size] forward, [-1, size - 1] backward.
  const int64_t low = by > 0 ? 0 : -1;
  const auto clip = [&](int64_t at) {
    return std::clamp(at < 0 ? at + size : at, low, size + low);
  };
  const bool has_begin = !begin.is_undefined() && !begin.is_none();
  const bool has_end = !end.is_undefined() && !end.is_none();
  int64_t at = has_begin ? clip(bound(begin, 0)) : (by > 0 ? 0 : size - 1);
  const int64_t stop = has_end ? clip(bound(end, 0)) : (by > 0 ? size : -1);
  context->Spend(static_cast<size_t>(size) * (object.list() == nullptr ? 1 : sizeof(Value)));
  if (!context->ok()) return Value();
  if (const Text* text = object.text()) {
    const std::vector<size_t> offsets = CharOffsets(text->bytes());
    if (by == 1) return Value(at < stop ? text->Slice(offsets[at], offsets[stop]) : Text());
    Text out;
    for (; at > stop; --at) out.Append(text->Slice(offsets[at], offsets[at + 1]));
    return Value(std::move(out));
  }
  List out;
  if (const List* list = object.list()) {
    for (; by > 0 ? at < stop : at > stop; at += by) out.push_back((*list)[at]);
  } else {
    context->Fail(absl::StrCat("cannot slice ", object.kind()));
  }
  return Value::Of(std::move(out));
}

Value Item(const Value& object, const Value& key, Context* context) {
  if (const Dict* dict = object.dict(); dict != nullptr && key.text() != nullptr) {
    context->Spend(dict->size());
    const Value* value = Find(*dict, key.text()->bytes());
    return value == nullptr ? Value() : *value;
  }
  if (object.ns() != nullptr && key.text() != nullptr) {
    const auto it = object.ns()->members.find(key.text()->bytes());
    return it == object.ns()->members.end() ? Value() : it->second;
  }
  if (object.is_undefined() || object.is_none()) {
    context->Fail(absl::StrCat("cannot take an item of ", object.kind()));
  }
  if (key.integer() == nullptr || (object.text() == nullptr && object.list() == nullptr)) {
    return Value();
  }
  const int64_t size = Length(object, context);
  const int64_t at = *key.integer() < 0 ? *key.integer() + size : *key.integer();
  if (at < 0 || at >= size) return Value();
  if (object.list() != nullptr) return (*object.list())[at];
  context->Spend(object.text()->size());
  const std::vector<size_t> offsets = CharOffsets(object.text()->bytes());
  return Value(object.text()->Slice(offsets[at], offsets[at + 1]));
}

Value ApplyFilter(const std::string& name, const Value& value, const CallArguments& arguments,
                  Context* context) {
  if (name == "default" || name == "d") {
    const Value* missing = arguments.Get(0, "default_value");
    const Value* falsy = arguments.Get(1, "boolean");
    const bool use =
        value.is_undefined() || (falsy != nullptr && falsy->truthy() && !value.truthy());
    if (!use) return value;
    return missing == nullptr ? Value(Text()) : *missing;
  }
  if (name == "length" || name == "count") {
    if (value.text() != nullptr) context->Spend(value.text()->size());
    return Value(Length(value, context));
  }
  if (name == "tojson") {
    if (arguments.Get(0, "indent") != nullptr) context->Fail("tojson with indent is not supported");
    return Value(ToJson(value, context));
  }
  if (name == "first" || name == "last") {
    if (value.text() == nullptr && value.list() == nullptr) {
      context->Fail(absl::StrCat(name, " of ", value.kind()));
      return Value();
    }
    return Item(value, Value(int64_t{name == "first" ? 0 : -1}), context);
  }
  if (name == "join") {
    const Text* separator = TextArgument(arguments, 0, "d", context);
    if (value.list() == nullptr) {
      context->Fail(absl::StrCat("join of ", value.kind()));
      return Value();
    }
    return Value(Join(*value.list(), separator == nullptr ? Text() : *separator, context));
  }
  if (name == "list") {
    if (value.list() == nullptr) context->Fail(absl::StrCat("list of ", value.kind()));
    return value;
  }
  if (name == "items") return CallMethod(value, name, arguments, context);
  if (name == "string") return Value(Print(value, context));
  // The rest is of texts; what is none is printed first.
  constexpr std::string_view kTextFilters[] = {"trim",       "upper", "lower",  "title",
                                               "capitalize", "safe",  "replace"};
  if (std::find(std::begin(kTextFilters), std::end(kTextFilters), name) == std::end(kTextFilters)) {
    context->Fail(absl::StrCat("the filter ", Quoted(name), " is not supported"));
    return Value();
  }
  const Value text(Print(value, context));
  if (name == "safe") return text;
  if (name == "title") return Value(Title(*text.text()));
  return CallMethod(text, name == "trim" ? "strip" : name, arguments, context);
}

bool ApplyTest(const std::string& name, const Value& value, const CallArguments& arguments,
               Context* context) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.text() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "iterable" || name == "sequence") {
    return value.text() != nullptr || value.list() != nullptr || value.dict() != nullptr;
  }
  if (name == "boolean") return value.boolean() != nullptr;
  if (name == "integer") return value.integer() != nullptr;
  if (name == "number") return value.integer() != nullptr || value.boolean() != nullptr;
  if (name == "true") return value.boolean() != nullptr && *value.boolean();
  if (name == "false") return value.boolean() != nullptr && !*value.boolean();
  if (name == "odd" || name == "even") {
    if (value.integer() == nullptr) context->Fail(absl::StrCat(name, " of ", value.kind()));
    return value.integer() != nullptr && (*value.integer() % 2 != 0) == (name == "odd");
  }
  if (name == "eq" || name == "equalto" || name == "in") {
    const Value* other = arguments.Get(0, "other");
    if (other == nullptr) context->Fail(absl::StrCat("the test ", name, " needs an argument"));
    if (other == nullptr) return false;
    return name == "in" ? Contains(*other, value, context) : Equal(value, *other, context);
  }
  context->Fail(absl::StrCat("the test ", Quoted(name), " is not supported"));
  return false;
}

Value CallMethod(const Value& object, const std::string& name, const CallArguments& arguments,
                 Context* context) {
  if (const Dict* dict = object.dict()) {
    List out;
    context->Spend(dict->size() * sizeof(Value));
    if (name == "get") {
      const Text* key = TextArgument(arguments, 0, "key", context);
      const Value* value = key == nullptr ? nullptr : Find(*dict, key->bytes());
      const Value* missing = arguments.Get(1, "default");
      return value != nullptr ? *value : missing != nullptr ? *missing : Value(None());
    }
    if (name == "items" || name == "keys" || name == "values") {
      for (const auto& [key, value] : *dict) {
        if (name == "keys") out.push_back(Value::Of(key));
        if (name == "values") out.push_back(value);
        if (name == "items") out.push_back(Value::Of(List{Value::Of(key), value}));
      }
      return Value::Of(std::move(out));
    }
  }
  if (const Text* text = object.text()) {
    context->Spend(1 + text->size());
    if (name == "strip" || name == "lstrip" || name == "rstrip") {
      const Text* chars = TextArgument(arguments, 0, "chars", context);
      if (chars != nullptr) context->Spend(text->size() * chars->size());
      if (!context->ok()) return Value();
      return Value(Strip(*text, chars, name != "rstrip", name != "lstrip"));
    }
    if (name == "upper") return Value(Upper(*text));
    if (name == "lower") return Value(Lower(*text));
    if (name == "capitalize") return Value(Capitalize(*text));
    if (const Value* list = arguments.Get(0, "list");
        name == "join" && list != nullptr && list->list() != nullptr) {
      return Value(Join(*list->list(), *text, context));
    }
    const Text* first = TextArgument(arguments, 0, "sep", context);
    if (name == "split") {
      const Value* limit = arguments.Get(1, "maxsplit");
      const bool limited = limit != nullptr && limit->integer() != nullptr;
      if (limited && first == nullptr) context->Fail("split with maxsplit needs a separator");
      return Split(*text, first, limited ? *limit->integer() : -1, context);
    }
    if (first != nullptr && name == "startswith") {
      return Value(text->bytes().starts_with(first->bytes()));
    }
    if (first != nullptr && name == "endswith") {
      return Value(text->bytes().ends_with(first->bytes()));
    }
    const Text* second = TextArgument(arguments, 1, "new", context);
    if (first != nullptr && second != nullptr && name == "replace") {
      return Value(Replace(*text, *first, *second, context));
    }
  }
  context->Fail(absl::StrCat("the call of ", Quoted(name), " on ", object.kind(),
                             " with these arguments is not supported"));
  return Value();
}

}  // namespace lacuna::jinja
