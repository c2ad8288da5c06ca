#ifndef LACUNA_RUNTIME_ENGINE_ENGINE_H_
#define LACUNA_RUNTIME_ENGINE_ENGINE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "runtime/engine/batch_planner.h"
#include "runtime/engine/block_allocator.h"
#include "runtime/engine/clock.h"
#include "runtime/engine/engine_metrics.h"
#include "runtime/engine/sampler.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/sequence.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// Rows of logits of one step for log-probabilities of prompts, shared by the sequences that want
// them, in scheduling order; one that finds none left gets one row, as if it decoded. So a step
// returns at most this many rows more than it has sequences.
//
// It bounds what such a prompt adds to each step, and so to the time between the tokens of all
// others: describing a row took one core 0.25 ms at a vocabulary of 32000 (measured on an AVX-512
// Xeon; 7.8 ns an entry), so 32 rows take 8 ms, where a chunk of 512 would take 128 ms. They hold
// 4 MB of logits instead of 66 MB.
inline constexpr int32_t kMaxPromptLogitRows = 32;

// The single-threaded heart of the Scheduler: holds the requests in flight and runs one step of
// them at a time. Everything but the final OnDone is called on their sinks from here.
// Not thread-safe: for the engine thread.
class Engine {
 public:
  // Borrowed objects must outlive the engine.
  Engine(const SchedulerOptions& options, Model* model, KvCache* cache, const Tokenizer* tokenizer,
         EngineMetrics* metrics, Clock* clock);

  // `request` is valid: see Scheduler::Submit.
  void Add(RequestId id, GenerationRequest request);
  // Ends a request early; a no-op if there is none of this id.
  void End(RequestId id, const absl::Status& why);
  void EndAll(const absl::Status& why);

  bool idle() const { return requests_.empty(); }
  // Ends what is past its time, then computes one batch.
  void Step();

  // Requests that have ended since the last call, in that order. Their blocks are free already;
  // the caller owes each one its OnDone(status).
  std::vector<std::unique_ptr<ActiveRequest>> TakeEnded();

  // Sequences that have ended since the engine was made.
  int64_t ended_sequences() const { return ended_sequences_; }
  // Steps in a row, up to the last one, that the model failed.
  int32_t failed_steps() const { return failed_steps_; }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  const BlockAllocator& allocator() const { return allocator_; }

 private:
  struct BatchEntry {
    Sequence* sequence;
    int32_t tokens;  // to compute in this step
    int32_t logits;  // rows that they return
    Phase phase;
  };
  using SequenceSet = std::set<Sequence*, SchedulingOrder>;

  // The parts of a step.
  void EndExpired(absl::Time now);
  std::vector<BatchEntry> ScheduleBatch(absl::Time now);
  absl::StatusOr<ForwardOutput> Compute(const std::vector<BatchEntry>& batch);
  void FinishStep(const std::vector<BatchEntry>& batch, const ForwardOutput& output,
                  absl::Time start);

  void Admit(Sequence* sequence, const BlockAllocator::Prefix& prefix, absl::Time now);
  void Preempt(Sequence* sequence);
  void GrowBlocks(Sequence* sequence);
  void FreeBlocks(Sequence* sequence);

  // What the logits of one sequence give.
  struct Drawn {
    absl::Status status;
    std::vector<TokenInfo> prompt_infos;  // the next ones
    TokenInfo token;                      // unless part of the prompt is still to be computed
  };
  // `logits` [rows, model's vocabulary] of the entry. Changes the sequence's sampler alone, so that
  // entries can be drawn in parallel.
  Drawn Draw(const BatchEntry& entry, absl::Span<const float> logits, SamplerScratch* scratch);
  std::vector<Drawn> DrawAll(const std::vector<BatchEntry>& batch, absl::Span<const float> logits);
  // Takes the results of the next `tokens` tokens.
  void Advance(Sequence* sequence, int32_t tokens, Drawn drawn, absl::Time now);
  void RegisterFullBlocks(Sequence* sequence);
  void FinishPrompt(Sequence* sequence);
  void AcceptToken(Sequence* sequence, TokenInfo info, absl::Time now);
  void SendDelta(Sequence* sequence);
  void FinishChoice(Sequence* sequence, FinishReason reason, absl::Time now);
  void EndRequest(ActiveRequest* request, const absl::Status& status);
  void Leave(Sequence* sequence);
  bool IsEos(int32_t token) const;

  const SchedulerOptions options_;
  Model* const model_;
  KvCache* const cache_;
  const Tokenizer* const tokenizer_;
  EngineMetrics* const metrics_;
  Clock* const clock_;
  const int32_t vocab_size_;  // ids that both the model and the tokenizer know
  const int32_t max_length_;  // tokens of a sequence, by the context and the KV cache
  std::vector<int32_t> eos_ids_;

  BlockAllocator allocator_;
  std::vector<SamplerScratch> scratch_;  // by thread
  std::map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  SequenceSet waiting_;
  SequenceSet running_;
  std::vector<std::unique_ptr<ActiveRequest>> ended_;
  int64_t ended_sequences_ = 0;
  int32_t failed_steps_ = 0;
};

// Ids that are valid for the model and the tokenizer alike: a model's table may be padded.
int32_t UsableVocabSize(const Model& model, const Tokenizer& tokenizer);

// Positions that a sequence can have, by the context and the KV cache. The last token of a sequence
// is never computed, so it needs no place in the cache.
int32_t MaxSequenceLength(const Model& model, const KvCache& cache);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_ENGINE_H_
