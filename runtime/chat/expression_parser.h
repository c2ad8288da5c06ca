#ifndef LACUNA_RUNTIME_CHAT_EXPRESSION_PARSER_H_
#define LACUNA_RUNTIME_CHAT_EXPRESSION_PARSER_H_

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/chat/ast.h"
#include "runtime/chat/lexer.h"

namespace lacuna::jinja {

// Hands out tokens. The first error is kept and ends the parse: after it, every token reads as the
// end of the template.
class TokenReader {
 public:
  // The last of `tokens` is kEnd.
  explicit TokenReader(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const absl::Status& status() const { return status_; }

 protected:
  // Counts the recursion, and fails if it is too deep.
  class Nested {
   public:
    explicit Nested(TokenReader* parser) : parser_(parser) {
      if (++parser_->depth_ > kMaxDepth) parser_->Fail("it is nested too deep");
    }
    ~Nested() { --parser_->depth_; }

   private:
    TokenReader* const parser_;
  };

  const Token& Peek() const { return status_.ok() ? tokens_[at_] : tokens_.back(); }
  // The token behind; kEnd if there is none.
  const Token& PeekNext() const {
    return status_.ok() && at_ + 1 < tokens_.size() ? tokens_[at_ + 1] : tokens_.back();
  }
  bool IsOperator(std::string_view text) const {
    return Peek().kind == Token::Kind::kOperator && Peek().text == text;
  }
  bool IsName(std::string_view text) const {
    return Peek().kind == Token::Kind::kName && Peek().text == text;
  }
  Token Take() {
    Token token = Peek();
    if (status_.ok() && at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool TakeOperator(std::string_view text) { return IsOperator(text) && (Take(), true); }
  bool TakeName(std::string_view text) { return IsName(text) && (Take(), true); }
  void Expect(std::string_view text) {
    if (!TakeOperator(text)) Fail(absl::StrCat("expected ", std::string(text)));
  }
  void ExpectKind(Token::Kind kind, std::string_view what) {
    if (Peek().kind != kind) Fail(absl::StrCat("expected ", std::string(what)));
    Take();
  }
  std::string ExpectName() {
    if (Peek().kind != Token::Kind::kName) Fail("expected a name");
    return Take().text;
  }

  void Fail(std::string_view what);
  void Unsupported(const Statement& statement, std::string_view tag);

 private:
  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  absl::Status status_;
};

// Parses expressions by recursive descent, with Jinja's ranks of operators.
class ExpressionParser : public TokenReader {
 public:
  using TokenReader::TokenReader;

 protected:
  ExprPtr Expression();
  // An expression without "... if ... else ...".
  ExprPtr Or();

 private:
  std::unique_ptr<Expr> Make(Expr::Kind kind, std::string name = "", ExprPtr first = nullptr,
                             ExprPtr second = nullptr);
  void Add(Expr* expr, ExprPtr operand);
  void Deepen(Expr* expr, const Expr* child);
  ExprPtr And();
  ExprPtr Not();
  ExprPtr Comparison();
  std::optional<std::string> ComparisonName();
  template <typename Operand>
  ExprPtr LeftToRight(std::initializer_list<const char*> names, Operand operand);
  ExprPtr Sum();
  ExprPtr Concatenation();
  ExprPtr Product();
  ExprPtr Unary();
  ExprPtr Literal(Value value);
  ExprPtr Primary();
  ExprPtr ListUpTo(std::string_view closing, ExprPtr first);
  ExprPtr DictUpToBrace();
  ExprPtr Postfix(ExprPtr expr);
  ExprPtr Subscript(ExprPtr object);
  void Arguments(Expr* call);
  ExprPtr FiltersAndTests(ExprPtr expr);
  bool StartsArgument() const;
};

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_EXPRESSION_PARSER_H_
