#ifndef LACUNA_SERVER_CHAT_PROMPT_H_
#define LACUNA_SERVER_CHAT_PROMPT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/chat/chat_template.h"
#include "server/model_host.h"

namespace lacuna {

// The tokens that the model's chat template makes of `messages`, for the assistant to answer.
// INVALID_ARGUMENT on the field `name` if the model has no template, it refuses the conversation,
// or its text has more than `max_bytes`.
absl::StatusOr<std::vector<int32_t>> EncodeMessages(const ModelHost& host, const std::string& name,
                                                    const std::vector<ChatMessage>& messages,
                                                    int64_t max_bytes);

}  // namespace lacuna

#endif  // LACUNA_SERVER_CHAT_PROMPT_H_
