#ifndef LACUNA_RUNTIME_ENGINE_ENGINE_METRICS_H_
#define LACUNA_RUNTIME_ENGINE_ENGINE_METRICS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "runtime/model/model.h"

namespace lacuna {

// A snapshot of one engine.
struct EngineLoad {
  int32_t running = 0;  // sequences in the batch
  int32_t waiting = 0;  // sequences not in the batch: new ones and preempted ones
  int32_t max_concurrent = 0;
  int32_t max_queue = 0;
  int32_t kv_blocks_used = 0;  // referenced by running sequences; cached-only blocks count as free
  int32_t kv_blocks_total = 0;
  bool draining = false;
  int32_t failed_steps = 0;  // the last ones, in a row
  // Wall-clock end of the last step.
  absl::Time last_step = absl::InfinitePast();
};

struct StepReport {
  absl::Duration duration;
  int32_t sequences = 0;
  int32_t prefill_tokens = 0;
  int32_t decode_tokens = 0;
  const FfnStepStats* ffn = nullptr;  // valid during the call
};

// What the engine tells about itself; the server turns it into Prometheus metrics. All calls come
// from the engine thread, or from one that makes or ends it, and must not block.
class EngineMetrics {
 public:
  virtual ~EngineMetrics() = default;
  virtual void OnStep(const StepReport& report) = 0;
  virtual void OnScheduled(absl::Duration queue_time) = 0;
  // First token of a choice.
  virtual void OnFirstToken(absl::Duration since_arrival, absl::Duration prefill) = 0;
  // Each further token.
  virtual void OnNextToken(absl::Duration since_previous) = 0;
  // A choice ended by itself after `completion_tokens`; `decode` is first to last token.
  virtual void OnChoiceFinished(absl::Duration decode, int32_t completion_tokens) = 0;
  // Once per choice, when it is first scheduled: the tokens of its prompt that are to be computed,
  // and those found in the prefix cache, if they were looked up. What a preemption makes it compute
  // again is not counted.
  virtual void OnPrompt(int32_t computed_tokens, int32_t cached_tokens, bool looked_up) = 0;
  virtual void OnPreemption() = 0;
  virtual void OnLoad(const EngineLoad& load) = 0;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_ENGINE_METRICS_H_
