#ifndef LACUNA_RUNTIME_ENGINE_SCHEDULER_H_
#define LACUNA_RUNTIME_ENGINE_SCHEDULER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/base/thread_pool.h"
#include "runtime/engine/clock.h"
#include "runtime/engine/engine_metrics.h"
#include "runtime/engine/request.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

struct SchedulerOptions {
  int32_t max_concurrent = 64;    // sequences in the batch
  int32_t max_queue = 256;        // further sequences that may wait
  int32_t max_step_tokens = 512;  // tokens of one step, prefill chunks included
  bool prefix_cache = true;
  FfnMode ffn_mode = FfnMode::kAuto;  // the operator's; kAuto leaves it to the requests
  // The model's threads, which draw the tokens of a step; null: the engine thread does. Borrowed.
  ThreadPool* pool = nullptr;
};

using RequestId = uint64_t;  // made by the scheduler, never reused

// Runs requests on one model with continuous batching: every step, the running sequences decode
// one token and waiting prompts are prefilled in chunks, as PlanStep decides.
//
// Thread-safe. All computing, and every call of a TokenSink, happens on the one engine thread.
class Scheduler {
 public:
  // A place among the max_concurrent + max_queue sequences, taken before any work is done for a
  // request. Gives the place back when destroyed, unless Submit consumed it.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept;
    Ticket& operator=(Ticket&& other) noexcept;
    ~Ticket();

   private:
    friend class Scheduler;
    Ticket(Scheduler* scheduler, int32_t sequences)
        : scheduler_(scheduler), sequences_(sequences) {}
    Scheduler* scheduler_ = nullptr;
    int32_t sequences_ = 0;
  };

  // Borrowed objects must outlive the scheduler. `metrics` may be null.
  Scheduler(const SchedulerOptions& options, Model* model, KvCache* cache,
            const Tokenizer* tokenizer, EngineMetrics* metrics, Clock* clock = Clock::Real());
  // Stops at once: requests still in flight end with UNAVAILABLE.
  ~Scheduler();

  // Starts the engine thread. Tests that do not call it drive the engine with RunStep.
  void Start();
  // One iteration on the calling thread, for tests without Start(): false if there was no work.
  bool RunStep();

  // RESOURCE_EXHAUSTED, naming the limit, if all places are taken; UNAVAILABLE if draining.
  absl::StatusOr<Ticket> Reserve(int32_t sequences);

  // Returns at once. OK: `request.sink` will get exactly one OnDone. Otherwise the sink is not
  // called: INVALID_ARGUMENT (empty prompt, id out of range, prompt not shorter than the context),
  // RESOURCE_EXHAUSTED (prompt larger than the whole KV cache).
  // max_tokens beyond the context or the KV cache ends the choice with kContextLimit.
  absl::StatusOr<RequestId> Submit(Ticket ticket, GenerationRequest request);

  // Ends the request within one step with `why` (not OK); a no-op if it has ended already.
  void Cancel(RequestId id, absl::Status why);

  // From now on Reserve answers UNAVAILABLE; what was admitted runs to its end.
  void Drain();
  // Waits until nothing is in flight; false if `timeout` passed first.
  bool WaitIdle(absl::Duration timeout);

  EngineLoad GetLoad() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_SCHEDULER_H_
