#include "runtime/model/ffn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/reference.h"
#include "tests/same_bits.h"

namespace lacuna {
namespace {

constexpr int64_t kHidden = 75;
constexpr int64_t kNeurons = 211;

// Random weights in the bundle layout, and their exact values as doubles.
struct TestFfn {
  explicit TestFfn(DType dtype) {
    const int64_t stride = (RowBytes(dtype, kHidden) + 63) / 64 * 64;
    bytes.resize(3 * kNeurons * stride);
    weights.gate = {bytes.data(), kNeurons, kHidden, stride, dtype};
    weights.up = {bytes.data() + kNeurons * stride, kNeurons, kHidden, 2 * stride, dtype};
    weights.down = weights.up;
    weights.down.data += stride;
    std::mt19937 random(3);
    Fill(weights.gate, &random, &gate);
    Fill(weights.up, &random, &up);
    Fill(weights.down, &random, &down);
  }

  void AddBiases() {
    std::mt19937 random(4);
    std::normal_distribution<float> normal(0, 0.5f);
    for (int64_t j = 0; j < kNeurons; ++j) weights.gate_bias.push_back(normal(random));
    for (int64_t c = 0; c < kHidden; ++c) weights.down_bias.push_back(normal(random));
  }

  static void Fill(const RowMatrix& m, std::mt19937* random, std::vector<double>* values) {
    std::normal_distribution<float> normal(0, 0.1f);
    for (int64_t r = 0; r < m.rows; ++r) {
      std::byte* row = const_cast<std::byte*>(m.data) + r * m.row_stride;
      std::vector<float> floats(m.cols);
      for (float& value : floats) value = normal(*random);
      if (IsQuantized(m.dtype)) {
        SupportedCpuKernels()[0]->quantize_weights[static_cast<int>(m.dtype)](floats.data(), m.cols,
                                                                              row);
      } else {
        const int64_t width = RowBytes(m.dtype, 1);  // a bf16 is the upper half of a float
        for (int64_t c = 0; c < m.cols; ++c) {
          std::memcpy(row + c * width, reinterpret_cast<char*>(&floats[c]) + 4 - width, width);
        }
      }
      for (int64_t c = 0; c < m.cols; ++c) {
        values->push_back(reference::Element(m.dtype, row, m.cols, c));
      }
    }
  }

  // Double precision, straight from the definition.
  // The input is what the kernels make of x for these weights.
  std::vector<double> Reference(const KernelTable& kernels, const float* input,
                                Activation activation, bool gated) const {
    std::vector<double> x(input, input + kHidden);
    if (IsQuantized(weights.gate.dtype)) {
      std::vector<std::byte> codes(ActivationBytes(weights.gate.dtype, kHidden));
      kernels.quantize_activations(input, kHidden, codes.data());
      for (int64_t c = 0; c < kHidden; ++c) {
        x[c] = reference::ActivationElement(weights.gate.dtype, codes.data(), kHidden, c);
      }
    }
    std::vector<double> y(weights.down_bias.begin(), weights.down_bias.end());
    y.resize(kHidden);
    for (int64_t j = 0; j < kNeurons; ++j) {
      double g = weights.gate_bias.empty() ? 0 : weights.gate_bias[j];
      double u = 0;
      for (int64_t c = 0; c < kHidden; ++c) {
        g += x[c] * gate[j * kHidden + c];
        u += x[c] * up[j * kHidden + c];
      }
      switch (activation.kind) {
        case ActivationKind::kDRelu:
          u = u > 0 ? u : 0;
          [[fallthrough]];
        case ActivationKind::kRelu:
          g = g > 0 ? g : 0;
          break;
        case ActivationKind::kFatRelu:
          g = g >= activation.threshold ? g : 0;
          break;
        case ActivationKind::kSilu:
          g = g / (1 + std::exp(-g));
          break;
      }
      const double x1 = gated ? g * u : g;
      for (int64_t c = 0; c < kHidden; ++c) y[c] += x1 * down[j * kHidden + c];
    }
    return y;
  }

