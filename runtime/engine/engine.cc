#include "runtime/engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lacuna {
namespace {

// The path that the operator or all sequences of the step ask for; else the dispatcher decides.
template <typename Batch>
FfnMode StepFfnMode(FfnMode operators, const Batch& batch) {
  if (operators != FfnMode::kAuto) return operators;
  const FfnMode first = batch.front().sequence->request->spec.ffn_mode;
  for (const auto& entry : batch) {
    if (entry.sequence->request->spec.ffn_mode != first) return FfnMode::kAuto;
  }
  return first;
}

}  // namespace

int32_t UsableVocabSize(const Model& model, const Tokenizer& tokenizer) {
  return std::min(model.config().vocab_size, tokenizer.vocab_size());
}

int32_t MaxSequenceLength(const Model& model, const KvCache& cache) {
  return static_cast<int32_t>(std::min<int64_t>(
      model.config().max_context, int64_t{cache.num_blocks()} * KvCache::kBlockSize + 1));
}

Engine::Engine(const SchedulerOptions& options, Model* model, KvCache* cache,
               const Tokenizer* tokenizer, EngineMetrics* metrics, Clock* clock)
    : options_(options),
      model_(model),
      cache_(cache),
      tokenizer_(tokenizer),
      metrics_(metrics),
      clock_(clock),
      vocab_size_(UsableVocabSize(*model, *tokenizer)),
      max_length_(MaxSequenceLength(*model, *cache)),
      allocator_(cache->num_blocks()),
      scratch_(options.pool != nullptr ? options.pool->threads() : 1) {
  for (const int32_t id : model->config().eos_ids) {
    if (id >= 0 && id < vocab_size_) eos_ids_.push_back(id);
  }
  const int32_t eos = tokenizer->eos_id();
  if (eos >= 0 && eos < vocab_size_ && !IsEos(eos)) eos_ids_.push_back(eos);
}

bool Engine::IsEos(int32_t token) const {
  return std::find(eos_ids_.begin(), eos_ids_.end(), token) != eos_ids_.end();
}

void Engine::Add(RequestId id, GenerationRequest request) {
  auto active = std::make_unique<ActiveRequest>(id, std::move(request), tokenizer_);
  Sequence* const first = active->choices.front().get();
  first->state = Sequence::State::kWaiting;
  waiting_.insert(first);
  requests_.emplace(id, std::move(active));
}

void Engine::End(RequestId id, const absl::Status& why) {
  const auto it = requests_.find(id);
  if (it != requests_.end()) EndRequest(it->second.get(), why);
}

void Engine::EndAll(const absl::Status& why) {
  while (!requests_.empty()) EndRequest(requests_.begin()->second.get(), why);
}

std::vector<std::unique_ptr<ActiveRequest>> Engine::TakeEnded() {
  return std::exchange(ended_, {});
}

void Engine::Step() {
  const absl::Time start = clock_->Now();
  EndExpired(start);
  const std::vector<BatchEntry> batch = ScheduleBatch(start);
  if (batch.empty()) {
    // If any request is left, the options or the planner are at fault: an error beats spinning.
    return EndAll(absl::InternalError(
        absl::StrCat("none of the ", requests_.size(), " requests in flight can be scheduled")));
  }
  const absl::StatusOr<ForwardOutput> output = Compute(batch);
  if (output.ok()) {
    failed_steps_ = 0;
    FinishStep(batch, *output, start);
    return;
  }
  ++failed_steps_;
  const absl::Status status =
      absl::InternalError(absl::StrCat("model step failed: ", output.status().message()));
  for (const BatchEntry& entry : batch) End(entry.sequence->request->id, status);
}

