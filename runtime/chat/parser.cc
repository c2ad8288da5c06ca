#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/chat/ast.h"
#include "runtime/chat/expression_parser.h"
#include "runtime/chat/lexer.h"

namespace lacuna::jinja {
namespace {

using Kind = Token::Kind;

// Parses statements by recursive descent.
class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  absl::StatusOr<Block> Run() {
    Block block = Statements({});
    if (!status().ok()) return status();
    return block;
  }

 private:
  // Statements up to a tag that starts with one of `ends`, whose name stays to be read.
  Block Statements(const std::vector<std::string_view>& ends) {
    const Nested nested(this);
    Block block;
    while (Peek().kind != Kind::kEnd) {
      auto statement = std::make_unique<Statement>();
      statement->line = Peek().line;
      if (Peek().kind == Kind::kData) {
        statement->data = Text(Take().text);
      } else if (Peek().kind == Kind::kPrintBegin) {
        Take();
        statement->kind = Statement::Kind::kPrint;
        statement->expr = Expression();
        ExpectKind(Kind::kPrintEnd, "}}");
      } else {
        Take();  // kBlockBegin
        if (std::find(ends.begin(), ends.end(), Peek().text) != ends.end()) return block;
        TagStatement(statement.get());
      }
      block.push_back(std::move(statement));
    }
    if (!ends.empty()) Fail(absl::StrCat("expected ", std::string(ends.back())));
    return block;
  }

  void TagStatement(Statement* statement) {
    const std::string tag = ExpectName();
    if (tag == "if") {
      If(statement);
    } else if (tag == "for") {
      For(statement);
    } else if (tag == "set") {
      Set(statement);
    } else if (tag == "break" || tag == "continue") {
      statement->kind = tag == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
      if (loops_ == 0) Fail(absl::StrCat(tag, " is in no loop"));
      EndTag();
    } else if (tag == "generation") {  // marks what was generated, for training
      statement->kind = Statement::Kind::kBlock;
      EndTag();
      AddBranch(statement, nullptr, Statements({"endgeneration"}));
      Take();
      EndTag();
    } else {
      Unsupported(*statement, tag);
    }
  }

  void EndTag() { ExpectKind(Kind::kBlockEnd, "%}"); }

  static void AddBranch(Statement* statement, ExprPtr condition, Block block) {
    statement->branches.emplace_back(std::move(condition), std::move(block));
  }

  void If(Statement* statement) {
    statement->kind = Statement::Kind::kIf;
    bool more = true;
    ExprPtr condition = Expression();
    while (more && status().ok()) {
      EndTag();
      const bool is_else = condition == nullptr;
      Block block = is_else ? Statements({"endif"}) : Statements({"elif", "else", "endif"});
      AddBranch(statement, std::move(condition), std::move(block));
      const std::string tag = Take().text;
      more = tag != "endif";
      condition = tag == "elif" ? Expression() : nullptr;
    }
    EndTag();
  }

  void For(Statement* statement) {
    statement->kind = Statement::Kind::kFor;
    do {
      statement->names.push_back(ExpectName());
    } while (TakeOperator(","));
    if (!TakeName("in")) Fail("expected in");
    statement->expr = Or();
    if (TakeName("if")) statement->condition = Expression();
    EndTag();
    ++loops_;
    AddBranch(statement, nullptr, Statements({"else", "endfor"}));
    --loops_;
    if (TakeName("else")) {
      EndTag();
      AddBranch(statement, nullptr, Statements({"endfor"}));
    }
    Take();
    EndTag();
  }

  void Set(Statement* statement) {
    statement->kind = Statement::Kind::kSet;
    statement->names.push_back(ExpectName());
    if (TakeOperator(".")) statement->names.push_back(ExpectName());
    if (TakeOperator("=")) {
      statement->expr = Expression();
      EndTag();
      return;
    }
    EndTag();
    AddBranch(statement, nullptr, Statements({"endset"}));
    Take();
    EndTag();
  }

  int loops_ = 0;  // that are open
};

}  // namespace

absl::StatusOr<Block> Parse(std::string_view source) {
  absl::StatusOr<std::vector<Token>> tokens = Lex(source);
  if (!tokens.ok()) return tokens.status();
  return Parser(*std::move(tokens)).Run();
}

}  // namespace lacuna::jinja
