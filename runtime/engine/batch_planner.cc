#include "runtime/engine/batch_planner.h"

#include <algorithm>

namespace lacuna {

StepPlan PlanStep(const PlannerSnapshot& snapshot) {
  const std::vector<RunningSequence>& running = snapshot.running;
  StepPlan plan;
  int32_t free = snapshot.free_blocks;
  int32_t end = static_cast<int32_t>(running.size());  // from here on: preempted
  bool short_of_blocks = false;
  for (int32_t i = 0; i < end; ++i) {
    if (!running[i].decoding) continue;
    while (free < running[i].new_blocks && end - 1 > i) {
      free += running[--end].exclusive_blocks;
      plan.preempted.push_back(end);
      short_of_blocks = true;
    }
    if (free < running[i].new_blocks) {
      short_of_blocks = true;
      continue;
    }
    free -= running[i].new_blocks;
    plan.running.push_back({i, 1});
  }

  const int32_t decodes = static_cast<int32_t>(plan.running.size());
  int32_t budget = std::max(snapshot.max_step_tokens - decodes, kMinPrefillTokens);
  for (int32_t i = 0; i < end && budget > 0; ++i) {
    if (running[i].decoding) continue;
    const int32_t tokens = std::min(running[i].uncomputed, budget);
    budget -= tokens;
    plan.running.push_back({i, tokens});
  }

  if (short_of_blocks) return plan;
  int32_t batch = end;
  for (size_t i = 0; i < snapshot.waiting.size(); ++i) {
    const WaitingSequence& waiting = snapshot.waiting[i];
    if (batch >= snapshot.max_concurrent || budget == 0) break;
    if (waiting.new_blocks + batch > free) break;
    const int32_t tokens = std::min(waiting.uncomputed, budget);
    plan.admitted.push_back({static_cast<int32_t>(i), tokens});
    budget -= tokens;
    free -= waiting.new_blocks;
    ++batch;
  }
  return plan;
}

}  // namespace lacuna
