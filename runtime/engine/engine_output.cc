// The second half of a step: from logits to tokens, text and the end of requests.

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/engine/engine.h"

namespace lacuna {

Engine::Drawn Engine::Draw(const BatchEntry& entry, absl::Span<const float> logits,
                           SamplerScratch* scratch) {
  Sequence& sequence = *entry.sequence;
  const GenerationRequest& spec = sequence.request->spec;
  const size_t width = model_->config().vocab_size;
  Drawn drawn;
  // Row r belongs to position computed + tokens - rows + r.
  if (sequence.collects_prompt_infos()) {
    absl::Span<const int32_t> left =
        absl::MakeConstSpan(spec.prompt).subspan(sequence.request->prompt_infos.size());
    left = left.first(std::min(left.size(), logits.size() / width));
    for (size_t row = 0; row < left.size(); ++row) {
      absl::StatusOr<TokenInfo> info = DescribeToken(logits.subspan(row * width, vocab_size_),
                                                     left[row], spec.prompt_logprobs, scratch);
      if (!info.ok()) return {.status = info.status()};
      drawn.prompt_infos.push_back(*std::move(info));
    }
  }
  if (sequence.uncomputed() > entry.tokens) return drawn;

  std::vector<int32_t> banned;
  if (sequence.generated() < spec.stopping.min_tokens) {
    banned = spec.stopping.stop_token_ids;
    if (!spec.stopping.ignore_eos) banned.insert(banned.end(), eos_ids_.begin(), eos_ids_.end());
  }
  absl::StatusOr<TokenInfo> info =
      sequence.sampler.Sample(logits.last(width).first(vocab_size_), banned, scratch);
  if (!info.ok()) return {.status = info.status()};
  drawn.token = *std::move(info);
  return drawn;
}

std::vector<Engine::Drawn> Engine::DrawAll(const std::vector<BatchEntry>& batch,
                                           absl::Span<const float> logits) {
  std::vector<absl::Span<const float>> own(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    own[i] = logits.first(size_t{1} * batch[i].logits * model_->config().vocab_size);
    logits.remove_prefix(own[i].size());
  }
  std::vector<Drawn> drawn(batch.size());
  const auto draw = [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) drawn[i] = Draw(batch[i], own[i], &scratch_[thread]);
  };
  const auto n = static_cast<int64_t>(batch.size());
  if (options_.pool != nullptr) {
    options_.pool->ParallelFor(n, 1, draw);
  } else {
    draw(0, n, 0);
  }
  return drawn;
}

void Engine::Advance(Sequence* sequence, int32_t tokens, Drawn drawn, absl::Time now) {
  ActiveRequest* const request = sequence->request;
  sequence->computed += tokens;
  // First: keys and values beside bad logits may be bad, and must not be found again.
  if (!drawn.status.ok()) return EndRequest(request, drawn.status);
  if (options_.prefix_cache) RegisterFullBlocks(sequence);
  std::move(drawn.prompt_infos.begin(), drawn.prompt_infos.end(),
            std::back_inserter(request->prompt_infos));
  if (sequence->uncomputed() > 0) return;
  if (sequence->generated() == 0) FinishPrompt(sequence);
  AcceptToken(sequence, std::move(drawn.token), now);
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
    metrics_->OnFirstToken(now - sequence->request->spec.arrived, now - sequence->scheduled);
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
