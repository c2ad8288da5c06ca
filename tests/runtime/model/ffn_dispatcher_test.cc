#include "runtime/model/ffn_dispatcher.h"

#include <gtest/gtest.h>

namespace lacuna {
namespace {

// One LLaMA2-7B layer in bf16.
FfnLoad Load(int64_t tokens, double union_density, double density) {
  FfnLoad load;
  load.tokens = tokens;
  load.neurons = 11008;
  load.union_active = static_cast<int64_t>(11008 * union_density);
  load.active = static_cast<int64_t>(11008 * density * static_cast<double>(tokens));
  load.hidden = 4096;
  load.row_bytes = 2 * 4096 * 2;
  return load;
}

constexpr FfnCostModel kRates = {.stream_bytes_per_s = 30e9,
                                 .gather_bytes_per_s = 24e9,
                                 .dense_flops_per_s = 100e9,
                                 .sparse_flops_per_s = 60e9,
                                 .listing_seconds = 4e-9};

FfnDecision Choose(FfnMode mode, const FfnLoad& load, bool has_zeros = true) {
  return ChooseFfnPath(mode, has_zeros, kRates, load);
}

TEST(ChooseFfnPath, ObeysAForcedMode) {
  const FfnLoad sparse_load = Load(1, 0.1, 0.1);
  EXPECT_EQ(Choose(FfnMode::kDense, sparse_load).path, FfnPath::kDense);
  EXPECT_EQ(Choose(FfnMode::kDense, sparse_load).reason, FfnReason::kForced);
  const FfnLoad dense_load = Load(1, 1.0, 1.0);
  EXPECT_EQ(Choose(FfnMode::kSparse, dense_load).path, FfnPath::kSparse);
  EXPECT_EQ(Choose(FfnMode::kSparse, dense_load).reason, FfnReason::kForced);
}

TEST(ChooseFfnPath, TakesDenseWhenTheActivationHasNoZeros) {
  const FfnDecision decision = Choose(FfnMode::kAuto, Load(1, 0.1, 0.1), false);
  EXPECT_EQ(decision.path, FfnPath::kDense);
  EXPECT_EQ(decision.reason, FfnReason::kNoZeros);
}

TEST(ChooseFfnPath, TakesSparseForOneSparseToken) {
  const FfnDecision decision = Choose(FfnMode::kAuto, Load(1, 0.108, 0.108));
  EXPECT_EQ(decision.path, FfnPath::kSparse);
  EXPECT_EQ(decision.reason, FfnReason::kCost);
}

TEST(ChooseFfnPath, TakesDenseWhenGatheringReadsMoreTimeThanStreaming) {
  // Gathered bytes are slower than streamed ones by 24/30.
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(1, 0.79, 0.79)).path, FfnPath::kSparse);
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(1, 0.81, 0.81)).path, FfnPath::kDense);
}

TEST(ChooseFfnPath, StaysSparseInABatchThatSavesOperationsThoughItReadsAlmostEverything) {
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(64, 0.907, 0.108)).path, FfnPath::kSparse);
}

TEST(ChooseFfnPath, TakesDenseInABatchThatIsMostlyActive) {
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(64, 1.0, 0.7)).path, FfnPath::kDense);
}

}  // namespace
}  // namespace lacuna
