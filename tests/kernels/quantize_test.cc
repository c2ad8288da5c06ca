#include <algorithm>
#include <cmath>

#include "kernels/reference/reference.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

constexpr int64_t kSizes[] = {1, 4, 63, 64, 65, 128, 192, 500, 1024, 1040, 1100, 4096};

class QuantizeTest : public IsaTest {
 protected:
  std::vector<std::byte> Weights(DType dtype, const std::vector<float>& row) const {
    const int64_t n = static_cast<int64_t>(row.size());
    std::vector<std::byte> out(RowBytes(dtype, n));
    kernels().quantize_weights[static_cast<int>(dtype)](row.data(), n, out.data());
    return out;
  }
  std::vector<std::byte> Activations(const std::vector<float>& x) const {
    const int64_t n = static_cast<int64_t>(x.size());
    std::vector<std::byte> out(ActivationBytes(DType::kInt8, n));
    kernels().quantize_activations(x.data(), n, out.data());
    return out;
  }
};
LACUNA_TEST_EVERY_ISA(QuantizeTest);

// The elements that share a scale with element i: 4 neighbours in each vector of 64 of its
// block.
template <typename Function>
void ForGroup(int64_t i, int64_t n, Function f) {
  const int64_t block = i / kBlockElements;
  for (int64_t v = block * kBlockVectors; v < (block + 1) * kBlockVectors; ++v) {
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t at = v * 64 + i % 64 / 4 * 4 + k;
      if (at < n) f(at);
    }
  }
}

TEST_P(QuantizeTest, ActivationsAreWithinHalfAStep) {
  for (int64_t n : kSizes) {
    const std::vector<float> x = RandomFloats(n, 1);
    const std::vector<std::byte> q = Activations(x);
    for (int64_t i = 0; i < n; ++i) {
      float max = 0;
      ForGroup(i, n, [&](int64_t at) { max = std::max(max, std::abs(x[at])); });
      EXPECT_FLOAT_EQ(reference::ActivationScale(q.data(), n, i), max / 127) << n << " " << i;
      // Half a step, and the rounding of the quotient.
      EXPECT_NEAR(reference::ActivationElement(DType::kInt8, q.data(), n, i), x[i],
                  max / 127 * 0.50002)
          << n << " " << i;
    }
  }
}

TEST_P(QuantizeTest, ActivationsCarryTheirNegativeSums) {
  for (int64_t n : kSizes) {
    const std::vector<std::byte> q = Activations(RandomFloats(n, 2));
    for (int64_t i = 0; i < n; ++i) {
      int32_t sum = 0;
      ForGroup(i, ActivationVectors(n) * 64,
               [&](int64_t at) { sum += static_cast<int8_t>(q[at]); });
      int32_t stored;
      const int64_t group = i / kBlockElements * 16 + i % 64 / 4;
      std::memcpy(&stored,
                  q.data() + ActivationVectors(n) * 64 + (QuantizedBlocks(n) * 16 + group) * 4, 4);
      EXPECT_EQ(stored, -sum) << n << " " << i;
    }
  }
}

TEST_P(QuantizeTest, ANanOrInfinityMakesItsGroupNan) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = RandomFloats(1200, 3);
    x[70] = bad;
    const std::vector<std::byte> q = Activations(x);
    for (int64_t i = 0; i < 1200; ++i) {
      bool same_group = false;
      ForGroup(70, 1200, [&](int64_t at) { same_group |= at == i; });
      EXPECT_EQ(std::isnan(reference::ActivationScale(q.data(), 1200, i)), same_group) << i;
    }
    const TestMatrix w(DType::kInt8, 1, 1200, 4);
    float out = 0;
    kernels().dot_rows[static_cast<int>(DType::kInt8)](q.data(), 1200, w.rows(), 1, nullptr, 0,
                                                       &out);
    EXPECT_TRUE(std::isnan(out));
  }
}

TEST_P(QuantizeTest, ZerosAndTinyValuesStayFinite) {
  for (const float value : {0.0f, 1e-42f, -1e-38f, 1e-30f}) {
    const std::vector<float> row(200, value);
    for (DType dtype : {DType::kInt8, DType::kInt4, DType::kInt2}) {
      const std::vector<std::byte> q = Weights(dtype, row);
      for (int64_t i = 0; i < 200; ++i) {
        EXPECT_NEAR(reference::Element(dtype, q.data(), 200, i), value, std::abs(value));
      }
    }
    const std::vector<std::byte> q = Activations(row);
    for (int64_t i = 0; i < 200; ++i) {
      EXPECT_NEAR(reference::ActivationElement(DType::kInt8, q.data(), 200, i), value,
                  std::abs(value));
    }
  }
}

TEST_P(QuantizeTest, Int8WeightsAreWithinAStep) {
  for (int64_t n : kSizes) {
    const std::vector<float> row = RandomFloats(n, 5);
    const std::vector<std::byte> q = Weights(DType::kInt8, row);
    for (int64_t i = 0; i < n; ++i) {
      float max = 0;
      ForGroup(i, n, [&](int64_t at) { max = std::max(max, std::abs(row[at])); });
      // Half a step; the extreme code of 127 may stand for a value up to 2^-9 * 127 steps beyond,
      // since the scale is rounded to bf16.
      EXPECT_NEAR(reference::Element(DType::kInt8, q.data(), n, i), row[i], max / 127 * 0.76)
          << n << " " << i;
    }
  }
}

// The plain choice maps the extreme value to the code -8.
TEST_P(QuantizeTest, Int4WeightsAreNoWorseThanPlainRounding) {
  for (int64_t n : {64, 500, 4096}) {
    const std::vector<float> row = RandomFloats(n, 6);
    const std::vector<std::byte> q = Weights(DType::kInt4, row);
    double error = 0, plain_error = 0;
    for (int64_t i = 0; i < n; ++i) {
      float extreme = 0;
      ForGroup(i, n, [&](int64_t at) {
        if (std::abs(row[at]) > std::abs(extreme)) extreme = row[at];
      });
      const double scale = extreme / -8;
      const double code = std::clamp(std::nearbyint(row[i] / scale), -8.0, 7.0);
      plain_error += std::pow(row[i] - scale * code, 2);
      error += std::pow(row[i] - reference::Element(DType::kInt4, q.data(), n, i), 2);
    }
    EXPECT_LT(error, 0.97 * plain_error) << n;
    EXPECT_GT(error, 0) << n;
  }
}

// The best scale for a uniform variable leaves 1 / 16 of its variance, for a normal one 0.119 (J.
// Max, "Quantizing for minimum distortion", 1960, table II); a scale per group of 64 does better.
TEST_P(QuantizeTest, Int2WeightsLeaveLittleMoreErrorThanTheBestQuantizer) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (int64_t n : {1024, 4096}) {
    std::vector<float> uniform = RandomFloats(n, 8), bell(n);
    for (float& value : bell) value = normal(random);
    for (const auto& [row, limit] : {std::pair{uniform, 1.0 / 16}, std::pair{bell, 0.119}}) {
      const std::vector<std::byte> q = Weights(DType::kInt2, row);
      double error = 0, variance = 0;
      for (int64_t i = 0; i < n; ++i) {
        variance += std::pow(row[i], 2);
        error += std::pow(row[i] - reference::Element(DType::kInt2, q.data(), n, i), 2);
      }
      EXPECT_LT(error, 1.02 * limit * variance) << n;
      EXPECT_GT(error, 0.8 * limit * variance) << n;
    }
  }
}

}  // namespace
}  // namespace lacuna
