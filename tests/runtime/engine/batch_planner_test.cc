#include "runtime/engine/batch_planner.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace lacuna {
namespace {

using Chunks = std::vector<StepPlan::Chunk>;

RunningSequence Decode(int32_t new_blocks = 0, int32_t exclusive_blocks = 1) {
  return {.decoding = true,
          .uncomputed = 1,
          .new_blocks = new_blocks,
          .exclusive_blocks = exclusive_blocks};
}
RunningSequence Prefill(int32_t uncomputed, int32_t exclusive_blocks = 1) {
  return {.uncomputed = uncomputed, .exclusive_blocks = exclusive_blocks};
}
WaitingSequence Wait(int32_t uncomputed, int32_t new_blocks) { return {uncomputed, new_blocks}; }

PlannerSnapshot Snapshot(int32_t free_blocks, int32_t max_concurrent = 8,
                         int32_t max_step_tokens = 100) {
  PlannerSnapshot snapshot;
  snapshot.free_blocks = free_blocks;
  snapshot.max_concurrent = max_concurrent;
  snapshot.max_step_tokens = max_step_tokens;
  return snapshot;
}

TEST(BatchPlannerTest, PlansNothingForNothing) {
  const StepPlan plan = PlanStep(Snapshot(10));
  EXPECT_TRUE(plan.running.empty());
  EXPECT_TRUE(plan.admitted.empty());
  EXPECT_TRUE(plan.preempted.empty());
}

TEST(BatchPlannerTest, DecodesGoBeforePrefillsOfHigherOrder) {
  PlannerSnapshot s = Snapshot(10);
  s.running = {Prefill(50), Decode(), Prefill(60), Decode()};
  EXPECT_EQ(PlanStep(s).running, (Chunks{{1, 1}, {3, 1}, {0, 50}, {2, 48}}));
}

TEST(BatchPlannerTest, CutsPrefillsToTheTokensThatAreLeftAndAdmitsNothingMore) {
  PlannerSnapshot s = Snapshot(10);
  s.running = {Prefill(500), Prefill(500)};
  s.waiting = {Wait(5, 1)};
  const StepPlan plan = PlanStep(s);
  EXPECT_EQ(plan.running, (Chunks{{0, 100}}));
  EXPECT_TRUE(plan.admitted.empty());
}

TEST(BatchPlannerTest, PrefillGoesOnHoweverManySequencesDecode) {
  PlannerSnapshot s = Snapshot(10, 64, 8);
  s.running.assign(20, Decode());
  s.running.push_back(Prefill(100));
  const StepPlan plan = PlanStep(s);
  ASSERT_EQ(plan.running.size(), 21u);
  EXPECT_EQ(plan.running.back(), (StepPlan::Chunk{20, kMinPrefillTokens}));
}

TEST(BatchPlannerTest, AdmitsInOrderWithinSlotsTokensAndBlocks) {
  const std::vector<WaitingSequence> waiting = {Wait(40, 3), Wait(40, 3), Wait(40, 3), Wait(1, 1)};
  PlannerSnapshot s = Snapshot(100);
  s.waiting = waiting;
  EXPECT_EQ(PlanStep(s).admitted, (Chunks{{0, 40}, {1, 40}, {2, 20}}));  // tokens are spent
  s.max_concurrent = 2;
  EXPECT_EQ(PlanStep(s).admitted, (Chunks{{0, 40}, {1, 40}}));
  s = Snapshot(3 + 3 + 1);  // the second one leaves one block to the first
  s.waiting = waiting;
  EXPECT_EQ(PlanStep(s).admitted, (Chunks{{0, 40}, {1, 40}}));
  s.free_blocks = 3 + 3;
  EXPECT_EQ(PlanStep(s).admitted, (Chunks{{0, 40}}));
}

TEST(BatchPlannerTest, NobodyOvertakesAWaitingSequenceThatDoesNotFitYet) {
  PlannerSnapshot s = Snapshot(5);
  s.running = {Decode()};
  s.waiting = {Wait(90, 6), Wait(1, 1)};
  EXPECT_TRUE(PlanStep(s).admitted.empty());
}

TEST(BatchPlannerTest, ASequenceAloneMayTakeTheWholeCache) {
  PlannerSnapshot s = Snapshot(6);
  s.waiting = {Wait(96, 6)};
  EXPECT_EQ(PlanStep(s).admitted, (Chunks{{0, 96}}));
  s.waiting = {Wait(97, 7)};
  EXPECT_TRUE(PlanStep(s).admitted.empty());  // can never fit
}

TEST(BatchPlannerTest, PreemptsTheLastOnesForTheBlocksThatDecodesNeed) {
  PlannerSnapshot s = Snapshot(1);
  s.running = {Decode(1), Decode(1), Decode(1), Prefill(50, 2), Decode(0)};
  s.waiting = {Wait(1, 1)};
  const StepPlan plan = PlanStep(s);
  // The fourth decode frees one block for the second, the prefill two for the third.
  EXPECT_EQ(plan.preempted, (std::vector<int32_t>{4, 3}));
  EXPECT_EQ(plan.running, (Chunks{{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_TRUE(plan.admitted.empty());
}

TEST(BatchPlannerTest, TheLastSequenceWaitsAStepInsteadOfPreemptingItself) {
  PlannerSnapshot s = Snapshot(0);
  s.running = {Decode(0), Decode(1)};
  s.waiting = {Wait(1, 1)};
  const StepPlan plan = PlanStep(s);
  EXPECT_TRUE(plan.preempted.empty());
  EXPECT_EQ(plan.running, (Chunks{{0, 1}}));
  EXPECT_TRUE(plan.admitted.empty());
}

TEST(BatchPlannerTest, DoesNotPreemptForPrefillOrForWhatFits) {
  PlannerSnapshot s = Snapshot(2);
  s.running = {Decode(1), Prefill(10), Decode(1)};
  EXPECT_TRUE(PlanStep(s).preempted.empty());
}

// The promises of the header on random snapshots.
TEST(BatchPlannerTest, KeepsItsPromisesOnRandomSnapshots) {
  std::mt19937 random(3);
  const auto upto = [&random](int32_t n) { return static_cast<int32_t>(random() % (n + 1)); };
  for (int round = 0; round < 20000; ++round) {
    PlannerSnapshot s = Snapshot(upto(12), 1 + upto(11), 1 + upto(80));
    for (int32_t i = upto(s.max_concurrent); i > 0; --i) {
      s.running.push_back(upto(1) ? Decode(upto(1), 1 + upto(3))
                                  : Prefill(1 + upto(99), 1 + upto(3)));
    }
    for (int32_t i = upto(5); i > 0; --i) s.waiting.push_back(Wait(1 + upto(99), 1 + upto(8)));
    const StepPlan plan = PlanStep(s);

    int32_t free = s.free_blocks, tokens = 0, decodes = 0;
    std::vector<bool> used(s.running.size(), false);
    for (const int32_t i : plan.preempted) {
      ASSERT_FALSE(used[i]);
      used[i] = true;
      free += s.running[i].exclusive_blocks;
    }
    for (const auto& [i, n] : plan.running) {
      ASSERT_FALSE(used[i]);
      used[i] = true;
      ASSERT_GT(n, 0);
      ASSERT_LE(n, s.running[i].uncomputed);
      free -= s.running[i].new_blocks;
      tokens += n;
      decodes += s.running[i].decoding;
    }
    const int32_t batch = static_cast<int32_t>(s.running.size() - plan.preempted.size());
    for (size_t k = 0; k < plan.admitted.size(); ++k) {
      ASSERT_EQ(plan.admitted[k].index, static_cast<int32_t>(k));
      ASSERT_GT(plan.admitted[k].tokens, 0);
      free -= s.waiting[k].new_blocks;
      tokens += plan.admitted[k].tokens;
    }
    ASSERT_GE(free, 0);
    ASSERT_LE(tokens, std::max(s.max_step_tokens, decodes + kMinPrefillTokens));
    ASSERT_LE(batch + static_cast<int32_t>(plan.admitted.size()), s.max_concurrent);
    ASSERT_TRUE(plan.preempted.empty() || plan.admitted.empty());
    // The first decode goes on, unless it is alone and does not fit.
    const auto first = std::find_if(s.running.begin(), s.running.end(),
                                    [](const RunningSequence& r) { return r.decoding; });
    if (first != s.running.end() && (s.running.size() > 1 && first + 1 != s.running.end())) {
      ASSERT_FALSE(plan.running.empty());
      ASSERT_EQ(plan.running.front().index, first - s.running.begin());
    }
  }
}

}  // namespace
}  // namespace lacuna
