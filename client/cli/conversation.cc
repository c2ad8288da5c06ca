#include "client/cli/conversation.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lacuna {

void Conversation::AddLine(absl::string_view line) {
  turns_.push_back({.line = std::string(line)});
}

void Conversation::AddReply(absl::string_view reply) {
  turns_.back().reply = std::string(reply);
  turns_.back().replied = true;
}

void Conversation::RemoveLastTurn() {
  if (!turns_.empty()) turns_.pop_back();
}

v1::ChatMessages Conversation::All() const {
  v1::ChatMessages messages;
  const auto add = [&messages](const char* role, const std::string& content) {
    v1::ChatMessage* message = messages.add_messages();
    message->set_role(role);
    message->set_content(content);
  };
  if (!system_.empty()) add("system", system_);
  for (const Turn& turn : turns_) {
    add("user", turn.line);
    if (turn.replied) add("assistant", turn.reply);
  }
  return messages;
}

absl::StatusOr<v1::ChatMessages> Conversation::Messages(uint32_t max_tokens, TokenCounter count) {
  while (true) {
    v1::ChatMessages messages = All();
    const absl::StatusOr<uint32_t> tokens = count(messages);
    if (!tokens.ok()) return tokens.status();
    if (*tokens <= max_tokens) return messages;
    if (turns_.size() <= 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "this makes a prompt of ", *tokens, " tokens, and there is room for ", max_tokens));
    }
    turns_.pop_front();
  }
}

}  // namespace lacuna
