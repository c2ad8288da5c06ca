#include "runtime/chat/evaluator.h"

#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"
#include "runtime/chat/builtins.h"

namespace lacuna::jinja {
namespace {

class Evaluator {
 public:
  Evaluator(std::map<std::string, Value> variables, int64_t work) : context_(work) {
    scopes_.push_back(std::move(variables));
    for (const char* name : {"namespace", "range", "dict", "raise_exception"}) {
      scopes_.front()[name] = Value(Function{name});
    }
  }

  absl::StatusOr<Text> Run(const Block& block) {
    Text out;
    RunBlock(block, &out);
    if (!context_.ok()) return context_.status();
    return out;
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  Flow RunBlock(const Block& block, Text* out) {
    for (const auto& statement : block) {
      const Flow flow = RunStatement(*statement, out);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow RunStatement(const Statement& statement, Text* out) {
    if (!context_.ok()) return Flow::kBreak;
    context_.set_line(statement.line);
    context_.Spend(1);
    switch (statement.kind) {
      case Statement::Kind::kData:
        context_.Spend(statement.data.size());
        out->Append(statement.data);
        return Flow::kNext;
      case Statement::Kind::kPrint:
        out->Append(Print(Eval(*statement.expr), &context_));
        return Flow::kNext;
      case Statement::Kind::kIf:
        for (const auto& [condition, block] : statement.branches) {
          if (condition == nullptr || Eval(*condition).truthy()) return RunBlock(block, out);
        }
        return Flow::kNext;
      case Statement::Kind::kFor:
        RunFor(statement, out);
        return Flow::kNext;
      case Statement::Kind::kSet:
        RunSet(statement);
        return Flow::kNext;
      case Statement::Kind::kBreak:
        return Flow::kBreak;
      case Statement::Kind::kContinue:
        return Flow::kContinue;
      case Statement::Kind::kBlock:
        return RunBlock(statement.branches[0].second, out);
    }
    return Flow::kNext;
  }

  void RunFor(const Statement& statement, Text* out) {
    List items = Items(Eval(*statement.expr));
    if (statement.condition != nullptr) {
      List kept;
      for (const Value& item : items) {
        scopes_.emplace_back();
        Bind(statement.names, item);
        if (context_.ok() && Eval(*statement.condition).truthy()) kept.push_back(item);
        scopes_.pop_back();
      }
      items = std::move(kept);
    }
    const auto size = static_cast<int64_t>(items.size());
    if (size == 0 && statement.branches.size() > 1) RunBlock(statement.branches[1].second, out);
    for (int64_t i = 0; i < size && context_.ok(); ++i) {
      scopes_.emplace_back();
      Bind(statement.names, items[i]);
      Dict loop;
      loop.emplace_back("index", Value(i + 1));
      loop.emplace_back("index0", Value(i));
      loop.emplace_back("revindex", Value(size - i));
      loop.emplace_back("revindex0", Value(size - i - 1));
      loop.emplace_back("first", Value(i == 0));
      loop.emplace_back("last", Value(i + 1 == size));
      loop.emplace_back("length", Value(size));
      if (i > 0) loop.emplace_back("previtem", items[i - 1]);
      if (i + 1 < size) loop.emplace_back("nextitem", items[i + 1]);
      scopes_.back()["loop"] = Value::Of(std::move(loop));
      const Flow flow = RunBlock(statement.branches[0].second, out);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
  }

  // What a loop over `value` sees.
  List Items(const Value& value) {
    List items;
    if (const List* list = value.list()) {
      context_.Spend(list->size() * sizeof(Value));
      if (context_.ok()) items = *list;
    } else if (const Dict* dict = value.dict()) {
      context_.Spend(dict->size() * sizeof(Value));
      for (const auto& [key, unused] : *dict) items.push_back(Value::Of(key));
    } else if (const Text* text = value.text()) {
      const std::vector<size_t> offsets = CharOffsets(text->bytes());
      context_.Spend(offsets.size() * sizeof(Value));
      for (size_t i = 0; i + 1 < offsets.size() && context_.ok(); ++i) {
        items.push_back(Value(text->Slice(offsets[i], offsets[i + 1])));
      }
    } else if (!value.is_undefined()) {
      context_.Fail(absl::StrCat("cannot loop over ", value.kind()));
    }
    return items;
  }

  void Bind(const std::vector<std::string>& names, const Value& item) {
    if (names.size() == 1) {
      scopes_.back()[names[0]] = item;
    } else if (item.list() == nullptr || item.list()->size() != names.size()) {
      context_.Fail(absl::StrCat("cannot unpack ", item.kind(), " into ", names.size(), " names"));
    } else {
      for (size_t i = 0; i < names.size(); ++i) scopes_.back()[names[i]] = (*item.list())[i];
    }
  }

  void RunSet(const Statement& statement) {
    Value value;
    if (statement.expr != nullptr) {
      value = Eval(*statement.expr);
    } else {
      Text text;
      RunBlock(statement.branches[0].second, &text);
      value = Value(std::move(text));
    }
    if (statement.names.size() == 1) {
      scopes_.back()[statement.names[0]] = std::move(value);
      return;
    }
    const Value target = Variable(statement.names[0]);
    if (target.ns() == nullptr) {
      context_.Fail(absl::StrCat(Quoted(statement.names[0]), " is no namespace"));
      return;
    }
    CheckPart(value);
    if (context_.ok()) target.ns()->members[statement.names[1]] = std::move(value);
  }

  // A namespace in a namespace or a list could hold itself.
  void CheckPart(const Value& value) {
    if (value.ns() != nullptr) context_.Fail("a namespace cannot be put into another value");
    if (value.depth() >= kMaxDepth) context_.Fail("a value is nested too deep");
  }

  Value Variable(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto it = scope->find(name);
      if (it != scope->end()) return it->second;
    }
    return Value();
  }

  Value Eval(const Expr& expr) {
    context_.set_line(expr.line);
    context_.Spend(1 + scopes_.size());
    if (!context_.ok()) return Value();
    switch (expr.kind) {
      case Expr::Kind::kLiteral:
        if (expr.value.text() != nullptr) context_.Spend(expr.value.text()->size());
        return expr.value;
      case Expr::Kind::kName:
        return Charged(Variable(expr.name));
      case Expr::Kind::kList: {
        List list;
        context_.Spend(expr.operands.size() * sizeof(Value));
        for (const ExprPtr& item : expr.operands) {
          list.push_back(Eval(*item));
          CheckPart(list.back());
        }
        return Value::Of(std::move(list));
      }
      case Expr::Kind::kDict:
        return EvalDict(expr);
      case Expr::Kind::kUnary:
        return EvalUnary(expr);
      case Expr::Kind::kBinary:
        return EvalBinary(expr);
      case Expr::Kind::kCondition:
        if (Eval(*expr.operands[1]).truthy()) return Eval(*expr.operands[0]);
        return expr.operands.size() > 2 ? Eval(*expr.operands[2]) : Value();
      case Expr::Kind::kAttribute:
        return Charged(Item(Eval(*expr.operands[0]), Value::Of(expr.name), &context_));
      case Expr::Kind::kItem: {
        const Value object = Eval(*expr.operands[0]);
        return Charged(Item(object, Eval(*expr.operands[1]), &context_));
      }
      case Expr::Kind::kSlice: {
        const Value object = Eval(*expr.operands[0]);
        Value bounds[3];
        for (int i = 0; i < 3; ++i) {
          if (expr.operands[i + 1] != nullptr) bounds[i] = Eval(*expr.operands[i + 1]);
        }
        return Slice(object, bounds[0], bounds[1], bounds[2], &context_);
      }
      case Expr::Kind::kCall:
        return EvalCall(expr);
      case Expr::Kind::kFilter: {
        const Value value = Eval(*expr.operands[0]);
        const CallArguments arguments = EvalArguments(expr);
        return context_.ok() ? ApplyFilter(expr.name, value, arguments, &context_) : Value();
      }
      case Expr::Kind::kTest: {
        const Value value = Eval(*expr.operands[0]);
        const CallArguments arguments = EvalArguments(expr);
        return Value(context_.ok() && ApplyTest(expr.name, value, arguments, &context_));
      }
    }
    return Value();
  }

  // Texts are shared, but whatever is done with one takes as long as it is.
  Value Charged(Value value) {
    if (value.text() != nullptr) context_.Spend(value.text()->size());
    return value;
  }

  Value EvalDict(const Expr& expr) {
    Dict dict;
    for (size_t i = 0; i + 1 < expr.operands.size(); i += 2) {
      const Value key = Eval(*expr.operands[i]);
      Value value = Eval(*expr.operands[i + 1]);
      CheckPart(value);
      if (key.text() == nullptr) context_.Fail("the key of a dictionary must be a text");
      if (!context_.ok()) return Value();
      // Keys have no marks, so a text could lose its own by being one.
      if (key.text()->any_marked()) {
        context_.Fail("the key of a dictionary must not come from a message");
        return Value();
      }
      dict.emplace_back(key.text()->bytes(), std::move(value));
    }
    return Value::Of(std::move(dict));
  }

  Value EvalUnary(const Expr& expr) {
    const Value value = Eval(*expr.operands[0]);
    if (expr.name == "not") return Value(!value.truthy());
    const int64_t* number = value.integer();
    if (number == nullptr) context_.Fail(absl::StrCat("cannot negate ", value.kind()));
    if (number == nullptr || expr.name == "+") return value;
    return Value(static_cast<int64_t>(-static_cast<uint64_t>(*number)));
  }

  Value EvalBinary(const Expr& expr) {
    const std::string& name = expr.name;
    const Value left = Eval(*expr.operands[0]);
    if (name == "and" || name == "or") {
      return left.truthy() == (name == "or") ? left : Eval(*expr.operands[1]);
    }
    const Value right = Eval(*expr.operands[1]);
    if (!context_.ok()) return Value();
    if (name == "==") return Value(Equal(left, right, &context_));
    if (name == "!=") return Value(!Equal(left, right, &context_));
    if (name == "in") return Value(Contains(right, left, &context_));
    if (name == "not in") return Value(!Contains(right, left, &context_));
    if (name == "~") return Concatenate(Print(left, &context_), Print(right, &context_));
    if (left.text() != nullptr && right.text() != nullptr) {
      const int order = left.text()->bytes().compare(right.text()->bytes());
      if (name == "+") return Concatenate(*left.text(), *right.text());
      if (name == "<") return Value(order < 0);
      if (name == "<=") return Value(order <= 0);
      if (name == ">") return Value(order > 0);
      if (name == ">=") return Value(order >= 0);
    }
    if (left.list() != nullptr && right.list() != nullptr && name == "+") {
      context_.Spend((left.list()->size() + right.list()->size()) * sizeof(Value));
      if (!context_.ok()) return Value();
      List list = *left.list();
      list.insert(list.end(), right.list()->begin(), right.list()->end());
      return Value::Of(std::move(list));
    }
    if (left.integer() != nullptr && right.integer() != nullptr) {
      return Arithmetic(name, *left.integer(), *right.integer());
    }
    if (left.text() != nullptr && right.integer() != nullptr && name == "*") {
      Text out;
      for (int64_t i = 0; i < *right.integer() && context_.ok(); ++i) {
        context_.Spend(1 + left.text()->size());
        out.Append(*left.text());
      }
      return Value(std::move(out));
    }
    context_.Fail(absl::StrCat(left.kind(), " ", name, " ", right.kind(), " is not supported"));
    return Value();
  }

  Value Concatenate(Text left, const Text& right) {
    context_.Spend(left.size() + right.size());
    left.Append(right);
    return Value(std::move(left));
  }

  Value Arithmetic(const std::string& name, int64_t left, int64_t right) {
    if (name == "<") return Value(left < right);
    if (name == "<=") return Value(left <= right);
    if (name == ">") return Value(left > right);
    if (name == ">=") return Value(left >= right);
    int64_t result = 0;
    bool overflows = false;
    if (name == "+") {
      overflows = __builtin_add_overflow(left, right, &result);
    } else if (name == "-") {
      overflows = __builtin_sub_overflow(left, right, &result);
    } else if (name == "*") {
      overflows = __builtin_mul_overflow(left, right, &result);
    } else if (name == "/") {
      context_.Fail("/ gives a fraction, which is not supported");
    } else if (right == 0 || (right == -1 && left == std::numeric_limits<int64_t>::min())) {
      overflows = true;
    } else {  // Python rounds down
      const int64_t rest = left % right;
      const bool adjust = rest != 0 && (rest < 0) != (right < 0);
      result = name == "%" ? rest + (adjust ? right : 0) : left / right - (adjust ? 1 : 0);
    }
    if (overflows) context_.Fail(absl::StrCat(left, " ", name, " ", right, " is no integer"));
    return Value(result);
  }

  CallArguments EvalArguments(const Expr& expr) {
    CallArguments arguments;
    for (const ExprPtr& argument : expr.arguments) arguments.values.push_back(Eval(*argument));
    for (const auto& [name, argument] : expr.named_arguments) {
      arguments.named.emplace_back(name, Eval(*argument));
    }
    return arguments;
  }

  Value EvalCall(const Expr& expr) {
    const Expr& callee = *expr.operands[0];
    const CallArguments arguments = EvalArguments(expr);
    if (callee.kind == Expr::Kind::kAttribute) {
      const Value object = Eval(*callee.operands[0]);
      return context_.ok() ? CallMethod(object, callee.name, arguments, &context_) : Value();
    }
    const Value function = Eval(callee);
    if (!context_.ok()) return Value();
    if (function.function() == nullptr) {
      context_.Fail(absl::StrCat(callee.name.empty() ? "this" : Quoted(callee.name), " is ",
                                 function.kind(), ", not a function"));
      return Value();
    }
    return CallFunction(function.function()->name, arguments);
  }

  Value CallFunction(const std::string& name, const CallArguments& arguments) {
    if (name == "range") return Range(arguments);
    if (name == "raise_exception") {
      const Value* message = arguments.Get(0, "message");
      context_.Fail(
          absl::StrCat("the template refuses this conversation: ",
                       message == nullptr ? std::string() : Print(*message, &context_).bytes()));
      return Value();
    }
    for (const auto& [key, value] : arguments.named) CheckPart(value);
    if (!arguments.values.empty()) context_.Fail(absl::StrCat(name, "() takes named arguments"));
    if (name == "dict") return Value::Of(Dict(arguments.named));
    auto ns = std::make_shared<Namespace>();
    if (context_.ok()) ns->members.insert(arguments.named.begin(), arguments.named.end());
    return Value(std::move(ns));
  }

  Value Range(const CallArguments& arguments) {
    int64_t bounds[3] = {0, 0, 1};
    const size_t count = arguments.values.size();
    for (size_t i = 0; i < count && i < 3; ++i) {
      const int64_t* number = arguments.values[i].integer();
      if (number == nullptr) context_.Fail("range() takes integers");
      if (number != nullptr) bounds[count == 1 ? 1 : i] = *number;
    }
    if (count == 0 || count > 3 || bounds[2] == 0) context_.Fail("range() takes 1 to 3 integers");
    List list;
    for (int64_t i = bounds[0]; context_.ok() && (bounds[2] > 0 ? i < bounds[1] : i > bounds[1]);) {
      context_.Spend(sizeof(Value));
      list.emplace_back(i);
      if (__builtin_add_overflow(i, bounds[2], &i)) break;
    }
    return Value::Of(std::move(list));
  }

  Context context_;
  std::vector<std::map<std::string, Value>> scopes_;  // innermost last
};

}  // namespace

absl::StatusOr<Text> Evaluate(const Block& block, std::map<std::string, Value> variables,
                              int64_t work) {
  return Evaluator(std::move(variables), work).Run(block);
}

}  // namespace lacuna::jinja
