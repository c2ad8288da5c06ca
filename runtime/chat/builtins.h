#ifndef LACUNA_RUNTIME_CHAT_BUILTINS_H_
#define LACUNA_RUNTIME_CHAT_BUILTINS_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/chat/context.h"
#include "runtime/chat/value.h"

namespace lacuna::jinja {

struct CallArguments {
  std::vector<Value> values;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or called `name`; null if it was not given.
  const Value* Get(size_t index, std::string_view name) const;
};

// value | name(arguments)
Value ApplyFilter(const std::string& name, const Value& value, const CallArguments& arguments,
                  Context* context);
// value is name(arguments)
bool ApplyTest(const std::string& name, const Value& value, const CallArguments& arguments,
               Context* context);
// object.name(arguments) of a text or a dictionary.
Value CallMethod(const Value& object, const std::string& name, const CallArguments& arguments,
                 Context* context);

// What {{ value }} prints. Lists and dictionaries are refused: templates print them by tojson.
Text Print(const Value& value, Context* context);
Text ToJson(const Value& value, Context* context);

// Python's ==: values of different types differ, but for true = 1 and false = 0.
bool Equal(const Value& a, const Value& b, Context* context);
// As Python's `in`.
bool Contains(const Value& container, const Value& item, Context* context);
// object[begin:end:step] of a text or list; undefined or none where left out.
Value Slice(const Value& object, const Value& begin, const Value& end, const Value& step,
            Context* context);
// object[key], undefined if there is no such item.
Value Item(const Value& object, const Value& key, Context* context);

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_BUILTINS_H_
