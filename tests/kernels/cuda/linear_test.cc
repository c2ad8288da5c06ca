#include "kernels/cuda/linear.h"

#include <cmath>
#include <vector>

#include "tests/kernels/cuda/padded_matrix.h"

namespace lacuna {
namespace {

class LinearTest : public CudaTest, public testing::WithParamInterface<DType> {
 protected:
  // Compares all outputs; between the tokens of y is a margin, which has to stay as it is.
  void Check(int64_t tokens, int64_t rows, int64_t k, bool with_bias) {
    constexpr int64_t kMargin = 3;
    const DType dtype = GetParam();
    const PaddedMatrix w(dtype, rows, k, 1, 128);
    const PaddedActivations x(dtype, RandomFloats(tokens * k, 2), tokens, k);
    const std::vector<float> bias = RandomFloats(rows, 3);
    const DeviceArray<float> device_bias(bias);
    const DeviceArray<float> y(std::vector<float>(tokens * (rows + kMargin), NAN));
    Linear(stream(), x.data(), x.stride(), tokens, w.view(),
           with_bias ? device_bias.get() : nullptr, y.get(), rows + kMargin);
    Synchronize();
    const std::vector<float> out = y.Values();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows + kMargin; ++r) {
        const float value = out[t * (rows + kMargin) + r];
        if (r >= rows) {
          EXPECT_TRUE(std::isnan(value)) << "behind token " << t;
          continue;
        }
        const ReferenceDot dot(x.token(t), w.row(r), k);
        const double shift = with_bias ? bias[r] : 0.0;
        EXPECT_NEAR(value, dot.value + shift,
                    DeviceDotTolerance(dtype, k, dot.magnitudes + std::abs(shift)))
            << "token " << t << " of " << tokens << ", row " << r << " of " << rows << ", k " << k;
      }
    }
  }
};

TEST_P(LinearTest, MatchesReferenceForAnyLength) {
  for (const int64_t k : {1,   3,   4,   5,   7,   8,   9,    31,   63,   64,   65,
                          127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 1536, 2100}) {
    Check(1, 5, k, false);
    Check(3, 5, k, true);
  }
}

TEST_P(LinearTest, MatchesReferenceForAnyNumberOfTokens) {
  for (const int64_t tokens : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64, 65}) {
    Check(tokens, 37, 200, true);
  }
}

TEST_P(LinearTest, MatchesReferenceForAnyNumberOfRows) {
  for (const int64_t rows : {1, 3, 4, 15, 16, 17, 31, 32, 33, 127, 128, 129, 300}) {
    Check(1, rows, 72, false);
    Check(8, rows, 72, true);
  }
}

TEST_P(LinearTest, NothingToDo) {
  const PaddedMatrix w(GetParam(), 4, 64, 1);
  Linear(stream(), nullptr, 0, 0, w.view(), nullptr, nullptr, 0);
  Synchronize();
}

TEST_P(LinearTest, RepeatsTheSameBits) {
  constexpr int64_t kRows = 40, kCols = 1100;
  const PaddedMatrix w(GetParam(), kRows, kCols, 1);
  for (const int64_t tokens : {1, 6, 20}) {
    const PaddedActivations x(GetParam(), RandomFloats(tokens * kCols, 2), tokens, kCols);
    const DeviceArray<float> a(tokens * kRows), b(tokens * kRows);
    Linear(stream(), x.data(), x.stride(), tokens, w.view(), nullptr, a.get(), kRows);
    Linear(stream(), x.data(), x.stride(), tokens, w.view(), nullptr, b.get(), kRows);
    Synchronize();
    EXPECT_EQ(a.Values(), b.Values());
  }
}

INSTANTIATE_TEST_SUITE_P(Type, LinearTest,
                         testing::Values(DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4),
                         [](const testing::TestParamInfo<DType>& info) {
                           return DTypeName(info.param);
                         });

}  // namespace
}  // namespace lacuna
