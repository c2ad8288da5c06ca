#include <cmath>

#include "kernels/reference/reference.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

constexpr int64_t kSizes[] = {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 64, 192, 1536, 4096, 4099};

// Roundings on the way to one output of a norm: the sums (see DotTolerance: at most 256 + 10,
// halved by the square root, but twice over for mean and variance), and 8 for the root, quotient,
// products.
constexpr double kNormTolerance = (2 * (256 + 10) + 8) * kRoundoff;

class VectorKernelsTest : public IsaTest {};
LACUNA_TEST_EVERY_ISA(VectorKernelsTest);

TEST_P(VectorKernelsTest, RmsNormMatchesReference) {
  for (int64_t n : kSizes) {
    std::vector<float> x = RandomFloats(n, 1);
    const std::vector<float> weight = RandomFloats(n, 2);
    const std::vector<double> expected = reference::RmsNorm(x.data(), weight.data(), 1e-5f, n);
    std::vector<float> out(n);
    kernels().rms_norm(x.data(), weight.data(), 1e-5f, n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(out[i], expected[i], kNormTolerance * std::abs(expected[i])) << "n " << n;
    }
    kernels().rms_norm(x.data(), weight.data(), 1e-5f, n, x.data());
    EXPECT_TRUE(SameBits(x, out)) << "in place";
  }
}

TEST_P(VectorKernelsTest, RmsNormOfZerosIsZero) {
  const std::vector<float> x(20, 0.0f), weight(20, 1.0f);
  std::vector<float> out(20, 7.0f);
  kernels().rms_norm(x.data(), weight.data(), 1e-6f, 20, out.data());
  EXPECT_TRUE(SameBits(out, x));
}

TEST_P(VectorKernelsTest, LayerNormMatchesReference) {
  for (int64_t n : kSizes) {
    if (n < 3) continue;  // of 1 element only the rounding of the mean would be left
    std::vector<float> x = RandomFloats(n, 3);
    const std::vector<float> weight = RandomFloats(n, 4), bias = RandomFloats(n, 5);
    const std::vector<double> expected =
        reference::LayerNorm(x.data(), weight.data(), bias.data(), 1e-5f, n);
    std::vector<float> out(n);
    kernels().layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      // The mean is wrong by its own roundings, and magnitudes reach 4 deviations.
      EXPECT_NEAR(out[i], expected[i], kNormTolerance * 4) << "n " << n << " i " << i;
    }
    kernels().layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, n, x.data());
    EXPECT_TRUE(SameBits(x, out)) << "in place";
  }
}

// Two products and a sum: 2 roundings of each product.
TEST_P(VectorKernelsTest, RopeMatchesReference) {
  for (int64_t head_dim : {2, 6, 8, 30, 32, 64, 80, 128}) {
    for (int64_t heads : {1, 3}) {
      std::vector<float> x = RandomFloats(heads * head_dim, 6), cos, sin;
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        cos.push_back(std::cos(0.1f * static_cast<float>(i)));
        sin.push_back(std::sin(0.1f * static_cast<float>(i)));
      }
      const std::vector<double> expected =
          reference::Rope(x.data(), cos.data(), sin.data(), heads, head_dim);
      kernels().rope(x.data(), cos.data(), sin.data(), heads, head_dim);
      for (int64_t i = 0; i < heads * head_dim; ++i) {
        EXPECT_NEAR(x[i], expected[i], 2 * 2 * kRoundoff) << "head_dim " << head_dim << " i " << i;
      }
    }
  }
}

TEST_P(VectorKernelsTest, AddScaledMatchesReference) {
  for (int64_t n : kSizes) {
    const std::vector<float> x = RandomFloats(n, 7), before = RandomFloats(n, 8);
    std::vector<float> y = before;
    kernels().add_scaled(0.3f, x.data(), n, y.data());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(y[i], before[i] + double{0.3f} * x[i], 2 * 1.3 * kRoundoff) << "n " << n;
    }
  }
}

}  // namespace
}  // namespace lacuna
