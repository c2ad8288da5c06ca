#include "runtime/chat/expression_parser.h"

#include <algorithm>

#include "runtime/base/utf8.h"

namespace lacuna::jinja {

void TokenReader::Fail(std::string_view what) {
  status_.Update(absl::InvalidArgumentError(
      absl::StrCat("line ", Peek().line, ": ", std::string(what),
                   Peek().text.empty() ? "" : absl::StrCat(" at ", Quoted(Peek().text)))));
}

void TokenReader::Unsupported(const Statement& statement, std::string_view tag) {
  status_.Update(absl::UnimplementedError(
      absl::StrCat("line ", statement.line, ": the tag ", Quoted(tag), " is not supported")));
}

std::unique_ptr<Expr> ExpressionParser::Make(Expr::Kind kind, std::string name, ExprPtr first,
                                             ExprPtr second) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = Peek().line;
  expr->name = std::move(name);
  if (first != nullptr) Add(expr.get(), std::move(first));
  if (second != nullptr) Add(expr.get(), std::move(second));
  return expr;
}
void ExpressionParser::Add(Expr* expr, ExprPtr operand) {
  Deepen(expr, operand.get());
  expr->operands.push_back(std::move(operand));
}
void ExpressionParser::Deepen(Expr* expr, const Expr* child) {
  if (child != nullptr) expr->depth = std::max(expr->depth, child->depth + 1);
  if (expr->depth > kMaxDepth) Fail("it is nested too deep");
}

ExprPtr ExpressionParser::Expression() {
  const Nested nested(this);
  ExprPtr then = Or();
  while (TakeName("if")) {
    auto expr = Make(Expr::Kind::kCondition, "", std::move(then), Or());
    if (TakeName("else")) Add(expr.get(), Expression());
    then = std::move(expr);
  }
  return then;
}

ExprPtr ExpressionParser::Or() {
  ExprPtr left = And();
  while (TakeName("or")) left = Make(Expr::Kind::kBinary, "or", std::move(left), And());
  return left;
}

ExprPtr ExpressionParser::And() {
  ExprPtr left = Not();
  while (TakeName("and")) left = Make(Expr::Kind::kBinary, "and", std::move(left), Not());
  return left;
}

ExprPtr ExpressionParser::Not() {
  const Nested nested(this);
  if (TakeName("not")) return Make(Expr::Kind::kUnary, "not", Not());
  return Comparison();
}

ExprPtr ExpressionParser::Comparison() {
  ExprPtr left = Sum();
  std::optional<std::string> name = ComparisonName();
  if (!name.has_value()) return left;
  left = Make(Expr::Kind::kBinary, *name, std::move(left), Sum());
  if (ComparisonName().has_value()) Fail("comparisons cannot be chained");
  return left;
}

// Takes the operator of a comparison, if there is one.
std::optional<std::string> ExpressionParser::ComparisonName() {
  for (const char* name : {"==", "!=", "<=", ">=", "<", ">"}) {
    if (TakeOperator(name)) return name;
  }
  if (TakeName("in")) return "in";
  if (IsName("not") && PeekNext().kind == Token::Kind::kName && PeekNext().text == "in") {
    Take();
    Take();
    return "not in";
  }
  return std::nullopt;
}

// Left-associative operators of one rank.
template <typename Operand>
ExprPtr ExpressionParser::LeftToRight(std::initializer_list<const char*> names, Operand operand) {
  ExprPtr left = operand();
  while (true) {
    const auto name =
        std::find_if(names.begin(), names.end(), [this](const char* n) { return TakeOperator(n); });
    if (name == names.end()) return left;
    left = Make(Expr::Kind::kBinary, *name, std::move(left), operand());
  }
}
ExprPtr ExpressionParser::Sum() {
  return LeftToRight({"+", "-"}, [this] { return Concatenation(); });
}
ExprPtr ExpressionParser::Concatenation() {
  return LeftToRight({"~"}, [this] { return Product(); });
}
ExprPtr ExpressionParser::Product() {
  return LeftToRight({"*", "//", "/", "%"}, [this] { return Unary(); });
}

ExprPtr ExpressionParser::Unary() {
  const Nested nested(this);
  ExprPtr expr;
  if (IsOperator("-") || IsOperator("+")) {
    const std::string name = Take().text;
    expr = Make(Expr::Kind::kUnary, name, Unary());
  } else {
    expr = Postfix(Primary());
  }
  return FiltersAndTests(std::move(expr));
}

ExprPtr ExpressionParser::Literal(Value value) {
  auto expr = Make(Expr::Kind::kLiteral);
  expr->value = std::move(value);
  return expr;
}