void Engine::EndExpired(absl::Time now) {
  for (auto it = requests_.begin(); it != requests_.end();) {
    ActiveRequest* const request = (it++)->second.get();
    const GenerationRequest& spec = request->spec;
    if (now >= spec.deadline) {
      EndRequest(request, absl::DeadlineExceededError("the deadline of the request has passed"));
    } else if (!request->scheduled && now >= spec.queue_deadline) {
      EndRequest(request, absl::DeadlineExceededError(absl::StrCat(
                              "not scheduled within the queue timeout of ",
                              absl::FormatDuration(spec.queue_deadline - spec.arrived))));
    } else if (now - spec.arrived >= spec.stopping.time_limit) {
      for (int32_t i = 0; i < spec.n; ++i) {
        Sequence* const choice = request->choices[i].get();
        if (choice->state != Sequence::State::kFinished) {
          FinishChoice(choice, FinishReason::kTimeLimit, now);
        }
      }
    }
  }
}

std::vector<Engine::BatchEntry> Engine::ScheduleBatch(absl::Time now) {
  PlannerSnapshot snapshot;
  snapshot.free_blocks = allocator_.free_blocks();
  snapshot.max_concurrent = options_.max_concurrent;
  snapshot.max_step_tokens = options_.max_step_tokens;
  int32_t prompt_rows = kMaxPromptLogitRows;
  const std::vector<Sequence*> running(running_.begin(), running_.end());
  for (const Sequence* s : running) {
    RunningSequence& r = snapshot.running.emplace_back();
    r.decoding = s->decoding();
    r.uncomputed = s->ChunkLimit(s->computed, &prompt_rows);
    r.new_blocks = KvCache::BlocksFor(s->length()) - static_cast<int32_t>(s->blocks.size());
    r.exclusive_blocks = static_cast<int32_t>(
        std::count_if(s->blocks.begin(), s->blocks.end(),
                      [this](int32_t block) { return allocator_.references(block) == 1; }));
  }
  std::vector<Sequence*> waiting;
  std::vector<BlockAllocator::Prefix> prefixes;
  // Nothing is looked up for those behind the first one that does not fit: PlanStep stops there.
  int64_t blocks_wanted = static_cast<int64_t>(running.size());
  for (Sequence* s : waiting_) {
    if (running.size() + waiting.size() >= static_cast<size_t>(options_.max_concurrent)) break;
    if (blocks_wanted > snapshot.free_blocks) break;
    waiting.push_back(s);
    BlockAllocator::Prefix& prefix = prefixes.emplace_back();
    if (options_.prefix_cache) {
      prefix = allocator_.Find(s->request->spec.tenant, s->tokens, s->max_cached_tokens());
    }
    const int32_t cached = static_cast<int32_t>(prefix.blocks.size());
    WaitingSequence& w = snapshot.waiting.emplace_back();
    w.uncomputed = s->ChunkLimit(cached * KvCache::kBlockSize, &prompt_rows);
    w.new_blocks = KvCache::BlocksFor(s->length()) - cached + prefix.unreferenced;
    blocks_wanted += w.new_blocks + 1;
  }

  const StepPlan plan = PlanStep(snapshot);
  for (const int32_t i : plan.preempted) Preempt(running[i]);
  // All cached blocks are referenced before any block is allocated, which could evict them.
  for (const StepPlan::Chunk& chunk : plan.admitted) {
    Admit(waiting[chunk.index], prefixes[chunk.index], now);
  }
  std::vector<BatchEntry> batch;
  const auto add = [&batch](Sequence* sequence, int32_t tokens) {
    batch.push_back({sequence, tokens, sequence->wanted_logits(tokens),
                     sequence->decoding() ? Phase::kDecode : Phase::kPrefill});
  };
  for (const StepPlan::Chunk& chunk : plan.running) add(running[chunk.index], chunk.tokens);
  for (const StepPlan::Chunk& chunk : plan.admitted) add(waiting[chunk.index], chunk.tokens);
  for (const BatchEntry& entry : batch) GrowBlocks(entry.sequence);
  return batch;
}

