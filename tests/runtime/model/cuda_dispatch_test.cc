#include "runtime/model/cuda_dispatch.h"

#include "gtest/gtest.h"

namespace lacuna {
namespace {

FfnDecision Choice(CudaDispatch* dispatch, int64_t tokens, FfnMode mode = FfnMode::kAuto) {
  FfnDecision decision;
  dispatch->Choose(mode, tokens, absl::MakeSpan(&decision, 1));
  EXPECT_EQ(decision.reason, mode == FfnMode::kAuto ? FfnReason::kCost : FfnReason::kForced);
  return decision;
}

TEST(CudaDispatch, GoesByTheDensitySeenWithAboutAsManyTokens) {
  CudaDispatch dispatch(1, true);
  dispatch.SetCosts(BucketIndex(4), {.dense = 10, .sparse = 2, .sparse_per_density = 10});
  EXPECT_EQ(Choice(&dispatch, 4).path, FfnPath::kSparse) << "until something was seen";
  dispatch.Learn(0, 4, 0.7);
  EXPECT_EQ(Choice(&dispatch, 4).path, FfnPath::kSparse);
  EXPECT_EQ(Choice(&dispatch, 3).path, FfnPath::kSparse);
  for (int i = 0; i < 100; ++i) dispatch.Learn(0, 3, 0.9);
  EXPECT_EQ(Choice(&dispatch, 4).path, FfnPath::kDense);
  EXPECT_EQ(Choice(&dispatch, 8).path, FfnPath::kSparse) << "nothing was seen with 8 tokens";
  for (int i = 0; i < 100; ++i) dispatch.Learn(0, 4, 0.7);
  EXPECT_EQ(Choice(&dispatch, 4).path, FfnPath::kSparse) << "dense passes are counted too";
}

TEST(CudaDispatch, LayersAreChosenOneByOne) {
  CudaDispatch dispatch(2, true);
  dispatch.Learn(0, 1, 0.1);
  dispatch.SetCosts(0, {.dense = 1, .sparse = 0.3, .sparse_per_density = 1});
  dispatch.Learn(1, 1, 0.9);
  std::array<FfnDecision, 2> decisions;
  dispatch.Choose(FfnMode::kAuto, 1, absl::MakeSpan(decisions));
  EXPECT_EQ(decisions[0].path, FfnPath::kSparse);
  EXPECT_EQ(decisions[1].path, FfnPath::kDense);
}

TEST(CudaDispatch, APathIsKeptWhileTheOtherIsHardlyCheaper) {
  CudaDispatch dispatch(1, true);
  dispatch.SetCosts(0, {.dense = 1, .sparse = 0, .sparse_per_density = 1});
  const auto settle = [&](double density) {
    for (int i = 0; i < 200; ++i) dispatch.Learn(0, 1, density);
    return Choice(&dispatch, 1).path;
  };
  dispatch.SetCosts(0, {.dense = 0.8, .sparse = 0, .sparse_per_density = 1});
  EXPECT_EQ(settle(0.81), FfnPath::kSparse);
  EXPECT_EQ(settle(0.85), FfnPath::kDense);
  EXPECT_EQ(settle(0.79), FfnPath::kDense);
  EXPECT_EQ(settle(0.75), FfnPath::kSparse);
}

TEST(CudaDispatch, ManyTokensAreDenseUnlessForced) {
  CudaDispatch dispatch(1, true);
  EXPECT_EQ(Choice(&dispatch, kMaxBucket).path, FfnPath::kSparse);
  EXPECT_EQ(Choice(&dispatch, kMaxBucket + 1).path, FfnPath::kDense);
  EXPECT_EQ(Choice(&dispatch, kMaxBucket + 1, FfnMode::kSparse).path, FfnPath::kSparse);
  EXPECT_EQ(Choice(&dispatch, 1, FfnMode::kDense).path, FfnPath::kDense);
}

TEST(CudaDispatch, WithoutZerosAllIsDense) {
  CudaDispatch dispatch(1, false);
  FfnDecision decision;
  dispatch.Choose(FfnMode::kAuto, 1, absl::MakeSpan(&decision, 1));
  EXPECT_EQ(decision.path, FfnPath::kDense);
  EXPECT_EQ(decision.reason, FfnReason::kNoZeros);
}

}  // namespace
}  // namespace lacuna
