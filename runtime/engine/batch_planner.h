#ifndef LACUNA_RUNTIME_ENGINE_BATCH_PLANNER_H_
#define LACUNA_RUNTIME_ENGINE_BATCH_PLANNER_H_

#include <cstdint>
#include <vector>

namespace lacuna {

// What the planner knows of a sequence in the batch.
struct RunningSequence {
  bool decoding = false;         // exactly one token to compute, and it was generated
  int32_t uncomputed = 0;        // known tokens not in the cache, as many as a step may take; > 0
  int32_t new_blocks = 0;        // that computing them takes; 0 or 1, and 0 while prefilling
  int32_t exclusive_blocks = 0;  // that preempting it would free
};

// What the planner knows of a sequence that waits to be admitted, for the first time or again.
struct WaitingSequence {
  int32_t uncomputed = 0;  // known tokens not in the prefix cache, as many as a step may take; > 0
  int32_t new_blocks = 0;  // free blocks that admission takes: new ones and free cached ones
};

struct PlannerSnapshot {
  // Both in scheduling order: higher priority first, then earlier arrival.
  std::vector<RunningSequence> running;
  std::vector<WaitingSequence> waiting;
  int32_t free_blocks = 0;
  int32_t max_concurrent = 0;
  int32_t max_step_tokens = 0;
};

struct StepPlan {
  struct Chunk {
    int32_t index = 0;   // into `running` or `waiting` of the snapshot
    int32_t tokens = 0;  // to compute in this step, > 0
    bool operator==(const Chunk&) const = default;
  };
  std::vector<Chunk> running;      // decodes first
  std::vector<Chunk> admitted;     // take all their blocks now
  std::vector<int32_t> preempted;  // indices into `running`: lose their blocks, wait again
};

// Tokens of one step that are left to prefill however many sequences decode.
inline constexpr int32_t kMinPrefillTokens = 16;

// Decides one step. A pure function.
//
// - Every running sequence that decodes gets its token, so long prompts never hold decodes up.
//   Prefill chunks share what is left of max_step_tokens, in order, and at least
//   kMinPrefillTokens, so decodes never hold prompts up: a step has at most
//   max(max_step_tokens, decodes + kMinPrefillTokens) tokens.
// - A decode that needs a block when none is free preempts the last sequences in the order; the
//   last one itself waits a step instead and keeps its blocks. The first one always goes on, so
//   a batch whose sequences each fit into the cache alone always gets done.
// - Waiting sequences are admitted strictly in order (one that does not fit yet is not overtaken,
//   so long prompts are not starved), if all their blocks are free and one more for each running
//   sequence, so that those can grow by a block before anything has to be preempted. A sequence
//   alone needs no such margin. Nothing is admitted in a step that is short of blocks.
StepPlan PlanStep(const PlannerSnapshot& snapshot);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_BATCH_PLANNER_H_
