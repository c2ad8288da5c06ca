// Promises 1 and 2 of the design rest on these: a result has the same bits however the work is cut.
#include <algorithm>

#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

class BitEqualityTest : public IsaDTypeTest {
 protected:
  // [tokens, w.rows], one token and one row at a time.
  std::vector<float> DotOneByOne(const std::vector<float>& x, int64_t tokens,
                                 const TestMatrix& w) const {
    const int64_t rows = w.view().rows, k = w.view().cols;
    std::vector<float> y(tokens * rows);
    for (int64_t i = 0; i < tokens * rows; ++i) {
      kernels().dot_rows[type_index()](x.data() + i / rows * k, k, w.rows() + i % rows, 1, &y[i]);
    }
    return y;
  }

  std::vector<float> Linear(const std::vector<float>& x, int64_t tokens,
                            const TestMatrix& w) const {
    const int64_t rows = w.view().rows, k = w.view().cols;
    std::vector<float> y(tokens * rows);
    kernels().linear[type_index()](x.data(), k, tokens, w.view(), 0, rows, nullptr, y.data(), rows);
    return y;
  }

  // [tokens, w.cols], added to `y`, one token and one row at a time.
  std::vector<float> AxpyOneByOne(const std::vector<float>& a, int64_t tokens, const TestMatrix& w,
                                  std::vector<float> y) const {
    const int64_t rows = w.view().rows, cols = w.view().cols;
    for (int64_t i = 0; i < tokens * rows; ++i) {
      kernels().axpy_rows[type_index()](&a[i], w.rows() + i % rows, 1, cols,
                                        y.data() + i / rows * cols);
    }
    return y;
  }

  std::vector<float> LinearTransposed(const std::vector<float>& a, int64_t tokens,
                                      const TestMatrix& w, std::vector<float> y) const {
    kernels().linear_transposed[type_index()](a.data(), w.view().rows, tokens, w.view(), 0,
                                              w.view().cols, y.data(), w.view().cols);
    return y;
  }
};
LACUNA_TEST_EVERY_ISA_AND_DTYPE(BitEqualityTest);

TEST_P(BitEqualityTest, LinearIsDotRowsForEveryTile) {
  for (int64_t k : {7, 40, 1100}) {
    for (int64_t tokens = 1; tokens <= 17; ++tokens) {
      const std::vector<float> x = RandomFloats(tokens * k, 1);
      for (int64_t rows = 1; rows <= 17; ++rows) {
        const TestMatrix w(dtype(), rows, k, 2);
        ASSERT_TRUE(SameBits(Linear(x, tokens, w), DotOneByOne(x, tokens, w)))
            << "k " << k << " tokens " << tokens << " rows " << rows;
      }
    }
  }
}

TEST_P(BitEqualityTest, DotRowsOfManyIsDotRowsOfOne) {
  for (int64_t rows = 1; rows <= 17; ++rows) {
    const TestMatrix w(dtype(), rows, 1100, 3);
    const std::vector<float> x = RandomFloats(1100, 4);
    std::vector<float> out(rows);
    kernels().dot_rows[type_index()](x.data(), 1100, w.rows(), rows, out.data());
    ASSERT_TRUE(SameBits(out, DotOneByOne(x, 1, w))) << "rows " << rows;
  }
}

TEST_P(BitEqualityTest, LinearTransposedIsAxpyRowsForEveryTile) {
  for (int64_t cols : {1, 40, 67, 150}) {
    for (int64_t tokens = 1; tokens <= 17; ++tokens) {
      for (int64_t rows : {1, 2, 7, 8, 9, 17, 140}) {
        const std::vector<float> a = RandomFloats(tokens * rows, 5);
        const std::vector<float> y = RandomFloats(tokens * cols, 6);
        const TestMatrix w(dtype(), rows, cols, 7);
        ASSERT_TRUE(SameBits(LinearTransposed(a, tokens, w, y), AxpyOneByOne(a, tokens, w, y)))
            << "cols " << cols << " tokens " << tokens << " rows " << rows;
      }
    }
  }
}