void Engine::Admit(Sequence* sequence, const BlockAllocator::Prefix& prefix, absl::Time now) {
  waiting_.erase(sequence);
  running_.insert(sequence);
  sequence->state = Sequence::State::kRunning;
  for (const int32_t block : prefix.blocks) allocator_.Ref(block);
  sequence->blocks = prefix.blocks;
  sequence->registered = static_cast<int32_t>(prefix.blocks.size());
  sequence->content = prefix.content;
  sequence->computed = sequence->registered * KvCache::kBlockSize;
  if (sequence->scheduled != absl::InfiniteFuture()) return;  // was preempted

  sequence->scheduled = now;
  sequence->cached_tokens = sequence->computed;
  metrics_->OnPrompt(sequence->uncomputed(), sequence->cached_tokens, options_.prefix_cache);
  if (!std::exchange(sequence->request->scheduled, true)) {
    metrics_->OnScheduled(now - sequence->request->spec.arrived);
    sequence->request->spec.sink->OnScheduled();
  }
}

void Engine::Preempt(Sequence* sequence) {
  running_.erase(sequence);
  waiting_.insert(sequence);
  sequence->state = Sequence::State::kWaiting;
  FreeBlocks(sequence);
  metrics_->OnPreemption();
}

void Engine::GrowBlocks(Sequence* sequence) {
  const size_t needed = KvCache::BlocksFor(sequence->length());
  while (sequence->blocks.size() < needed) sequence->blocks.push_back(allocator_.Allocate());
}

void Engine::FreeBlocks(Sequence* sequence) {
  for (; !sequence->blocks.empty(); sequence->blocks.pop_back()) {
    allocator_.Unref(sequence->blocks.back());
  }
  sequence->computed = 0;
  sequence->registered = 0;
  sequence->content = 0;
}

absl::StatusOr<ForwardOutput> Engine::Compute(const std::vector<BatchEntry>& batch) {
  std::vector<SequenceChunk> chunks;
  size_t rows = 0;
  for (const BatchEntry& entry : batch) {
    const Sequence& s = *entry.sequence;
    SequenceChunk& chunk = chunks.emplace_back();
    chunk.tokens = absl::MakeConstSpan(s.tokens).subspan(s.computed, entry.tokens);
    chunk.first_position = s.computed;
    chunk.block_table =
        absl::MakeConstSpan(s.blocks).first(KvCache::BlocksFor(s.computed + entry.tokens));
    chunk.logits = entry.logits;
    chunk.phase = entry.phase;
    chunk.exact = s.request->spec.ffn_mode != FfnMode::kAuto;
    rows += entry.logits;
  }
  absl::StatusOr<ForwardOutput> output =
      model_->Forward(chunks, StepFfnMode(options_.ffn_mode, batch), cache_);
  const size_t expected = rows * model_->config().vocab_size;
  if (output.ok() && output->logits.size() != expected) {
    return absl::InternalError(absl::StrCat("the model returned ", output->logits.size(),
                                            " logits instead of ", expected));
  }
  return output;
}

void Engine::FinishStep(const std::vector<BatchEntry>& batch, const ForwardOutput& output,
                        absl::Time start) {
  const absl::Time now = clock_->Now();
  StepReport report;
  report.duration = now - start;
  report.sequences = static_cast<int32_t>(batch.size());
  report.ffn = &output.ffn;
  for (const BatchEntry& entry : batch) {
    (entry.phase == Phase::kDecode ? report.decode_tokens : report.prefill_tokens) += entry.tokens;
  }
  metrics_->OnStep(report);

  std::vector<Drawn> drawn = DrawAll(batch, output.logits);
  for (size_t i = 0; i < batch.size(); ++i) {
    Sequence* const sequence = batch[i].sequence;
    // One choice that fails ends the whole request, choices later in the batch included.
    if (sequence->state != Sequence::State::kRunning) continue;
    sequence->ffn_tokens += batch[i].tokens;
    if (i < output.ffn.active_by_chunk.size()) {
      sequence->ffn_active += output.ffn.active_by_chunk[i];
    }
    Advance(sequence, batch[i].tokens, std::move(drawn[i]), now);
  }
}

}  // namespace lacuna
