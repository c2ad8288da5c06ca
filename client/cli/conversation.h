#ifndef LACUNA_CLIENT_CLI_CONVERSATION_H_
#define LACUNA_CLIENT_CLI_CONVERSATION_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lacuna/v1/generation.pb.h"

namespace lacuna {

// What was said in a chat, as messages for the model's chat template. Not thread-safe.
class Conversation {
 public:
  using TokenCounter = absl::FunctionRef<absl::StatusOr<uint32_t>(const v1::ChatMessages&)>;

  // `system` is the first message, which is never forgotten, unless it is empty.
  explicit Conversation(std::string system) : system_(std::move(system)) {}

  void AddLine(absl::string_view line);
  void AddReply(absl::string_view reply);
  void RemoveLastTurn();  // if there is one
  void Clear() { turns_.clear(); }

  // The messages, after the oldest turns were forgotten so that their prompt has at most
  // `max_tokens`. INVALID_ARGUMENT if the last turn alone has more.
  absl::StatusOr<v1::ChatMessages> Messages(uint32_t max_tokens, TokenCounter count);

 private:
  // A line and its reply, if it came.
  struct Turn {
    std::string line;
    std::string reply;
    bool replied = false;
  };

  v1::ChatMessages All() const;

  const std::string system_;
  std::deque<Turn> turns_;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_CONVERSATION_H_
