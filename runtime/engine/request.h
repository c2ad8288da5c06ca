#ifndef LACUNA_RUNTIME_ENGINE_REQUEST_H_
#define LACUNA_RUNTIME_ENGINE_REQUEST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/model/ffn_dispatcher.h"

namespace lacuna {

// Ranges are those of the API (docs: proto/lacuna/v1/generation.proto); the server checks them.
struct SamplingParams {
  float temperature = 1.0f;  // 0 = greedy
  float top_p = 1.0f;
  int32_t top_k = 0;  // 0 = off
  float min_p = 0.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit
  uint64_t seed = 0;
};

struct StoppingParams {
  int32_t max_tokens = 0;  // > 0
  int32_t min_tokens = 0;
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  bool include_stop = false;
  bool ignore_eos = false;
  absl::Duration time_limit = absl::InfiniteDuration();  // from arrival
};

enum class FinishReason : uint8_t {
  kEos,
  kStopString,
  kStopToken,
  kLength,
  kContextLimit,
  kTimeLimit,
  kCancelled,  // with a status that is not OK: cancelled, deadline, error
};
const char* FinishReasonName(FinishReason reason);  // "eos", "stop_string", ...

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0.0f;  // of the model's own distribution: before penalties, bias, temperature
  bool operator==(const TokenLogprob&) const = default;
};

// One generated token, or one prompt token with its alternatives.
struct TokenInfo {
  int32_t token_id = 0;
  float logprob = 0.0f;           // only if logprobs were asked for
  std::vector<TokenLogprob> top;  // the most probable ones, best first
  bool operator==(const TokenInfo&) const = default;
};

// New output of one choice. Text is held back while it may be part of a stop string or of an
// incomplete UTF-8 sequence, so `text` is not always the text of `tokens`; together they agree.
struct TokenDelta {
  int32_t index = 0;  // choice
  std::string text;
  std::vector<TokenInfo> tokens;
};

struct RequestTimings {
  absl::Duration queue;    // arrival to first scheduled
  absl::Duration prefill;  // first scheduled to first token
  absl::Duration ttft;     // arrival to first token
  absl::Duration decode;   // first token to last token
  absl::Duration total;    // arrival to end
};

struct ChoiceResult {
  int32_t index = 0;
  FinishReason reason = FinishReason::kLength;
  std::string matched_stop;         // kStopString
  int32_t matched_stop_token = -1;  // kStopToken, kEos
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;  // of the prompt, found in the prefix cache
  RequestTimings timings;
  // Share of FFN neurons that were zero over all computed tokens and layers; 0 for dense models.
  double ffn_sparsity = 0.0;
};

// Receives the output of one request. Called by the engine thread only, in order, never
// concurrently; must not block. OnDone is called exactly once and last, whatever happens.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Once, when the first choice is scheduled for the first time: the wait in the queue is over.
  virtual void OnScheduled() {}
  // Once, before the first delta, if prompt logprobs were asked for. The first token has none.
  virtual void OnPromptLogprobs(std::vector<TokenInfo> tokens) = 0;
  virtual void OnDelta(TokenDelta delta) = 0;
  // Once for each choice that ended by itself (any reason but kCancelled).
  virtual void OnChoiceFinished(const ChoiceResult& result) = 0;
  // OK: every choice has finished. Otherwise why not: CANCELLED, DEADLINE_EXCEEDED (the deadline
  // or the queue timeout passed), RESOURCE_EXHAUSTED (slow consumer), UNAVAILABLE (shutdown),
  // INTERNAL (this request only).
  virtual void OnDone(const absl::Status& status) = 0;
};

struct GenerationRequest {
  std::string id;               // for logs; need not be unique
  std::vector<int32_t> prompt;  // not empty
  SamplingParams sampling;
  StoppingParams stopping;
  int32_t n = 1;          // choices; choice i draws from the stream (seed, i)
  int32_t logprobs = -1;  // top alternatives to report per token; -1 = none at all
  int32_t prompt_logprobs = -1;
  int32_t stream_interval = 1;  // tokens per delta; the first and the last come at once
  int32_t priority = 0;         // higher goes first; equal ones in order of arrival
  std::string tenant;           // prefix-cache entries are not shared between tenants
  FfnMode ffn_mode = FfnMode::kAuto;
  // By the engine's clock. When the client's wait began; the infinite past: at the submission.
  absl::Time arrived = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time queue_deadline = absl::InfiniteFuture();  // must be scheduled by then
  std::shared_ptr<TokenSink> sink;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_REQUEST_H_