  std::vector<std::byte> bytes;
  LayerWeights weights;
  std::vector<double> gate, up, down;
};

struct FfnOutput {
  std::vector<float> y;
  std::vector<int64_t> active;
  Ffn::Result result;
};

FfnOutput RunFfn(const KernelTable* kernels, int threads, const TestFfn& test,
                 const std::vector<float>& x, Activation activation, FfnMode mode) {
  ThreadPool pool(threads);
  Ffn ffn(kernels, &pool, kHidden, kNeurons, activation);
  const int64_t tokens = static_cast<int64_t>(x.size()) / kHidden;
  FfnOutput out;
  out.y.assign(x.size(), 99.0f);  // must be overwritten
  out.active.resize(tokens);
  out.result =
      ffn.Run(test.weights, x.data(), tokens, mode, out.y.data(), absl::MakeSpan(out.active));
  return out;
}

std::vector<float> RandomTokens(int64_t tokens) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> x(tokens * kHidden);
  for (float& value : x) value = normal(random);
  return x;
}

class FfnTest : public ::testing::TestWithParam<std::tuple<const KernelTable*, DType>> {
 protected:
  const KernelTable* kernels() { return std::get<0>(GetParam()); }
  const TestFfn test_{std::get<1>(GetParam())};
};

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

// A test layer with a sketch.
struct SketchedFfn : TestFfn {
  SketchedFfn(const KernelTable* kernels, DType dtype) : TestFfn(dtype) {
    const DType type = IsQuantized(dtype) ? DType::kInt2 : DType::kInt4;
    const int64_t stride = (RowBytes(type, kHidden) + 63) / 64 * 64;
    sketch.resize(kNeurons * stride);
    weights.gate_sketch = {sketch.data(), kNeurons, kHidden, stride, type};
    SketchGate(*kernels, &weights);
  }
  std::vector<std::byte> sketch;
};

TEST_P(FfnTest, APredictionThatNamesEveryActiveNeuronGivesTheSameBits) {
  const SketchedFfn test(kernels(), std::get<1>(GetParam()));
  ThreadPool pool(2);
  // Few enough are active that naming them pays for 4 tokens.
  const Activation activation = {ActivationKind::kFatRelu, 1.8f};
  Ffn ffn(kernels(), &pool, kHidden, kNeurons, activation);
  for (const int64_t tokens : {1, 2, 4}) {
    const std::vector<float> x = RandomTokens(tokens);
    const FfnOutput exact = RunFfn(kernels(), 2, test, x, activation, FfnMode::kSparse);
    ASSERT_GT(exact.result.union_active, 0);
    GatePredictor predictor(0.99999);
    std::vector<float> y(x.size());
    std::vector<int64_t> active(tokens);
    const auto run = [&](bool audit) {
      return ffn.RunPredicted(test.weights, x.data(), tokens, audit, &predictor, y.data(),
                              absl::MakeSpan(active));
    };
    run(true);  // learns the largest margin that these tokens need
    const Ffn::Result audited = run(true);
    EXPECT_EQ(audited.prediction.false_negative, 0);
    EXPECT_TRUE(SameBits(y, exact.y));
    const Ffn::Result predicted = run(false);
    EXPECT_TRUE(SameBits(y, exact.y));
    EXPECT_EQ(active, exact.active);
    EXPECT_EQ(predicted.union_active, exact.result.union_active);
    // Rows so short take as many bytes of int2 as of int4.
    const bool pays = test.weights.gate.dtype != DType::kInt4;
    EXPECT_STREQ(FfnReasonName(predicted.decision.reason), pays ? "predicted" : "cost");
    EXPECT_EQ(predicted.prediction.true_positive, 0) << "nothing was compared";
  }
}

// One that names every neuron.
GatePredictor NamesAll() {
  GatePredictor predictor(0.99);
  predictor.Learn({100.0f}, 0, kNeurons);  // a large margin, and the sketch seems to pay
  return predictor;
}

TEST_P(FfnTest, APredictionOfEveryNeuronGivesTheSameBitsForEveryKindOfFfn) {
  ThreadPool pool(3);
  for (const bool gated : {true, false}) {
    SketchedFfn test(kernels(), std::get<1>(GetParam()));
    if (!gated) {
      test.AddBiases();
      test.weights.up = RowMatrix();
    }
    const Activation activation = {gated ? ActivationKind::kDRelu : ActivationKind::kRelu};
    Ffn ffn(kernels(), &pool, kHidden, kNeurons, activation);
    for (const int64_t tokens : {1, 3}) {
      std::vector<float> x = RandomTokens(tokens);
      std::fill_n(x.begin(), kHidden, 0.0f);  // without biases nothing is active
      const FfnOutput exact = RunFfn(kernels(), 2, test, x, activation, FfnMode::kSparse);
      for (const bool audit : {false, true}) {
        SCOPED_TRACE(testing::Message() << gated << " " << tokens << " " << audit);
        GatePredictor predictor = NamesAll();
        std::vector<float> y(x.size(), 99.0f);
        std::vector<int64_t> active(tokens);
        const Ffn::Result result = ffn.RunPredicted(test.weights, x.data(), tokens, audit,
                                                    &predictor, y.data(), absl::MakeSpan(active));
        EXPECT_TRUE(SameBits(y, exact.y));
        EXPECT_EQ(active, exact.active);
        EXPECT_EQ(result.union_active, exact.result.union_active);
        EXPECT_EQ(result.prediction.false_negative, 0);
      }
    }
  }
}

TEST_P(FfnTest, PredictionLeavesNoNanOut) {
  SketchedFfn test(kernels(), std::get<1>(GetParam()));
  ThreadPool pool(2);
  const Activation activation = {ActivationKind::kRelu};
  Ffn ffn(kernels(), &pool, kHidden, kNeurons, activation);
  std::vector<float> x = RandomTokens(2);
  x[3] = std::nanf("");
  for (const bool audit : {false, true}) {
    GatePredictor predictor = NamesAll();
    std::vector<float> y(x.size());
    std::vector<int64_t> active(2);
    ffn.RunPredicted(test.weights, x.data(), 2, audit, &predictor, y.data(),
                     absl::MakeSpan(active));
    for (int64_t c = 0; c < kHidden; ++c) EXPECT_TRUE(std::isnan(y[c])) << audit << " " << c;
    for (int64_t c = 0; c < kHidden; ++c) EXPECT_FALSE(std::isnan(y[kHidden + c])) << audit;
    EXPECT_FALSE(std::isnan(predictor.margin()));
  }
}

TEST_P(FfnTest, AnAuditCountsTheNeuronsThatThePredictionLoses) {
  const SketchedFfn test(kernels(), std::get<1>(GetParam()));
  ThreadPool pool(2);
  const Activation activation = {ActivationKind::kFatRelu, 1.3f};
  Ffn ffn(kernels(), &pool, kHidden, kNeurons, activation);
  const std::vector<float> x = RandomTokens(2);
  const FfnOutput exact = RunFfn(kernels(), 2, test, x, activation, FfnMode::kSparse);
  GatePredictor predictor(0.5);
  std::vector<float> audited(x.size()), predicted(x.size());
  std::vector<int64_t> active(2);
  const auto run = [&](bool audit, std::vector<float>* y) {
    return ffn.RunPredicted(test.weights, x.data(), 2, audit, &predictor, y->data(),
                            absl::MakeSpan(active));
  };
  run(true, &audited);
  const GatePredictor before = predictor;
  const Ffn::Result result = run(true, &audited);
  EXPECT_EQ(result.prediction.true_positive, active[0] + active[1]);
  EXPECT_EQ(result.prediction.true_positive + result.prediction.false_negative,
            exact.active[0] + exact.active[1]);
  EXPECT_GT(result.prediction.false_negative, 0);
  predictor = before;
  const Ffn::Result used = run(false, &predicted);
  if (IsQuantized(test.weights.gate.dtype)) return;  // rows so short: sketches hardly pay
  EXPECT_TRUE(SameBits(audited, predicted)) << "an audit computes what it judges";
  EXPECT_LT(used.weight_bytes, exact.result.weight_bytes);
  EXPECT_FALSE(SameBits(predicted, exact.y));
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
  const FfnCostModel& cost = ffn.cost_model();
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
