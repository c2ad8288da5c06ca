#include <algorithm>
#include <cmath>

#include "kernels/reference/reference.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

// Lengths around the vectors (4, 8, 16), tiles (64) and blocks (1024) of the kernels, and those of
// models.
constexpr int64_t kSizes[] = {1,  3,  4,  5,   7,   8,    9,    15,   16,   17,
                              63, 64, 65, 100, 192, 1023, 1024, 1025, 1536, 4096};

// Largest error of a dot product, given the sum of the |products|. A product passes through its own
// rounding, the sums of one of at least 4 lanes over a block of at most 1024, two or more sums
// across lanes (together at most 256 + 4, at any number of lanes), then one per block.
double DotTolerance(int64_t k, double sum_of_magnitudes) {
  const double roundings = 1 + std::min<int64_t>(k, 1024) / 4 + 4 + k / 1024 + 1;
  return roundings * kRoundoff * sum_of_magnitudes;
}

double SumOfMagnitudes(const float* x, DType dtype, const void* row, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += std::abs(x[i] * reference::Element(dtype, row, i));
  return sum;
}

class MatrixKernelsTest : public IsaDTypeTest {};
LACUNA_TEST_EVERY_ISA_AND_DTYPE(MatrixKernelsTest);

TEST_P(MatrixKernelsTest, DotRowsMatchesReference) {
  constexpr int64_t kRows = 13;
  for (int64_t k : kSizes) {
    const TestMatrix w(dtype(), kRows, k, 1);
    const std::vector<float> x = RandomFloats(k, 2);
    std::vector<float> out(kRows, NAN);
    kernels().dot_rows[type_index()](x.data(), k, w.rows(), kRows, out.data());
    for (int64_t r = 0; r < kRows; ++r) {
      const double sum = SumOfMagnitudes(x.data(), dtype(), w.rows()[r], k);
      EXPECT_NEAR(out[r], reference::Dot(x.data(), dtype(), w.rows()[r], k), DotTolerance(k, sum))
          << "k " << k << " row " << r;
    }
  }
}

TEST_P(MatrixKernelsTest, DotRowsOfNothing) {
  const TestMatrix w(dtype(), 1, 1, 1);
  float out = 7;
  kernels().dot_rows[type_index()](nullptr, 0, w.rows(), 0, &out);
  EXPECT_EQ(out, 7);
  kernels().dot_rows[type_index()](nullptr, 0, w.rows(), 1, &out);
  EXPECT_EQ(out, 0);
}

TEST_P(MatrixKernelsTest, LinearMatchesReference) {
  constexpr int64_t kRows = 7, kTokens = 8, kMargin = 3;
  for (int64_t k : kSizes) {
    const TestMatrix w(dtype(), kRows, k, 3);
    const std::vector<float> x = RandomFloats(kTokens * (k + kMargin), 4);
    const std::vector<float> bias = RandomFloats(kRows, 5);
    for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
      std::vector<float> y(kTokens * (kRows + kMargin), NAN);
      kernels().linear[type_index()](x.data(), k + kMargin, kTokens, w.view(), 1, kRows, b,
                                     y.data(), kRows + kMargin);
      for (int64_t t = 0; t < kTokens; ++t) {
        const float* xt = x.data() + t * (k + kMargin);
        const float* yt = y.data() + t * (kRows + kMargin);
        EXPECT_TRUE(std::isnan(yt[0])) << "row 0 was not asked for";
        for (int64_t r = 1; r < kRows; ++r) {
          const double shift = b == nullptr ? 0.0 : b[r];
          const double sum = SumOfMagnitudes(xt, dtype(), w.rows()[r], k) + std::abs(shift);
          EXPECT_NEAR(yt[r], reference::Dot(xt, dtype(), w.rows()[r], k) + shift,
                      DotTolerance(k, sum) + kRoundoff * sum)
              << "k " << k << " token " << t << " row " << r;
        }
        for (int64_t r = kRows; r < kRows + kMargin; ++r) EXPECT_TRUE(std::isnan(yt[r]));
      }
    }
  }
}

