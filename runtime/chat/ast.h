#ifndef LACUNA_RUNTIME_CHAT_AST_H_
#define LACUNA_RUNTIME_CHAT_AST_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/chat/value.h"

namespace lacuna::jinja {

// Deeper templates are refused, so that evaluation by recursion needs a bounded stack.
inline constexpr int kMaxDepth = 100;

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  enum class Kind {
    kLiteral,    // value
    kName,       // name
    kList,       // operands
    kDict,       // operands: keys and values in turn
    kUnary,      // name: "-", "+", "not"; operands[0]
    kBinary,     // name: an operator, "and", "or", "in", "not in"; two operands
    kCondition,  // operands: then, if, and else unless there is none
    kAttribute,  // operands[0].name
    kItem,       // operands[0][operands[1]]
    kSlice,      // operands[0][begin:end:step]: operands 1 to 3, null where left out
    kCall,       // operands[0](arguments)
    kFilter,     // operands[0] | name(arguments)
    kTest,       // operands[0] is name(arguments)
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  int depth = 1;  // of the tree below
  std::string name;
  Value value;
  std::vector<ExprPtr> operands;
  std::vector<ExprPtr> arguments;
  std::vector<std::pair<std::string, ExprPtr>> named_arguments;
};

struct Statement;
using Block = std::vector<std::unique_ptr<const Statement>>;

struct Statement {
  enum class Kind {
    kData,   // value
    kPrint,  // expr
    kIf,     // branches; a branch without condition is the else
    kFor,    // names, expr, condition (may be null), branches[0]: body, [1]: else
    kSet,    // names[0] or names[0].names[1]; expr, or without it branches[0]
    kBreak,
    kContinue,
    kBlock,  // branches[0], as it is
  };
  Kind kind = Kind::kData;
  int line = 0;
  Text data;
  std::vector<std::string> names;
  ExprPtr expr;
  ExprPtr condition;
  std::vector<std::pair<ExprPtr, Block>> branches;
};

// Parses a template. INVALID_ARGUMENT, with the line, if it is broken, or nested more than
// kMaxDepth deep; UNIMPLEMENTED names a statement that is not supported.
absl::StatusOr<Block> Parse(std::string_view source);

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_AST_H_