TEST_P(BitEqualityTest, ListOfActiveNeuronsIsIdentityList) {
  constexpr int64_t kNeurons = 700, kHidden = 192;
  const TestMatrix w(dtype(), kNeurons, kHidden, 8);
  std::vector<float> a = RandomFloats(kNeurons, 9);
  std::vector<float> active;
  std::vector<const void*> active_rows;
  for (int64_t j = 0; j < kNeurons; ++j) {
    if (a[j] < 0.8f) a[j] = 0.0f;
    if (a[j] == 0.0f) continue;
    active.push_back(a[j]);
    active_rows.push_back(w.rows()[j]);
  }
  const int64_t n = static_cast<int64_t>(active.size());

  std::vector<float> dense(kHidden, 0.0f), sparse(kHidden, 0.0f);
  kernels().axpy_rows[type_index()](a.data(), w.rows(), kNeurons, kHidden, dense.data());
  kernels().axpy_rows[type_index()](active.data(), active_rows.data(), n, kHidden, sparse.data());
  EXPECT_TRUE(SameBits(dense, sparse));
  EXPECT_TRUE(SameBits(dense, LinearTransposed(a, 1, w, std::vector<float>(kHidden, 0.0f))));

  const std::vector<float> x = RandomFloats(kHidden, 10);
  std::vector<float> dots(n), expected;
  kernels().dot_rows[type_index()](x.data(), kHidden, active_rows.data(), n, dots.data());
  const std::vector<float> all = Linear(x, 1, w);
  for (int64_t j = 0; j < kNeurons; ++j) {
    if (a[j] != 0.0f) expected.push_back(all[j]);
  }
  EXPECT_TRUE(SameBits(dots, expected));
}

TEST_P(BitEqualityTest, SplitByRowsIsTheWhole) {
  constexpr int64_t kRows = 29, kTokens = 5, kCols = 200;
  const TestMatrix w(dtype(), kRows, kCols, 11);
  const std::vector<float> x = RandomFloats(kTokens * kCols, 12);
  const std::vector<float> bias = RandomFloats(kRows, 13);
  std::vector<float> whole(kTokens * kRows);
  kernels().linear[type_index()](x.data(), kCols, kTokens, w.view(), 0, kRows, bias.data(),
                                 whole.data(), kRows);
  for (int64_t cut = 0; cut <= kRows; ++cut) {
    std::vector<float> parts(kTokens * kRows);
    kernels().linear[type_index()](x.data(), kCols, kTokens, w.view(), 0, cut, bias.data(),
                                   parts.data(), kRows);
    kernels().linear[type_index()](x.data(), kCols, kTokens, w.view(), cut, kRows, bias.data(),
                                   parts.data(), kRows);
    ASSERT_TRUE(SameBits(whole, parts)) << "cut at " << cut;
  }
}

TEST_P(BitEqualityTest, SplitByColumnsIsTheWhole) {
  constexpr int64_t kRows = 150, kCols = 137;
  const TestMatrix w(dtype(), kRows, kCols, 14);
  for (int64_t tokens : {1, 5, 11}) {
    const std::vector<float> a = RandomFloats(tokens * kRows, 15);
    const std::vector<float> y = RandomFloats(tokens * kCols, 16);
    const std::vector<float> whole = LinearTransposed(a, tokens, w, y);
    for (int64_t cut = 0; cut <= kCols; cut += 3) {
      std::vector<float> parts = y;
      for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, std::pair{cut, kCols}}) {
        kernels().linear_transposed[type_index()](a.data(), kRows, tokens, w.view(), begin, end,
                                                  parts.data(), kCols);
      }
      ASSERT_TRUE(SameBits(whole, parts)) << "tokens " << tokens << " cut at " << cut;
    }
  }
}

TEST_P(BitEqualityTest, AlignmentOfTheInputsDoesNotMatter) {
  constexpr int64_t kRows = 9, kCols = 100;
  const TestMatrix w(dtype(), kRows, kCols, 17);
  const std::vector<float> x = RandomFloats(kCols, 18);
  const std::vector<float> expected = Linear(x, 1, w);
  for (int64_t shift = 1; shift < 16; ++shift) {
    std::vector<float> moved(shift + kCols);
    std::copy(x.begin(), x.end(), moved.begin() + shift);
    std::vector<float> out(kRows);
    kernels().dot_rows[type_index()](moved.data() + shift, kCols, w.rows(), kRows, out.data());
    ASSERT_TRUE(SameBits(out, expected)) << "shift " << shift;
  }
}

}  // namespace
}  // namespace lacuna
