// The second half of a step: from logits to tokens, text and the end of requests.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/engine/engine.h"

namespace lacuna {

void Engine::Advance(Sequence* sequence, int32_t tokens, absl::Span<const float> logits,
                     absl::Time now) {
  ActiveRequest* const request = sequence->request;
  const size_t width = model_->config().vocab_size;
  sequence->computed += tokens;
  if (options_.prefix_cache) RegisterFullBlocks(sequence);

  // Row r belongs to position computed - rows + r.
  for (size_t row = 0; sequence->collects_prompt_infos() && row * width < logits.size(); ++row) {
    const int32_t next = request->spec.prompt[request->prompt_infos.size()];
    absl::StatusOr<TokenInfo> info = DescribeToken(logits.subspan(row * width, vocab_size_), next,
                                                   request->spec.prompt_logprobs, &scratch_);
    if (!info.ok()) return EndRequest(request, info.status());
    request->prompt_infos.push_back(*std::move(info));
  }
  if (sequence->uncomputed() > 0) return;

  if (sequence->generated() == 0) FinishPrompt(sequence);
  std::vector<int32_t> banned;
  const StoppingParams& stopping = request->spec.stopping;
  if (sequence->generated() < stopping.min_tokens) {
    banned = stopping.stop_token_ids;
    if (!stopping.ignore_eos) banned.insert(banned.end(), eos_ids_.begin(), eos_ids_.end());
  }
  absl::StatusOr<TokenInfo> info =
      sequence->sampler.Sample(logits.last(width).first(vocab_size_), banned, &scratch_);
  if (!info.ok()) return EndRequest(request, info.status());
  AcceptToken(sequence, *std::move(info), now);
}

void Engine::RegisterFullBlocks(Sequence* sequence) {
  constexpr int32_t kSize = KvCache::kBlockSize;
  // With a predictor, what was decoded is approximate: exact requests must not find it.
  const int32_t end = model_->facts().has_predictor
                          ? std::min(sequence->computed, sequence->prompt_length())
                          : sequence->computed;
  for (; (sequence->registered + 1) * kSize <= end; ++sequence->registered) {
    const int32_t i = sequence->registered;
    sequence->content = allocator_.Register(
        sequence->request->spec.tenant, sequence->content,
        absl::MakeConstSpan(sequence->tokens).subspan(size_t{1} * i * kSize, kSize),
        sequence->blocks[i]);
  }
}

void Engine::FinishPrompt(Sequence* sequence) {
  if (sequence->index != 0) return;
  ActiveRequest* const request = sequence->request;
  if (request->spec.prompt_logprobs >= 0) {
    request->spec.sink->OnPromptLogprobs(request->prompt_infos);
  }
  for (const auto& choice : request->choices) {
    if (choice->state != Sequence::State::kHeld) continue;
    choice->state = Sequence::State::kWaiting;
    waiting_.insert(choice.get());
  }
}

void Engine::AcceptToken(Sequence* sequence, TokenInfo info, absl::Time now) {
  const GenerationRequest& spec = sequence->request->spec;
  const StoppingParams& stopping = spec.stopping;
  const int32_t token = info.token_id;
  sequence->tokens.push_back(token);
  sequence->pending.tokens.push_back(std::move(info));
  const int32_t generated = sequence->generated();
  if (generated == 1) {
    sequence->first_token = now;
    metrics_->OnFirstToken(now - sequence->request->submitted, now - sequence->scheduled);
  } else {
    metrics_->OnNextToken(now - sequence->last_token);
  }
  sequence->last_token = now;

  const bool stop_token = std::find(stopping.stop_token_ids.begin(), stopping.stop_token_ids.end(),
                                    token) != stopping.stop_token_ids.end();
  if (stop_token || (!stopping.ignore_eos && IsEos(token))) {
    sequence->matched_stop_token = token;
    if (stopping.include_stop) sequence->text.Append(token, /*may_stop=*/false);
    FinishChoice(sequence, stop_token ? FinishReason::kStopToken : FinishReason::kEos, now);
  } else if (sequence->text.Append(token, generated >= stopping.min_tokens)) {
    FinishChoice(sequence, FinishReason::kStopString, now);
  } else if (generated >= stopping.max_tokens) {
    FinishChoice(sequence, FinishReason::kLength, now);
  } else if (sequence->length() >= max_length_) {
    FinishChoice(sequence, FinishReason::kContextLimit, now);
  } else if (generated == 1 ||
             static_cast<int32_t>(sequence->pending.tokens.size()) >= spec.stream_interval) {
    SendDelta(sequence);
  }
}

void Engine::SendDelta(Sequence* sequence) {
  sequence->pending.text = sequence->text.Take();
  if (sequence->pending.tokens.empty() && sequence->pending.text.empty()) return;
  TokenDelta delta{.index = sequence->index};
  std::swap(delta, sequence->pending);
  sequence->request->spec.sink->OnDelta(std::move(delta));
}

void Engine::FinishChoice(Sequence* sequence, FinishReason reason, absl::Time now) {
  if (reason != FinishReason::kStopString) sequence->text.Finish();
  SendDelta(sequence);
  const ChoiceResult result = sequence->Result(reason, model_->config(), now);
  Leave(sequence);
  metrics_->OnChoiceFinished(result.timings.decode, result.completion_tokens);
  ActiveRequest* const request = sequence->request;
  request->spec.sink->OnChoiceFinished(result);
  if (--request->open_choices == 0) EndRequest(request, absl::OkStatus());
}

void Engine::EndRequest(ActiveRequest* request, const absl::Status& status) {
  for (const auto& choice : request->choices) {
    if (choice->state != Sequence::State::kFinished) Leave(choice.get());
  }
  request->status = status;
  const auto it = requests_.find(request->id);
  ended_.push_back(std::move(it->second));
  requests_.erase(it);
}

void Engine::Leave(Sequence* sequence) {
  if (sequence->state == Sequence::State::kRunning) running_.erase(sequence);
  if (sequence->state == Sequence::State::kWaiting) waiting_.erase(sequence);
  sequence->state = Sequence::State::kFinished;
  FreeBlocks(sequence);
  ++ended_sequences_;
}

}  // namespace lacuna
