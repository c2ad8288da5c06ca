#ifndef LACUNA_TESTS_RUNTIME_MODEL_TEST_FFN_H_
#define LACUNA_TESTS_RUNTIME_MODEL_TEST_FFN_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/reference.h"
#include "runtime/model/ffn.h"

namespace lacuna {

inline constexpr int64_t kHidden = 75;
inline constexpr int64_t kNeurons = 211;

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

inline FfnOutput RunFfn(const KernelTable* kernels, int threads, const TestFfn& test,
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

inline std::vector<float> RandomTokens(int64_t tokens) {
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

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_MODEL_TEST_FFN_H_
