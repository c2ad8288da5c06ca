#include <algorithm>
#include <cmath>

#include "kernels/reference/reference.h"
#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

// Lengths around the vectors (4, 8, 16), tiles (64) and blocks (1024) of the kernels, and those of
// models.
constexpr int64_t kSizes[] = {1,   3,   4,   5,   7,   8,   9,   15,  16,   17,   63,   64,   65,
                              100, 127, 128, 129, 192, 511, 512, 513, 1023, 1024, 1025, 1536, 4096};

// Largest error of a dot product, given the sum of the |products|. With float weights, a product
// passes through its own rounding, the sums of one of at least 4 lanes over a block of at most
// 1024, two or more sums across lanes (together at most 256 + 4, at any number of lanes), then one
// per block. With quantized weights, which are summed exactly inside a group: through that of two
// scales, of the product with them, and those of at most 16 groups in each block and lane.
double DotTolerance(DType dtype, int64_t k, double sum_of_magnitudes) {
  const double roundings = IsQuantized(dtype)
                               ? 3 + 4 * (k / kBlockElements + 1) + 4
                               : 1 + std::min<int64_t>(k, 1024) / 4 + 4 + k / 1024 + 1;
  return roundings * kRoundoff * sum_of_magnitudes;
}

double SumOfMagnitudes(const void* x, DType dtype, const void* row, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) {
    sum += std::abs(reference::ActivationElement(dtype, x, k, i) *
                    reference::Element(dtype, row, k, i));
  }
  return sum;
}

class MatrixKernelsTest : public IsaDTypeTest {};
LACUNA_TEST_EVERY_ISA_AND_WEIGHT_TYPE(MatrixKernelsTest);

// With rows of sketches too.
class DotKernelsTest : public MatrixKernelsTest {};
LACUNA_TEST_EVERY_ISA_AND_DTYPE(DotKernelsTest);

TEST_P(DotKernelsTest, DotRowsMatchesReference) {
  constexpr int64_t kRows = 13;
  for (int64_t k : kSizes) {
    const TestMatrix w(dtype(), kRows, k, 1);
    const TestActivations x(kernels(), dtype(), RandomFloats(k, 2), 1, k);
    std::vector<float> out(kRows, NAN);
    kernels().dot_rows[type_index()](x.token(0), k, w.rows(), kRows, w.rows(), 2, out.data());
    for (int64_t r = 0; r < kRows; ++r) {
      const double sum = SumOfMagnitudes(x.token(0), dtype(), w.rows()[r], k);
      EXPECT_NEAR(out[r], reference::Dot(x.token(0), dtype(), w.rows()[r], k),
                  DotTolerance(dtype(), k, sum))
          << "k " << k << " row " << r;
    }
  }
}

TEST_P(DotKernelsTest, DotRowsOfNothing) {
  const TestMatrix w(dtype(), 1, 1, 1);
  float out = 7;
  kernels().dot_rows[type_index()](nullptr, 0, w.rows(), 0, nullptr, 0, &out);
  EXPECT_EQ(out, 7);
  kernels().dot_rows[type_index()](nullptr, 0, w.rows(), 1, nullptr, 0, &out);
  EXPECT_EQ(out, 0);
}

TEST_P(DotKernelsTest, LinearMatchesReference) {
  constexpr int64_t kRows = 23, kMargin = 3;
  for (int64_t tokens : {1, 5, 8, 19, 43}) {
    for (int64_t k : kSizes) {
      if (k > 1025 && tokens != 8) continue;
      const TestMatrix w(dtype(), kRows, k, 3);
      const TestActivations x(kernels(), dtype(), RandomFloats(tokens * k, 4), tokens, k, kMargin);
      const std::vector<float> bias = RandomFloats(kRows, 5);
      for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
        std::vector<float> y(tokens * (kRows + kMargin), NAN);
        kernels().linear[type_index()](x.token(0), x.stride(), tokens, w.view(), 1, kRows, b,
                                       y.data(), kRows + kMargin);
        for (int64_t t = 0; t < tokens; ++t) {
          const void* xt = x.token(t);
          const float* yt = y.data() + t * (kRows + kMargin);
          EXPECT_TRUE(std::isnan(yt[0])) << "row 0 was not asked for";
          for (int64_t r = 1; r < kRows; ++r) {
            const double shift = b == nullptr ? 0.0 : b[r];
            const double sum = SumOfMagnitudes(xt, dtype(), w.rows()[r], k) + std::abs(shift);
            EXPECT_NEAR(yt[r], reference::Dot(xt, dtype(), w.rows()[r], k) + shift,
                        DotTolerance(dtype(), k, sum) + kRoundoff * sum)
                << "k " << k << " token " << t << " row " << r;
          }
          for (int64_t r = kRows; r < kRows + kMargin; ++r) EXPECT_TRUE(std::isnan(yt[r]));
        }
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
      const int64_t begin = std::min(cols, ColumnGrain(dtype()));
      kernels().axpy_rows[type_index()](a.data(), w.rows(), n, cols, begin, cols, y.data());
      const std::vector<double> expected = reference::Axpy(dtype(), a.data(), w.rows(), n, cols);
      const double tolerance = (n + 1) * kRoundoff * (n + 1);  // every magnitude is about 1
      for (int64_t c = 0; c < cols; ++c) {
        if (c < begin) {
          EXPECT_EQ(y[c], before[c]);
        } else {
          EXPECT_NEAR(y[c], before[c] + expected[c], tolerance) << "n " << n << " column " << c;
        }
      }
    }
  }
}

