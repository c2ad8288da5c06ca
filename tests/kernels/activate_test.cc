#include <cmath>
#include <limits>

#include "kernels/reference/reference.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

constexpr Activation kRelu = {.kind = ActivationKind::kRelu};
constexpr Activation kFatRelu = {.kind = ActivationKind::kFatRelu, .threshold = 0.25f};
constexpr Activation kSilu = {.kind = ActivationKind::kSilu};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();

struct Activated {
  std::vector<float> gate;
  std::vector<int32_t> indices;
};

class ActivateTest : public IsaTest {
 protected:
  Activated Activate(Activation activation, std::vector<float> gate, int32_t first_index = 0) {
    constexpr int32_t kCanary = -77;
    std::vector<int32_t> indices(gate.size() + 17, kCanary);
    const int64_t count = kernels().activate(
        activation, gate.data(), static_cast<int64_t>(gate.size()), first_index, indices.data());
    EXPECT_EQ(indices.back(), kCanary) << "wrote beyond n + 16 indices";
    indices.resize(count);
    return {std::move(gate), std::move(indices)};
  }
};
LACUNA_TEST_EVERY_ISA(ActivateTest);

TEST_P(ActivateTest, MatchesReferenceAndListsTheActive) {
  for (Activation activation : {kRelu, kFatRelu, Activation{ActivationKind::kDRelu}}) {
    for (int64_t n : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 192, 3840, 4097}) {
      const std::vector<float> x = RandomFloats(n, 1);
      const Activated result = Activate(activation, x, 1000);
      std::vector<int32_t> expected;
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_EQ(result.gate[i], reference::Activate(activation, x[i])) << "x " << x[i];
        if (result.gate[i] != 0.0f) expected.push_back(static_cast<int32_t>(1000 + i));
      }
      EXPECT_EQ(result.indices, expected) << "n " << n;
    }
  }
}

TEST_P(ActivateTest, ReluEdges) {
  const float largest_denormal = std::nextafter(std::numeric_limits<float>::min(), 0.0f);
  const Activated result = Activate(
      kRelu, {-0.0f, 0.0f, kDenormal, -kDenormal, largest_denormal, kInfinity, -kInfinity});
  EXPECT_TRUE(
      SameBits(result.gate, {0.0f, 0.0f, kDenormal, 0.0f, largest_denormal, kInfinity, 0.0f}));
  EXPECT_EQ(result.indices, (std::vector<int32_t>{2, 4, 5}));
}

// The edge differs between implementations: here, as in ProSparse's, the threshold itself stays.
TEST_P(ActivateTest, FatReluKeepsTheThreshold) {
  const float t = kFatRelu.threshold;
  const float below = std::nextafter(t, 0.0f), above = std::nextafter(t, 1.0f);
  const Activated result = Activate(kFatRelu, {below, t, above, -t, -0.0f, 0.0f, kInfinity});
  EXPECT_TRUE(SameBits(result.gate, {0.0f, t, above, 0.0f, 0.0f, 0.0f, kInfinity}));
  EXPECT_EQ(result.indices, (std::vector<int32_t>{1, 2, 6}));
}

TEST_P(ActivateTest, NanStaysAndIsActive) {
  for (Activation activation : {kRelu, kFatRelu, kSilu}) {
    for (size_t n : {1, 5, 16, 21}) {
      for (size_t where = 0; where < n; ++where) {
        std::vector<float> x(n, 0.0f);
        x[where] = NAN;
        const Activated result = Activate(activation, x);
        EXPECT_TRUE(std::isnan(result.gate[where]));
        EXPECT_EQ(result.indices, std::vector<int32_t>{static_cast<int32_t>(where)});
      }
    }
  }
}

// The exponential, the sum, the quotient and the rounding of -x * log2(e) in the range reduction:
// 8 roundings are room enough. Below -88.7 exp(-x) overflows and a result smaller than
// 89 / FLT_MAX = 2.6e-37 becomes 0.
TEST_P(ActivateTest, SiluMatchesReference) {
  std::vector<float> x;
  for (float v = -120.0f; v <= 120.0f; v += 0.0371f) x.push_back(v);
  const Activated result = Activate(kSilu, x);
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = reference::Activate(kSilu, x[i]);
    EXPECT_NEAR(result.gate[i], expected, 8 * kRoundoff * std::abs(expected) + 2.7e-37)
        << "x " << x[i];
  }
}

TEST_P(ActivateTest, SiluOfZeroIsInactive) {
  const Activated result = Activate(kSilu, {1.0f, 0.0f, -0.0f, -1.0f});
  EXPECT_EQ(result.indices, (std::vector<int32_t>{0, 3}));
}

TEST_P(ActivateTest, ResultDoesNotDependOnThePosition) {
  for (float v : {-3.7f, -0.02f, 0.3f, 11.0f}) {
    const float alone = Activate(kSilu, {v}).gate[0];
    const Activated result = Activate(kSilu, std::vector<float>(37, v));
    EXPECT_TRUE(SameBits(result.gate, std::vector<float>(37, alone)));
  }
}

}  // namespace
}  // namespace lacuna
