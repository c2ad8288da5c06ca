#include "runtime/model/ffn_dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

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
  FfnDispatcher dispatcher;
  dispatcher.SetCost(kRates);
  return dispatcher.Choose(mode, has_zeros, load);
}

// What a machine takes on which both paths are so many times slower than the rates say.
struct Machine {
  double dense = 1;
  double sparse = 1;

  double Seconds(FfnPath path, const FfnLoad& load) const {
    return path == FfnPath::kDense ? dense * kRates.DenseSeconds(load)
                                   : sparse * kRates.SparseSeconds(load);
  }
};

// Runs of a dispatcher that believes kRates at first.
class Runs {
 public:
  explicit Runs(Machine machine) : machine_(machine) { dispatcher_.SetCost(kRates); }

  // `n` runs of a load; returns how many were dense.
  int Dense(int n, const FfnLoad& load) {
    int dense = 0;
    for (int i = 0; i < n; ++i) {
      const FfnPath path = dispatcher_.Choose(FfnMode::kAuto, true, load).path;
      const double seconds = machine_.Seconds(path, load);
      dispatcher_.Learn(path, load, seconds);
      dense += path == FfnPath::kDense ? 1 : 0;
      total_ += seconds;
      best_ += std::min(machine_.Seconds(FfnPath::kDense, load),
                        machine_.Seconds(FfnPath::kSparse, load));
    }
    return dense;
  }
  double slowdown() const { return total_ / best_; }
  FfnDispatcher& dispatcher() { return dispatcher_; }

 private:
  const Machine machine_;
  FfnDispatcher dispatcher_;
  double total_ = 0, best_ = 0;
};

TEST(FfnDispatcherTest, ObeysAForcedMode) {
  const FfnLoad sparse_load = Load(1, 0.1, 0.1);
  EXPECT_EQ(Choose(FfnMode::kDense, sparse_load).path, FfnPath::kDense);
  EXPECT_EQ(Choose(FfnMode::kDense, sparse_load).reason, FfnReason::kForced);
  const FfnLoad dense_load = Load(1, 1.0, 1.0);
  EXPECT_EQ(Choose(FfnMode::kSparse, dense_load).path, FfnPath::kSparse);
  EXPECT_EQ(Choose(FfnMode::kSparse, dense_load).reason, FfnReason::kForced);
}

TEST(FfnDispatcherTest, TakesDenseWhenTheActivationHasNoZeros) {
  const FfnDecision decision = Choose(FfnMode::kAuto, Load(1, 0.1, 0.1), false);
  EXPECT_EQ(decision.path, FfnPath::kDense);
  EXPECT_EQ(decision.reason, FfnReason::kNoZeros);
}

TEST(FfnDispatcherTest, TakesSparseForOneSparseToken) {
  const FfnDecision decision = Choose(FfnMode::kAuto, Load(1, 0.108, 0.108));
  EXPECT_EQ(decision.path, FfnPath::kSparse);
  EXPECT_EQ(decision.reason, FfnReason::kCost);
}

TEST(FfnDispatcherTest, TakesDenseWhenGatheringReadsMoreTimeThanStreaming) {
  // Gathered bytes are slower than streamed ones by 24/30.
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(1, 0.79, 0.79)).path, FfnPath::kSparse);
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(1, 0.81, 0.81)).path, FfnPath::kDense);
}

TEST(FfnDispatcherTest, StaysSparseInABatchThatSavesOperationsThoughItReadsAlmostEverything) {
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(64, 0.907, 0.108)).path, FfnPath::kSparse);
}

TEST(FfnDispatcherTest, TakesDenseInABatchThatIsMostlyActive) {
  EXPECT_EQ(Choose(FfnMode::kAuto, Load(64, 1.0, 0.7)).path, FfnPath::kDense);
}

