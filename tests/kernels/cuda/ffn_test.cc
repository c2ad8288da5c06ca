#include "kernels/cuda/ffn.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/cuda/padded_matrix.h"

namespace lacuna {
namespace {

struct FfnCase {
  const char* name;
  Activation activation;
  bool gated = true;
  bool biased = false;
  float gate_bias = 0;  // around which the gate's biases lie, if `biased`
};

constexpr FfnCase kCases[] = {
    {"relu", {ActivationKind::kRelu}},
    {"relu_sparse", {ActivationKind::kRelu}, true, true, -6.0f},
    {"fatrelu", {ActivationKind::kFatRelu, 0.5f}},
    {"drelu", {ActivationKind::kDRelu}},
    {"silu", {ActivationKind::kSilu}},
    {"ungated", {ActivationKind::kRelu}, false, true, -2.0f},
};

class CudaFfnTest : public CudaTest,
                    public testing::WithParamInterface<std::tuple<DType, FfnCase>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  const FfnCase& ffn() const { return std::get<1>(GetParam()); }

  // Everything that one Run takes and gives.
  struct Layer {
    Layer(DType dtype, const FfnCase& ffn, int64_t tokens, int64_t hidden, int64_t neurons)
        : tokens(tokens),
          hidden(hidden),
          neurons(neurons),
          gate(dtype, neurons, hidden, 11),
          up(dtype, neurons, hidden, 12, 64),
          down(dtype, neurons, hidden, 13, 192),
          x(dtype, RandomFloats(tokens * hidden, 14), tokens, hidden),
          gate_bias(RandomFloats(neurons, 15)),
          down_bias(RandomFloats(hidden, 16)),
          positions(tokens, 0) {
      for (float& bias : gate_bias) bias += ffn.gate_bias;
      if (!ffn.biased) {
        std::fill(gate_bias.begin(), gate_bias.end(), 0.0f);
        std::fill(down_bias.begin(), down_bias.end(), 0.0f);
      }
    }
    int64_t tokens, hidden, neurons;
    PaddedMatrix gate, up, down;
    PaddedActivations x;
    std::vector<float> gate_bias, down_bias;
    std::vector<int32_t> positions;  // < 0: padding
  };

  struct Output {
    std::vector<float> y;
    std::vector<int32_t> active;
    int32_t union_active, negative, union_gates;
  };

  Output Run(const Layer& layer, bool sparse) {
    absl::StatusOr<CudaFfn> ffn_or =
        CudaFfn::Create({layer.hidden, layer.neurons, layer.tokens, dtype(), ffn().activation});
    EXPECT_TRUE(ffn_or.ok()) << ffn_or.status();
    const DeviceArray<float> gate_bias(layer.gate_bias), down_bias(layer.down_bias);
    const DeviceArray<int32_t> positions(layer.positions);
    const DeviceArray<float> y(std::vector<float>(layer.tokens * layer.hidden, NAN));
    const DeviceArray<int32_t> active(layer.tokens), union_active(1), negative(1), union_gates(1);
    CudaFfnWeights weights;
    weights.gate = layer.gate.view();
    if (ffn().gated) weights.up = layer.up.view();
    weights.down = layer.down.view();
    if (ffn().biased) {
      weights.gate_bias = gate_bias.get();
      weights.down_bias = down_bias.get();
    }
    ffn_or->Run(stream(), weights, layer.x.data(), layer.x.stride(), layer.tokens, positions.get(),
                sparse, y.get(),
                {active.get(), union_active.get(), negative.get(), union_gates.get()});
    Synchronize();
    return {y.Values(), active.Values(), union_active.Values()[0], negative.Values()[0],
            union_gates.Values()[0]};
  }