ExprPtr ExpressionParser::Primary() {
  const Token token = Take();
  if (token.kind == Token::Kind::kInteger) return Literal(Value(token.number));
  if (token.kind == Token::Kind::kString) {
    Text text(token.text);
    while (Peek().kind == Token::Kind::kString) text.Append(Text(Take().text));
    return Literal(Value(std::move(text)));
  }
  if (token.kind == Token::Kind::kName) {
    if (token.text == "true" || token.text == "True") return Literal(Value(true));
    if (token.text == "false" || token.text == "False") return Literal(Value(false));
    if (token.text == "none" || token.text == "None") return Literal(Value(None()));
    return Make(Expr::Kind::kName, token.text);
  }
  if (token.kind == Token::Kind::kOperator && token.text == "(") {
    ExprPtr expr = Expression();
    if (IsOperator(",")) return ListUpTo(")", std::move(expr));
    Expect(")");
    return expr;
  }
  if (token.kind == Token::Kind::kOperator && token.text == "[") return ListUpTo("]", nullptr);
  if (token.kind == Token::Kind::kOperator && token.text == "{") return DictUpToBrace();
  Fail("expected an expression");
  return Make(Expr::Kind::kLiteral);
}

ExprPtr ExpressionParser::ListUpTo(std::string_view closing, ExprPtr first) {
  auto list = Make(Expr::Kind::kList);
  if (first != nullptr) {
    Add(list.get(), std::move(first));
    Take();  // the comma
  }
  while (!IsOperator(closing) && status().ok()) {
    Add(list.get(), Expression());
    if (!TakeOperator(",")) break;
  }
  Expect(closing);
  return list;
}

ExprPtr ExpressionParser::DictUpToBrace() {
  auto dict = Make(Expr::Kind::kDict);
  while (!IsOperator("}") && status().ok()) {
    Add(dict.get(), Expression());
    Expect(":");
    Add(dict.get(), Expression());
    if (!TakeOperator(",")) break;
  }
  Expect("}");
  return dict;
}

ExprPtr ExpressionParser::Postfix(ExprPtr expr) {
  while (status().ok()) {
    if (TakeOperator(".")) {
      expr = Make(Expr::Kind::kAttribute, ExpectName(), std::move(expr));
    } else if (TakeOperator("[")) {
      expr = Subscript(std::move(expr));
    } else if (IsOperator("(")) {
      auto call = Make(Expr::Kind::kCall, "", std::move(expr));
      Arguments(call.get());
      expr = std::move(call);
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr ExpressionParser::Subscript(ExprPtr object) {
  ExprPtr parts[3];
  int part = 0;
  while (status().ok() && !IsOperator("]")) {
    if (TakeOperator(":")) {
      if (++part > 2) Fail("a slice has three parts at most");
    } else {
      parts[std::min(part, 2)] = Expression();
    }
  }
  Expect("]");
  if (part == 0 && parts[0] != nullptr) {
    return Make(Expr::Kind::kItem, "", std::move(object), std::move(parts[0]));
  }
  if (part == 0) Fail("an index is missing");
  auto slice = Make(Expr::Kind::kSlice, "", std::move(object));
  for (ExprPtr& bound : parts) Add(slice.get(), std::move(bound));
  return slice;
}

void ExpressionParser::Arguments(Expr* call) {
  Expect("(");
  while (status().ok() && !IsOperator(")")) {
    const bool named = Peek().kind == Token::Kind::kName && PeekNext().text == "=" &&
                       PeekNext().kind == Token::Kind::kOperator;
    const std::string name = named ? Take().text : "";
    if (named) Take();
    ExprPtr argument = Expression();
    Deepen(call, argument.get());
    if (named) {
      call->named_arguments.emplace_back(name, std::move(argument));
    } else {
      call->arguments.push_back(std::move(argument));
    }
    if (!TakeOperator(",")) break;
  }
  Expect(")");
}

ExprPtr ExpressionParser::FiltersAndTests(ExprPtr expr) {
  while (status().ok()) {
    if (TakeOperator("|")) {
      auto filter = Make(Expr::Kind::kFilter, ExpectName(), std::move(expr));
      if (IsOperator("(")) Arguments(filter.get());
      expr = Postfix(std::move(filter));
    } else if (TakeName("is")) {
      const bool negated = TakeName("not");
      auto test = Make(Expr::Kind::kTest, ExpectName(), std::move(expr));
      if (IsOperator("(")) {
        Arguments(test.get());
      } else if (StartsArgument()) {
        ExprPtr argument = Postfix(Primary());
        Deepen(test.get(), argument.get());
        test->arguments.push_back(std::move(argument));
      }
      expr = std::move(test);
      if (negated) expr = Make(Expr::Kind::kUnary, "not", std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

// Whether an argument follows the name of a test without parentheses.
bool ExpressionParser::StartsArgument() const {
  const Token& next = Peek();
  if (next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger || IsOperator("["))
    return true;
  return next.kind == Token::Kind::kName && next.text != "and" && next.text != "or" &&
         next.text != "if" && next.text != "else" && next.text != "is" && next.text != "in" &&
         next.text != "not";
}

}  // namespace lacuna::jinja
