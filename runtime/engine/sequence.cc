#include "runtime/engine/sequence.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace lacuna {

ActiveRequest::ActiveRequest(RequestId id, GenerationRequest request, const Tokenizer* tokenizer)
    : id(id), spec(std::move(request)), open_choices(spec.n) {
  for (int32_t i = 0; i < spec.n; ++i) {
    choices.push_back(std::make_unique<Sequence>(this, i, tokenizer));
  }
  if (spec.prompt_logprobs >= 0) prompt_infos.push_back({.token_id = spec.prompt.front()});
}

ActiveRequest::~ActiveRequest() = default;

Sequence::Sequence(ActiveRequest* request, int32_t index, const Tokenizer* tokenizer)
    : request(request),
      index(index),
      tokens(request->spec.prompt),
      sampler(request->spec.sampling, index, request->spec.logprobs, request->spec.prompt),
      text(tokenizer, &request->spec.stopping) {
  pending.index = index;
}

bool Sequence::collects_prompt_infos() const {
  return index == 0 && request->spec.prompt_logprobs >= 0 &&
         request->prompt_infos.size() < request->spec.prompt.size();
}

int32_t Sequence::max_cached_tokens() const {
  return collects_prompt_infos() ? next_prompt_logits() : length() - 1;
}

int32_t Sequence::ChunkLimit(int32_t cached, int32_t* prompt_rows) const {
  const int32_t uncomputed = length() - cached;
  if (!collects_prompt_infos()) return uncomputed;
  const int32_t without_logits = std::max(0, next_prompt_logits() - cached);
  const int32_t rows = std::min(uncomputed - without_logits, std::max(*prompt_rows, 1));
  *prompt_rows -= rows;
  return without_logits + rows;
}

int32_t Sequence::wanted_logits(int32_t chunk_tokens) const {
  const int32_t end = computed + chunk_tokens;
  if (collects_prompt_infos()) return std::max(0, end - std::max(computed, next_prompt_logits()));
  return end == length() ? 1 : 0;
}

ChoiceResult Sequence::Result(FinishReason reason, const ModelConfig& config,
                              absl::Time now) const {
  ChoiceResult result;
  result.index = index;
  result.reason = reason;
  if (reason == FinishReason::kStopString) result.matched_stop = text.matched_stop();
  result.matched_stop_token = matched_stop_token;
  result.prompt_tokens = prompt_length();
  result.completion_tokens = generated();
  result.cached_tokens = cached_tokens;
  const absl::Time scheduled_at = std::min(scheduled, now);
  const absl::Time first_at = std::min(first_token, now);
  result.timings.queue = scheduled_at - request->spec.arrived;
  result.timings.prefill = first_at - scheduled_at;
  result.timings.ttft = first_at - request->spec.arrived;
  result.timings.decode = std::min(last_token, now) - first_at;
  result.timings.total = now - request->spec.arrived;
  const double pairs = static_cast<double>(ffn_tokens) * config.ffn_size * config.num_layers;
  if (pairs > 0 && config.activation.has_zeros()) {
    result.ffn_sparsity = 1.0 - static_cast<double>(ffn_active) / pairs;
  }
  return result;
}

bool SchedulingOrder::operator()(const Sequence* a, const Sequence* b) const {
  return std::make_tuple(-int64_t{a->request->spec.priority}, a->request->id, a->index) <
         std::make_tuple(-int64_t{b->request->spec.priority}, b->request->id, b->index);
}

}  // namespace lacuna
