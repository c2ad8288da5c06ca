#ifndef LACUNA_RUNTIME_CHAT_EVALUATOR_H_
#define LACUNA_RUNTIME_CHAT_EVALUATOR_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/chat/ast.h"
#include "runtime/chat/value.h"

namespace lacuna::jinja {

// Runs a template with these variables and the functions namespace(), range(), dict() and
// raise_exception(). `work` bounds the steps and the bytes of texts and lists that are made, and
// with them time, memory and output. INVALID_ARGUMENT, with the line, if the template does
// something that is not defined or not supported, raises an exception, or runs out of work.
absl::StatusOr<Text> Evaluate(const Block& block, std::map<std::string, Value> variables,
                              int64_t work);

}  // namespace lacuna::jinja

#endif  // LACUNA_RUNTIME_CHAT_EVALUATOR_H_