TEST(FfnDispatcherTest, LeavesAPathThatTakesLongerThanItsRatesSay) {
  const FfnLoad load = Load(8, 0.43, 0.108);
  ASSERT_EQ(Choose(FfnMode::kAuto, load).path, FfnPath::kSparse);
  Runs runs({.dense = 1, .sparse = 8});
  runs.Dense(50, load);
  EXPECT_GE(runs.Dense(100, load), 98);
}

TEST(FfnDispatcherTest, FindsThatThePathNotTakenIsFasterThanItsRatesSay) {
  const FfnLoad load = Load(8, 0.43, 0.108);
  Runs runs({.dense = 0.2, .sparse = 1});
  runs.Dense(3000, load);
  EXPECT_GE(runs.Dense(100, load), 98);
}

TEST(FfnDispatcherTest, SpendsLittleOnProbes) {
  for (const double sparse : {0.3, 0.5, 0.8, 1.0, 1.3, 2.0}) {
    for (const FfnLoad& load : {Load(1, 0.108, 0.108), Load(16, 0.594, 0.108)}) {
      Runs runs({.dense = 1, .sparse = sparse});
      runs.Dense(20000, load);
      EXPECT_LT(runs.slowdown(), 1.005) << "sparse " << sparse;
    }
  }
}

TEST(FfnDispatcherTest, SaysWhenItProbes) {
  const FfnLoad load = Load(1, 0.3, 0.3);
  FfnDispatcher dispatcher;
  dispatcher.SetCost(kRates);
  int probes = 0;
  for (int i = 0; i < 5000; ++i) {
    const FfnDecision decision = dispatcher.Choose(FfnMode::kAuto, true, load);
    EXPECT_EQ(decision.path == FfnPath::kDense, decision.reason == FfnReason::kProbe);
    probes += decision.reason == FfnReason::kProbe ? 1 : 0;
  }
  EXPECT_GE(probes, 5);
  EXPECT_LE(probes, 50);
}

TEST(FfnDispatcherTest, IsNotMovedByOnePause) {
  const FfnLoad load = Load(8, 0.43, 0.108);
  Runs runs({});
  ASSERT_LE(runs.Dense(200, load), 3);
  runs.dispatcher().Learn(FfnPath::kSparse, load, 1000 * kRates.SparseSeconds(load));
  EXPECT_LE(runs.Dense(100, load), 3);
}

TEST(FfnDispatcherTest, SeesThroughThePausesOfABusyMachine) {
  const FfnLoad load = Load(1, 0.3, 0.3);  // sparse is 2.7 times as fast
  std::mt19937 random(1);
  int dense = 0;
  for (int server = 0; server < 50; ++server) {
    FfnDispatcher dispatcher;
    dispatcher.SetCost(kRates);
    for (int i = 0; i < 600; ++i) {
      const FfnPath path = dispatcher.Choose(FfnMode::kAuto, true, load).path;
      dense += path == FfnPath::kDense ? 1 : 0;
      const double pause = random() % 4 == 0 ? 1.0 + random() % 30 : 1.0;
      dispatcher.Learn(path, load, pause * Machine().Seconds(path, load));
    }
  }
  EXPECT_LE(dense, 50 * 600 * 0.02);
}

TEST(FfnDispatcherTest, LearnsForEachNumberOfTokensByItself) {
  Runs runs({.dense = 1, .sparse = 8});
  runs.Dense(100, Load(8, 0.43, 0.108));
  const FfnDecision alone = runs.dispatcher().Choose(FfnMode::kAuto, true, Load(1, 0.108, 0.108));
  EXPECT_EQ(alone.path, FfnPath::kSparse);
}

TEST(FfnDispatcherTest, IgnoresWhatTookNoTime) {
  const FfnLoad nothing = Load(1, 0, 0);
  FfnDispatcher dispatcher;
  dispatcher.Learn(FfnPath::kSparse, nothing, 1e-6);
  dispatcher.Learn(FfnPath::kDense, Load(1, 0.108, 0.108), 0);
  EXPECT_EQ(dispatcher.Choose(FfnMode::kAuto, true, nothing).path, FfnPath::kSparse);
}

}  // namespace
}  // namespace lacuna
