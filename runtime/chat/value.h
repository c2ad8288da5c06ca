#ifndef LACUNA_RUNTIME_CHAT_VALUE_H_
#define LACUNA_RUNTIME_CHAT_VALUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lacuna::jinja {

// UTF-8 in which each byte knows whether it comes from the conversation or from the template. The
// operations keep a character's mark; where that has no meaning, the result is marked.
class Text {
 public:
  Text() = default;
  explicit Text(std::string_view bytes, bool marked = false)
      : bytes_(bytes), marks_(bytes.size(), marked ? '1' : '0') {}

  const std::string& bytes() const { return bytes_; }
  bool marked(size_t at) const { return marks_[at] == '1'; }
  bool any_marked() const { return marks_.find('1') != std::string::npos; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void Append(const Text& other) {
    bytes_ += other.bytes_;
    marks_ += other.marks_;
  }
  // Bytes [begin, end).
  Text Slice(size_t begin, size_t end) const {
    Text slice;
    slice.bytes_ = bytes_.substr(begin, end - begin);
    slice.marks_ = marks_.substr(begin, end - begin);
    return slice;
  }

 private:
  std::string bytes_;
  std::string marks_;  // as long as bytes_
};

class Value;
using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;  // in the order of insertion
struct Undefined {};
struct None {};
// A function of the environment.
struct Function {
  std::string name;
};
// What namespace() makes: the one object that a template can change, shared by all who hold it.
struct Namespace {
  std::map<std::string, Value> members;
};

// A value of a template. Texts, lists and dictionaries are shared and never change.
class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, std::shared_ptr<const Text>,
                               std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                               std::shared_ptr<Namespace>, Function>;

  Value() = default;                                        // undefined
  Value(Variant variant) : variant_(std::move(variant)) {}  // NOLINT: all are values
  Value(Text text) : variant_(std::make_shared<const Text>(std::move(text))) {}  // NOLINT
  static Value Of(std::string_view text) { return Value(Text(text)); }
  static Value Of(List list);
  static Value Of(Dict dict);

  // Null if it is something else.
  const Text* text() const { return Pointee<std::shared_ptr<const Text>>(); }
  const bool* boolean() const { return std::get_if<bool>(&variant_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&variant_); }
  const Function* function() const { return std::get_if<Function>(&variant_); }
  const List* list() const { return Pointee<std::shared_ptr<const List>>(); }
  const Dict* dict() const { return Pointee<std::shared_ptr<const Dict>>(); }
  Namespace* ns() const {
    const auto* ns = std::get_if<std::shared_ptr<Namespace>>(&variant_);
    return ns == nullptr ? nullptr : ns->get();
  }
  bool is_undefined() const { return std::holds_alternative<Undefined>(variant_); }
  bool is_none() const { return std::holds_alternative<None>(variant_); }

  // As Python has it: empty, zero, none and undefined are false.
  bool truthy() const;
  // For messages: "a list".
  const char* kind() const;
  // Lists and dictionaries inside each other; 0 if it is neither.
  int depth() const { return depth_; }

 private:
  template <typename Pointer>
  auto Pointee() const -> decltype(std::declval<Pointer>().get()) {
    const auto* pointer = std::get_if<Pointer>(&variant_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Variant variant_;
  int depth_ = 0;
};

// Null if there is no such key.
const Value* Find(const Dict& dict, std::string_view key);

// Where each character begins, and the end of the text.
std::vector<size_t> CharOffsets(std::string_view text);

// As Python's str.isspace: white space, and four separators among the control characters.
bool IsPythonSpace(int32_t code_point);

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_VALUE_H_