  void Check(const Layer& layer, bool sparse) {
    const std::string what = std::string(sparse ? "sparse" : "dense") + ", " +
                             std::to_string(layer.tokens) + " tokens, hidden " +
                             std::to_string(layer.hidden);
    const Output out = Run(layer, sparse);
    std::vector<bool> in_union(layer.neurons, false), in_gates(layer.neurons, false);
    int32_t negative = 0;
    int uncertain = 0;  // gates so close to the threshold that rounding decides
    for (int64_t t = 0; t < layer.tokens; ++t) {
      if (layer.positions[t] < 0) {
        EXPECT_EQ(out.active[t], 0) << what;
        continue;
      }
      // x1 and how far it may be off: the errors of two dot products and two roundings.
      std::vector<double> x1(layer.neurons), error(layer.neurons);
      int32_t active = 0;
      for (int64_t j = 0; j < layer.neurons; ++j) {
        const ReferenceDot gate(layer.x.token(t), layer.gate.row(j), layer.hidden);
        const double sum = gate.value + layer.gate_bias[j];
        const double gate_error = DeviceDotTolerance(
            dtype(), layer.hidden, gate.magnitudes + std::abs(layer.gate_bias[j]));
        const double value = reference::Activate(ffn().activation, static_cast<float>(sum));
        const bool is_uncertain = std::abs(sum - ffn().activation.threshold) <= gate_error;
        uncertain += is_uncertain;
        negative += ffn().activation.kind == ActivationKind::kSilu && sum < 0;
        bool is_active = value != 0;
        if (is_active) in_gates[j] = true;
        x1[j] = value;
        // The slope of SiLU is 1.1 at most; expf and a division are good to 4 units.
        error[j] = value == 0 ? 0 : 1.1 * gate_error + 8 * kRoundoff * std::abs(value);
        if (is_uncertain) error[j] = std::abs(sum) + gate_error;
        if (ffn().gated) {
          const ReferenceDot up(layer.x.token(t), layer.up.row(j), layer.hidden);
          double factor = up.value;
          if (ffn().activation.kind == ActivationKind::kDRelu && factor <= 0) {
            factor = 0;
            is_active = false;
          }
          error[j] = error[j] * std::abs(factor) +
                     (std::abs(value) + error[j]) *
                         DeviceDotTolerance(dtype(), layer.hidden, up.magnitudes) +
                     kRoundoff * std::abs(value * factor);
          x1[j] *= factor;
        }
        if (is_active) {
          ++active;
          in_union[j] = true;
        }
      }
      EXPECT_NEAR(out.active[t], active, uncertain) << what << ", token " << t;
      for (int64_t c = 0; c < layer.hidden; ++c) {
        double sum = layer.down_bias[c], bound = 0, magnitudes = std::abs(sum);
        for (int64_t j = 0; j < layer.neurons; ++j) {
          const double weight = layer.down.row(j)[c];
          sum += x1[j] * weight;
          magnitudes += std::abs(x1[j] * weight);
          bound += error[j] * std::abs(weight);
        }
        // A product is scaled, added, and passes through at most all the sums. On tensor cores, x1
        // and the product of the lesser parts lose less than 2^-16 each.
        bound += (active + 40) * kRoundoff * magnitudes;
        if (dtype() != DType::kF32) bound += 0x1p-15 * magnitudes;
        ASSERT_NEAR(out.y[t * layer.hidden + c], sum, bound)
            << what << ", token " << t << ", column " << c;
      }
    }
    EXPECT_NEAR(out.union_active, std::count(in_union.begin(), in_union.end(), true), uncertain)
        << what;
    EXPECT_NEAR(out.union_gates, std::count(in_gates.begin(), in_gates.end(), true), uncertain)
        << what;
    EXPECT_NEAR(out.negative, negative, uncertain) << what;
    EXPECT_LE(uncertain, 5) << what;
  }
};

TEST_P(CudaFfnTest, MatchesReference) {
  for (const int64_t tokens : {1, 2, 3, 13}) {
    const Layer layer(dtype(), ffn(), tokens, 72, tokens == 13 ? 40 : 300);
    Check(layer, false);
    Check(layer, true);
  }
}

TEST_P(CudaFfnTest, MatchesReferenceForManyTokens) {
  const Layer layer(dtype(), ffn(), CudaFfn::kMaxSparseTokens, 64, 40);
  Check(layer, false);
  Check(layer, true);
  Check(Layer(dtype(), ffn(), 70, 64, 20), false);
}

// Lengths with which a row is a part of a warp's chunks, or several chunks of every thread.
TEST_P(CudaFfnTest, MatchesReferenceForAnyRowLength) {
  for (const int64_t hidden : {1, 5, 8, 33, 130, 520, 1030, 2200}) {
    Check(Layer(dtype(), ffn(), 1, hidden, 70), true);
  }
  for (const int64_t hidden : {1, 33, 1030}) Check(Layer(dtype(), ffn(), 4, hidden, 33), true);
}

TEST_P(CudaFfnTest, PaddingTakesNoNeurons) {
  Layer layer(dtype(), ffn(), 6, 64, 200);
  layer.positions = {3, -1, 0, 7, -1, -1};
  Check(layer, true);
  Check(layer, false);
  Layer one(dtype(), ffn(), 1, 64, 200);
  one.positions = {-1};
  const Output out = Run(one, true);
  EXPECT_EQ(out.union_active, 0);
  EXPECT_EQ(out.y, one.down_bias);
}

TEST_P(CudaFfnTest, RepeatsTheSameBits) {
  for (const int64_t tokens : {1, 7}) {
    const Layer layer(dtype(), ffn(), tokens, 100, 300);
    const Output first = Run(layer, true), second = Run(layer, true);
    EXPECT_EQ(first.y, second.y);
    EXPECT_EQ(first.active, second.active);
  }
}

INSTANTIATE_TEST_SUITE_P(Type, CudaFfnTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBf16, DType::kInt8,
                                                          DType::kInt4),
                                          testing::ValuesIn(kCases)),
                         [](const testing::TestParamInfo<std::tuple<DType, FfnCase>>& info) {
                           return std::string(DTypeName(std::get<0>(info.param))) + "_" +
                                  std::get<1>(info.param).name;
                         });

}  // namespace
}  // namespace lacuna
