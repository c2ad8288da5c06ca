#ifndef LACUNA_SERVER_REQUEST_VALIDATION_H_
#define LACUNA_SERVER_REQUEST_VALIDATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lacuna/v1/generation.pb.h"
#include "proto/status.h"
#include "runtime/chat/chat_template.h"
#include "runtime/engine/request.h"

namespace lacuna {

// The longest message in either direction: what gRPC takes by default, and the contract of the API.
inline constexpr int64_t kMaxMessageBytes = 4 << 20;

// What a request is checked against.
struct RequestLimits {
  int32_t context = 0;     // positions, as many as the KV cache has room for
  int32_t vocab_size = 0;  // ids
  int32_t default_max_tokens = 0;
  int64_t max_prompt_bytes = 0;
  int32_t max_choices = 16;  // that the engine has places for
};

struct ValidatedRequest {
  // Complete but for prompt (if it came as text or messages), deadlines and sink.
  GenerationRequest request;
  std::string prompt_text;            // if the prompt came as text
  std::vector<ChatMessage> messages;  // if it came as messages
  absl::Duration queue_timeout = absl::InfiniteDuration();
  v1::EffectiveParams effective;  // every scalar set
};

// Checks every rule of generation.proto that needs no tokenizer and fills in the defaults.
// `seed` is used if the request has none. INVALID_ARGUMENT lists every field at fault, or those
// that are too large: nothing of such a request is copied or walked. A pure function.
absl::StatusOr<ValidatedRequest> ValidateGenerate(const v1::GenerateRequest& request,
                                                  const RequestLimits& limits, uint64_t seed);

// What is wrong with `messages`, a field `name`, if anything is.
std::optional<FieldViolation> CheckMessages(const std::string& name,
                                            const v1::ChatMessages& messages, int64_t max_bytes);
std::vector<ChatMessage> FromProto(const v1::ChatMessages& messages);

// What is left to check when the number of prompt tokens is known: INVALID_ARGUMENT, on `prompt`,
// unless the prompt leaves room for a token. Bounds effective max_tokens by the context.
absl::Status BoundByContext(int32_t prompt_tokens, const RequestLimits& limits,
                            v1::EffectiveParams* effective);

// INVALID_ARGUMENT if a message of the answer is expected to be larger than the 4 MiB that clients
// take by default: the log-probabilities of the prompt, which come at once, and where `streams` is
// false as much output as was asked for with them. Better before the work than after it.
absl::Status CheckAnswerFits(int32_t prompt_tokens, bool streams,
                             const v1::EffectiveParams& effective);

// INVALID_ARGUMENT on `field` unless `id` can travel in metadata: at most 128 bytes of printable
// ASCII.
absl::Status CheckRequestId(const std::string& field, std::string_view id);

}  // namespace lacuna

#endif  // LACUNA_SERVER_REQUEST_VALIDATION_H_