TEST_P(MatrixKernelsTest, LinearTransposedMatchesReference) {
  for (int64_t tokens : {1, 2, 9}) {
    for (int64_t n : {1, 8, 130}) {
      for (int64_t cols : {1, 17, 64, 150, 700}) {
        const TestMatrix w(dtype(), n, cols, 9);
        const std::vector<float> a = RandomFloats(tokens * (n + 2), 10);
        std::vector<float> y(tokens * (cols + 2), 0.5f);
        const int64_t begin = cols / 3 / ColumnGrain(dtype()) * ColumnGrain(dtype());
        kernels().linear_transposed[type_index()](a.data(), n + 2, tokens, w.view(), begin, cols,
                                                  y.data(), cols + 2);
        const double tolerance = (n + 1) * kRoundoff * (n + 1);
        for (int64_t t = 0; t < tokens; ++t) {
          const std::vector<double> expected =
              reference::Axpy(dtype(), a.data() + t * (n + 2), w.rows(), n, cols);
          const float* yt = y.data() + t * (cols + 2);
          for (int64_t c = 0; c < cols + 2; ++c) {
            const bool wanted = begin <= c && c < cols;
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
  const TestActivations x(kernels(), dtype(), RandomFloats(kTokens * kCols, 12), kTokens, kCols);
  std::vector<float> y(kTokens * kRows);
  kernels().linear[type_index()](x.token(0), x.stride(), kTokens, w.view(), 0, kRows, nullptr,
                                 y.data(), kRows);
  for (int64_t i = 0; i < kTokens * kRows; i += 97) {
    const void* xt = x.token(i / kRows);
    const void* row = w.rows()[i % kRows];
    EXPECT_NEAR(y[i], reference::Dot(xt, dtype(), row, kCols),
                DotTolerance(dtype(), kCols, SumOfMagnitudes(xt, dtype(), row, kCols)))
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

// Rows of more elements than are unpacked for many tokens.
TEST_P(DotKernelsTest, LongRowsMatchReference) {
  constexpr int64_t kTokens = 40, kRows = 4, kCols = 17000;
  const TestMatrix w(dtype(), kRows, kCols, 11);
  const TestActivations x(kernels(), dtype(), RandomFloats(kTokens * kCols, 12), kTokens, kCols);
  std::vector<float> y(kTokens * kRows);
  kernels().linear[type_index()](x.token(0), x.stride(), kTokens, w.view(), 0, kRows, nullptr,
                                 y.data(), kRows);
  for (int64_t i = 0; i < kTokens * kRows; ++i) {
    const void* xt = x.token(i / kRows);
    const void* row = w.rows()[i % kRows];
    EXPECT_NEAR(y[i], reference::Dot(xt, dtype(), row, kCols),
                DotTolerance(dtype(), kCols, SumOfMagnitudes(xt, dtype(), row, kCols)));
  }
}

TEST_P(DotKernelsTest, WidenIsExact) {
  for (int64_t n : kSizes) {
    const TestMatrix w(dtype(), 1, n, 14);
    std::vector<float> out(n, NAN);
    kernels().widen[type_index()](w.rows()[0], n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(out[i], reference::Element(dtype(), w.rows()[0], n, i)) << "n " << n << " i " << i;
    }
  }
}

}  // namespace
}  // namespace lacuna
