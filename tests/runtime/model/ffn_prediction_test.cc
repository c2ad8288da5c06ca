// The FFN that computes only the gates that a sketch finds promising.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "runtime/model/ffn.h"
#include "tests/runtime/model/test_ffn.h"
#include "tests/same_bits.h"

namespace lacuna {
namespace {

class FfnPredictionTest : public FfnTest {};

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

TEST_P(FfnPredictionTest, APredictionThatNamesEveryActiveNeuronGivesTheSameBits) {
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

TEST_P(FfnPredictionTest, APredictionOfEveryNeuronGivesTheSameBitsForEveryKindOfFfn) {
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

TEST_P(FfnPredictionTest, PredictionLeavesNoNanOut) {
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

TEST_P(FfnPredictionTest, AnAuditCountsTheNeuronsThatThePredictionLoses) {
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

TEST_P(FfnPredictionTest, ARowOfZerosIsNeverNamed) {
  constexpr int64_t kZeros = 90;  // of the 211 rows
  SketchedFfn test(kernels(), std::get<1>(GetParam()));
  const DType dtype = test.weights.gate.dtype;
  const std::vector<float> zeros(kHidden);
  for (int64_t r = 0; r < kZeros; ++r) {
    void* const row = const_cast<void*>(test.weights.gate.row(r));
    std::memset(row, 0, RowBytes(dtype, kHidden));
    if (!IsQuantized(dtype)) continue;
    kernels()->quantize_weights[static_cast<int>(dtype)](zeros.data(), kHidden,
                                                         static_cast<std::byte*>(row));
  }
  SketchGate(*kernels(), &test.weights);
  ThreadPool pool(2);
  const std::vector<float> x = RandomTokens(1);
  for (const ActivationKind kind : {ActivationKind::kRelu, ActivationKind::kDRelu}) {
    Ffn ffn(kernels(), &pool, kHidden, kNeurons, {kind});
    const FfnOutput exact = RunFfn(kernels(), 2, test, x, {kind}, FfnMode::kSparse);
    for (const bool audit : {false, true}) {
      GatePredictor predictor = NamesAll();
      std::vector<float> y(x.size());
      std::vector<int64_t> active(1);
      const Ffn::Result result = ffn.RunPredicted(test.weights, x.data(), 1, audit, &predictor,
                                                  y.data(), absl::MakeSpan(active));
      EXPECT_TRUE(SameBits(y, exact.y));
      if (audit) {
        EXPECT_GE(result.prediction.certified, kZeros);
        EXPECT_EQ(result.prediction.true_positive + result.prediction.false_positive,
                  kNeurons - kZeros);
      } else if (result.decision.reason == FfnReason::kPredicted) {
        const int64_t row_bytes = test.weights.gate.bytes() / kNeurons;
        EXPECT_EQ(result.weight_bytes, exact.result.weight_bytes +
                                           test.weights.gate_sketch.bytes() - kZeros * row_bytes);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, FfnPredictionTest,
                         ::testing::Combine(::testing::ValuesIn(SupportedCpuKernels()),
                                            ::testing::Values(DType::kF32, DType::kBf16,
                                                              DType::kInt8, DType::kInt4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)->isa) + "_" +
                                  DTypeName(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace lacuna
