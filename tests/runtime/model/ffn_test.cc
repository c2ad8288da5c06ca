#include "runtime/model/ffn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/runtime/model/test_ffn.h"
#include "tests/same_bits.h"

namespace lacuna {
namespace {

constexpr Activation kActivations[] = {{ActivationKind::kRelu, 0},
                                       {ActivationKind::kFatRelu, 0.7f},
                                       {ActivationKind::kDRelu, 0},
                                       {ActivationKind::kSilu, 0}};

TEST_P(FfnTest, MatchesTheDefinitionInDoublePrecision) {
  for (const bool gated : {true, false}) {
    TestFfn test(std::get<1>(GetParam()));
    if (!gated) {
      test.weights.up = RowMatrix();
      test.AddBiases();
    }
    for (const Activation activation : kActivations) {
      const std::vector<float> x = RandomTokens(3);
      for (const FfnMode mode : {FfnMode::kSparse, FfnMode::kDense}) {
        const FfnOutput out = RunFfn(kernels(), 2, test, x, activation, mode);
        for (int t = 0; t < 3; ++t) {
          const std::vector<double> want =
              test.Reference(*kernels(), &x[t * kHidden], activation, gated);
          // Every value is a sum of at most kNeurons products of size ~1 whose inner sums carry
          // kHidden roundings: 2^-24 * (75 + 211), with values up to ~4.
          for (int64_t c = 0; c < kHidden; ++c) {
            EXPECT_NEAR(out.y[t * kHidden + c], want[c], 7e-5) << t << " " << c;
          }
        }
      }
    }
  }
}

TEST_P(FfnTest, SparseAndDenseGiveTheSameBits) {
  for (const Activation activation : kActivations) {
    for (const int64_t tokens : {1, 2, 5, 64}) {
      const std::vector<float> x = RandomTokens(tokens);
      EXPECT_TRUE(SameBits(RunFfn(kernels(), 2, test_, x, activation, FfnMode::kSparse).y,
                           RunFfn(kernels(), 2, test_, x, activation, FfnMode::kDense).y));
    }
  }
}

TEST_P(FfnTest, SparseAndDenseGiveTheSameBitsWithoutAGateAndWithBiases) {
  TestFfn test(std::get<1>(GetParam()));
  test.weights.up = RowMatrix();
  test.AddBiases();
  for (const int64_t tokens : {1, 5}) {
    const std::vector<float> x = RandomTokens(tokens);
    EXPECT_TRUE(SameBits(RunFfn(kernels(), 2, test, x, kActivations[0], FfnMode::kSparse).y,
                         RunFfn(kernels(), 2, test, x, kActivations[0], FfnMode::kDense).y));
  }
}

TEST_P(FfnTest, DReluCountsNeuronsThatAreZeroInEitherFactor) {
  const std::vector<float> x = RandomTokens(9);
  const Activation drelu = {ActivationKind::kDRelu, 0};
  const FfnOutput gated = RunFfn(kernels(), 2, test_, x, kActivations[0], FfnMode::kSparse);
  const FfnOutput sparse = RunFfn(kernels(), 2, test_, x, drelu, FfnMode::kSparse);
  const FfnOutput dense = RunFfn(kernels(), 2, test_, x, drelu, FfnMode::kDense);
  EXPECT_EQ(sparse.active, dense.active);
  EXPECT_EQ(sparse.result.union_active, dense.result.union_active);
  EXPECT_LT(sparse.result.union_active, gated.result.union_active);
  const LayerWeights& w = test_.weights;
  EXPECT_EQ(sparse.result.weight_bytes,
            w.gate.bytes() + gated.result.union_active * (w.up.bytes() / kNeurons) +
                sparse.result.union_active * (w.down.bytes() / kNeurons));
  for (size_t t = 0; t < sparse.active.size(); ++t) {
    // Gate and up are independent here: about half of what the gate leaves.
    EXPECT_GT(sparse.active[t], gated.active[t] / 4);
    EXPECT_LT(sparse.active[t], gated.active[t] * 3 / 4);
    const std::vector<float> one(x.begin() + t * kHidden, x.begin() + (t + 1) * kHidden);
    const FfnOutput alone = RunFfn(kernels(), 2, test_, one, drelu, FfnMode::kSparse);
    EXPECT_EQ(alone.active[0], sparse.active[t]);
    EXPECT_EQ(alone.result.union_active, alone.active[0]);
  }
}

TEST_P(FfnTest, AGroupGivesTheSameBitsAsItsTokensAlone) {
  const std::vector<float> x = RandomTokens(64);
  for (const Activation activation : {kActivations[1], kActivations[2]}) {
    for (const FfnMode mode : {FfnMode::kSparse, FfnMode::kDense}) {
      const FfnOutput group = RunFfn(kernels(), 3, test_, x, activation, mode);
      for (int64_t t = 0; t < 64; ++t) {
        const std::vector<float> one(x.begin() + t * kHidden, x.begin() + (t + 1) * kHidden);
        const FfnOutput alone = RunFfn(kernels(), 1, test_, one, activation, mode);
        const std::vector<float> part(group.y.begin() + t * kHidden,
                                      group.y.begin() + (t + 1) * kHidden);
        EXPECT_TRUE(SameBits(part, alone.y)) << "token " << t;
        EXPECT_EQ(group.active[t], alone.active[0]);
        EXPECT_EQ(alone.result.union_active, alone.active[0]);
      }
    }
  }
}

TEST_P(FfnTest, SkipsEverythingWhenNothingIsActive) {
  const std::vector<float> x = RandomTokens(2);
  const FfnOutput out =
      RunFfn(kernels(), 2, test_, x, {ActivationKind::kFatRelu, 1e9f}, FfnMode::kSparse);
  EXPECT_EQ(out.result.union_active, 0);
  EXPECT_THAT(out.y, ::testing::Each(0.0f));
}

TEST_P(FfnTest, CalibrationMeasuresPositiveRates) {
  ThreadPool pool(1);
  Ffn ffn(kernels(), &pool, kHidden, kNeurons, kActivations[0]);
  TestFfn test(std::get<1>(GetParam()));
  ffn.Calibrate(absl::MakeConstSpan(&test.weights, 1));
  const FfnCostModel& cost = ffn.dispatcher().cost();
  for (const double rate : {cost.stream_bytes_per_s, cost.gather_bytes_per_s,
                            cost.dense_flops_per_s, cost.sparse_flops_per_s}) {
    EXPECT_GT(rate, 1e6);
    EXPECT_LT(rate, 1e15);
  }
  EXPECT_GE(cost.listing_seconds, 0);
  EXPECT_LT(cost.listing_seconds, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Isa, FfnTest,
                         ::testing::Combine(::testing::ValuesIn(SupportedCpuKernels()),
                                            ::testing::Values(DType::kF32, DType::kBf16,
                                                              DType::kInt8, DType::kInt4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)->isa) + "_" +
                                  DTypeName(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace lacuna