// One fused multiply-add, or a product and a sum, per row: n + 1 roundings at most per term.
TEST_P(MatrixKernelsTest, AxpyRowsMatchesReference) {
  for (int64_t n : {1, 7, 8, 9, 300}) {
    for (int64_t cols : kSizes) {
      const TestMatrix w(dtype(), n, cols, 6);
      const std::vector<float> a = RandomFloats(n, 7);
      const std::vector<float> before = RandomFloats(cols, 8);
      std::vector<float> y = before;
      kernels().axpy_rows[type_index()](a.data(), w.rows(), n, cols, y.data());
      const std::vector<double> expected = reference::Axpy(dtype(), a.data(), w.rows(), n, cols);
      const double tolerance = (n + 1) * kRoundoff * (n + 1);  // every magnitude is at most 1
      for (int64_t c = 0; c < cols; ++c) {
        EXPECT_NEAR(y[c], before[c] + expected[c], tolerance) << "n " << n << " column " << c;
      }
    }
  }
}

TEST_P(MatrixKernelsTest, LinearTransposedMatchesReference) {
  for (int64_t tokens : {1, 2, 9}) {
    for (int64_t n : {1, 8, 130}) {
      for (int64_t cols : {1, 17, 64, 150}) {
        const TestMatrix w(dtype(), n, cols, 9);
        const std::vector<float> a = RandomFloats(tokens * (n + 2), 10);
        std::vector<float> y(tokens * (cols + 2), 0.5f);
        const int64_t col_begin = cols / 3;
        kernels().linear_transposed[type_index()](a.data(), n + 2, tokens, w.view(), col_begin,
                                                  cols, y.data(), cols + 2);
        const double tolerance = (n + 1) * kRoundoff * (n + 1);
        for (int64_t t = 0; t < tokens; ++t) {
          const std::vector<double> expected =
              reference::Axpy(dtype(), a.data() + t * (n + 2), w.rows(), n, cols);
          const float* yt = y.data() + t * (cols + 2);
          for (int64_t c = 0; c < cols + 2; ++c) {
            const bool wanted = col_begin <= c && c < cols;
            EXPECT_NEAR(yt[c], 0.5 + (wanted ? expected[c] : 0.0), wanted ? tolerance : 0.0)
                << "tokens " << tokens << " n " << n << " cols " << cols << " column " << c;
          }
        }
      }
    }
  }
}

// The largest tiles and blocks at once: several blocks of k, of packed rows and of tokens.
TEST_P(MatrixKernelsTest, LargeProductsMatchReference) {
  constexpr int64_t kTokens = 35, kRows = 530, kCols = 8200;
  const TestMatrix w(dtype(), kRows, kCols, 11);
  const std::vector<float> x = RandomFloats(kTokens * kCols, 12);
  std::vector<float> y(kTokens * kRows);
  kernels().linear[type_index()](x.data(), kCols, kTokens, w.view(), 0, kRows, nullptr, y.data(),
                                 kRows);
  for (int64_t i = 0; i < kTokens * kRows; i += 97) {
    const float* xt = x.data() + i / kRows * kCols;
    const void* row = w.rows()[i % kRows];
    EXPECT_NEAR(y[i], reference::Dot(xt, dtype(), row, kCols),
                DotTolerance(kCols, SumOfMagnitudes(xt, dtype(), row, kCols)))
        << "output " << i;
  }

  const std::vector<float> a = RandomFloats(kTokens * kRows, 13);
  std::vector<float> z(kTokens * kCols, 0.0f);
  kernels().linear_transposed[type_index()](a.data(), kRows, kTokens, w.view(), 0, kCols, z.data(),
                                            kCols);
  const std::vector<double> expected =
      reference::Axpy(dtype(), a.data() + 30 * kRows, w.rows(), kRows, kCols);
  for (int64_t c = 0; c < kCols; ++c) {
    EXPECT_NEAR(z[30 * kCols + c], expected[c], (kRows + 1) * kRoundoff * kRows) << "column " << c;
  }
}

TEST_P(MatrixKernelsTest, WidenIsExact) {
  for (int64_t n : kSizes) {
    const TestMatrix w(dtype(), 1, n, 14);
    std::vector<float> out(n, NAN);
    kernels().widen[type_index()](w.rows()[0], n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(out[i], reference::Element(dtype(), w.rows()[0], i)) << "n " << n << " i " << i;
    }
  }
}

}  // namespace
}  // namespace lacuna
