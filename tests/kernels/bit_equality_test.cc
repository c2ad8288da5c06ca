// What ARCHITECTURE.md says of bit-identical results rests on these: a result has the same bits
// however the work is cut.
#include <algorithm>
#include <cmath>

#include "tests/kernels/test_data.h"

namespace lacuna {
namespace {

class BitEqualityTest : public IsaDTypeTest {
 protected:
  // [tokens, w.rows], one token and one row at a time.
  std::vector<float> DotOneByOne(const std::vector<float>& x, int64_t tokens,
                                 const TestMatrix& w) const {
    const int64_t rows = w.view().rows, k = w.view().cols;
    const TestActivations xs(kernels(), dtype(), x, tokens, k);
    std::vector<float> y(tokens * rows);
    for (int64_t i = 0; i < tokens * rows; ++i) {
      kernels().dot_rows[type_index()](xs.token(i / rows), k, w.rows() + i % rows, 1, nullptr, 0,
                                       &y[i]);
    }
    return y;
  }

  std::vector<float> DotRows(const std::vector<float>& x, const void* const* rows,
                             int64_t n) const {
    const int64_t k = static_cast<int64_t>(x.size());
    const TestActivations xs(kernels(), dtype(), x, 1, k);
    std::vector<float> out(n);
    kernels().dot_rows[type_index()](xs.token(0), k, rows, n, nullptr, 0, out.data());
    return out;
  }

  // Rows [begin, end) only, if given.
  void Linear(const std::vector<float>& x, int64_t tokens, const TestMatrix& w, int64_t begin,
              int64_t end, const float* bias, std::vector<float>* y) const {
    const TestActivations xs(kernels(), dtype(), x, tokens, w.view().cols);
    kernels().linear[type_index()](xs.token(0), xs.stride(), tokens, w.view(), begin, end, bias,
                                   y->data(), w.view().rows);
  }
  std::vector<float> Linear(const std::vector<float>& x, int64_t tokens,
                            const TestMatrix& w) const {
    std::vector<float> y(tokens * w.view().rows);
    Linear(x, tokens, w, 0, w.view().rows, nullptr, &y);
    return y;
  }

  // [tokens, w.cols], added to `y`, one token and one row at a time.
  std::vector<float> AxpyOneByOne(const std::vector<float>& a, int64_t tokens, const TestMatrix& w,
                                  std::vector<float> y) const {
    const int64_t rows = w.view().rows, cols = w.view().cols;
    for (int64_t i = 0; i < tokens * rows; ++i) {
      kernels().axpy_rows[type_index()](&a[i], w.rows() + i % rows, 1, cols, 0, cols,
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
LACUNA_TEST_EVERY_ISA_AND_WEIGHT_TYPE(BitEqualityTest);

// With rows of sketches too.
class DotBitEqualityTest : public BitEqualityTest {};
LACUNA_TEST_EVERY_ISA_AND_DTYPE(DotBitEqualityTest);

TEST_P(DotBitEqualityTest, LinearIsDotRowsForEveryTile) {
  for (int64_t k : {7, 40, 1100}) {
    for (int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17}) {
      const std::vector<float> x = RandomFloats(tokens * k, 1);
      for (int64_t rows = 1; rows <= 17; ++rows) {
        const TestMatrix w(dtype(), rows, k, 2);
        ASSERT_TRUE(SameBits(Linear(x, tokens, w), DotOneByOne(x, tokens, w)))
            << "k " << k << " tokens " << tokens << " rows " << rows;
      }
    }
  }
}

// From some number of tokens on, rows are unpacked first, or multiplied in tiles of 16 x 16 where
// there are so many.
TEST_P(DotBitEqualityTest, LinearOfManyTokensIsDotRows) {
  for (int64_t tokens : {31, 32, 33, 35, 41, 64}) {
    for (int64_t rows : {1, 4, 7, 16, 37}) {
      const std::vector<float> x = RandomFloats(tokens * 1100, 1);
      const TestMatrix w(dtype(), rows, 1100, 2);
      ASSERT_TRUE(SameBits(Linear(x, tokens, w), DotOneByOne(x, tokens, w)))
          << "tokens " << tokens << " rows " << rows;
    }
  }
}

// Long rows take more than one pass over the weights, or are too long for tiles.
TEST_P(DotBitEqualityTest, LinearOfManyTokensAndLongRowsIsDotRows) {
  for (int64_t k : {2048, 4095, 8192, 8193}) {
    for (int64_t tokens : {33, 75}) {
      const std::vector<float> x = RandomFloats(tokens * k, 1);
      const TestMatrix w(dtype(), 17, k, 2);
      ASSERT_TRUE(SameBits(Linear(x, tokens, w), DotOneByOne(x, tokens, w)))
          << "k " << k << " tokens " << tokens;
    }
  }
}

TEST_P(DotBitEqualityTest, DotRowsOfManyIsDotRowsOfOne) {
  for (int64_t rows = 1; rows <= 17; ++rows) {
    const TestMatrix w(dtype(), rows, 1100, 3);
    const std::vector<float> x = RandomFloats(1100, 4);
    ASSERT_TRUE(SameBits(DotRows(x, w.rows(), rows), DotOneByOne(x, 1, w))) << "rows " << rows;
  }
}

TEST_P(BitEqualityTest, LinearTransposedIsAxpyRowsForEveryTile) {
  for (int64_t cols : {1, 40, 67, 150, 600}) {
    for (int64_t tokens : {1, 2, 3, 5, 6, 7, 12, 13, 17}) {
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
  kernels().axpy_rows[type_index()](a.data(), w.rows(), kNeurons, kHidden, 0, kHidden,
                                    dense.data());
  kernels().axpy_rows[type_index()](active.data(), active_rows.data(), n, kHidden, 0, kHidden,
                                    sparse.data());
  EXPECT_TRUE(SameBits(dense, sparse));
  EXPECT_TRUE(SameBits(dense, LinearTransposed(a, 1, w, std::vector<float>(kHidden, 0.0f))));

  const std::vector<float> x = RandomFloats(kHidden, 10);
  const std::vector<float> dots = DotRows(x, active_rows.data(), n);
  std::vector<float> expected;
  const std::vector<float> all = Linear(x, 1, w);
  for (int64_t j = 0; j < kNeurons; ++j) {
    if (a[j] != 0.0f) expected.push_back(all[j]);
  }
  EXPECT_TRUE(SameBits(dots, expected));
}

// Tokens that take different rows of one list, as a batch does, against each token alone.
TEST_P(BitEqualityTest, AxpyListsIsAxpyRowsOfEachToken) {
  for (int64_t cols : {1, 64, 150, 600}) {
    constexpr int64_t kRows = 450;  // several passes of axpy_lists
    const TestMatrix w(dtype(), kRows, cols, 8);
    for (int64_t tokens : {int64_t{1}, int64_t{2}, int64_t{7}, KernelTable::kMaxListTokens}) {
      std::mt19937 random(9);
      std::vector<std::vector<int32_t>> index(tokens);
      std::vector<std::vector<float>> a(tokens);
      std::vector<RowCombination> lists(tokens);
      std::vector<float> y = RandomFloats(tokens * cols, 10), expected = y;
      for (int64_t t = 0; t < tokens; ++t) {
        std::vector<const void*> rows;
        for (int32_t r = 0; r < kRows; ++r) {
          // The first token takes every row, the second none.
          if (t > 0 && (t == 1 || random() % 5 != 0)) continue;
          index[t].push_back(r);
          rows.push_back(w.rows()[r]);
        }
        const int64_t n = static_cast<int64_t>(rows.size());
        a[t] = RandomFloats(n, 11 + t);
        lists[t] = {index[t].data(), a[t].data(), n};
        kernels().axpy_rows[type_index()](a[t].data(), rows.data(), n, cols, 0, cols,
                                          &expected[t * cols]);
      }
      std::vector<float> parts = y;
      kernels().axpy_lists[type_index()](w.rows(), kRows, cols, lists.data(), tokens, 0, cols,
                                         y.data(), cols);
      ASSERT_TRUE(SameBits(y, expected)) << "cols " << cols << " tokens " << tokens;
      const int64_t cut = std::min(cols, ColumnGrain(dtype()));
      for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, std::pair{cut, cols}}) {
        kernels().axpy_lists[type_index()](w.rows(), kRows, cols, lists.data(), tokens, begin, end,
                                           parts.data(), cols);
      }
      ASSERT_TRUE(SameBits(parts, expected)) << "cut, cols " << cols << " tokens " << tokens;
    }
  }
}

TEST(AmxTest, GivesTheBitsOfVnni) {
  const absl::StatusOr<const KernelTable*> amx = SelectCpuKernels("amx");
  if (!amx.ok()) GTEST_SKIP() << amx.status();
  const KernelTable* const vnni = SelectCpuKernels("avx512vnni").value();
  constexpr int64_t kTokens = 64, kCols = 2100;
  std::vector<float> x = RandomFloats(kTokens * kCols, 1);
  x[5 * kCols + 700] = INFINITY;
  for (DType dtype : {DType::kInt8, DType::kInt4}) {
    const TestMatrix w(dtype, 37, kCols, 2);
    const auto linear = [&](const KernelTable& kernels) {
      const TestActivations xs(kernels, dtype, x, kTokens, kCols);
      std::vector<float> y(kTokens * 37);
      kernels.linear[static_cast<int>(dtype)](xs.token(0), xs.stride(), kTokens, w.view(), 0, 37,
                                              nullptr, y.data(), 37);
      for (int64_t r = 0; r < 37; ++r) {
        EXPECT_TRUE(std::isnan(y[5 * 37 + r])) << kernels.isa << " row " << r;
        y[5 * 37 + r] = 0;
      }
      return y;
    };
    EXPECT_TRUE(SameBits(linear(**amx), linear(*vnni)));
  }
}

TEST_P(DotBitEqualityTest, SplitByRowsIsTheWhole) {
  constexpr int64_t kRows = 29, kCols = 200;
  const TestMatrix w(dtype(), kRows, kCols, 11);
  const std::vector<float> bias = RandomFloats(kRows, 13);
  for (int64_t tokens : {5, 34}) {
    const std::vector<float> x = RandomFloats(tokens * kCols, 12);
    std::vector<float> whole(tokens * kRows);
    Linear(x, tokens, w, 0, kRows, bias.data(), &whole);
    for (int64_t cut = 0; cut <= kRows; ++cut) {
      std::vector<float> parts(tokens * kRows);
      Linear(x, tokens, w, 0, cut, bias.data(), &parts);
      Linear(x, tokens, w, cut, kRows, bias.data(), &parts);
      ASSERT_TRUE(SameBits(whole, parts)) << "cut at " << cut << ", tokens " << tokens;
    }
  }
}

TEST_P(BitEqualityTest, SplitByColumnsIsTheWhole) {
  constexpr int64_t kRows = 150, kCols = 650;
  const TestMatrix w(dtype(), kRows, kCols, 14);
  for (int64_t tokens : {1, 5, 11}) {
    const std::vector<float> a = RandomFloats(tokens * kRows, 15);
    const std::vector<float> y = RandomFloats(tokens * kCols, 16);
    const std::vector<float> whole = LinearTransposed(a, tokens, w, y);
    for (int64_t cut = 0; cut <= kCols; cut += ColumnGrain(dtype())) {
      std::vector<float> parts = y;
      for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, std::pair{cut, kCols}}) {
        kernels().linear_transposed[type_index()](a.data(), kRows, tokens, w.view(), begin, end,
                                                  parts.data(), kCols);
      }
      ASSERT_TRUE(SameBits(whole, parts)) << "tokens " << tokens << " cut at " << cut;
    }
  }
}

TEST_P(DotBitEqualityTest, AlignmentOfTheInputsDoesNotMatter) {
  constexpr int64_t kRows = 9, kCols = 100;
  const TestMatrix w(dtype(), kRows, kCols, 17);
  const std::vector<float> x = RandomFloats(kCols, 18);
  const std::vector<float> expected = Linear(x, 1, w);
  const TestActivations aligned(kernels(), dtype(), x, 1, kCols);
  for (int64_t shift = 4; shift < 64; shift += 4) {
    std::vector<char> moved(shift + aligned.stride());
    std::memcpy(moved.data() + shift, aligned.token(0), aligned.stride());
    std::vector<float> out(kRows);
    kernels().dot_rows[type_index()](moved.data() + shift, kCols, w.rows(), kRows, nullptr, 0,
                                     out.data());
    ASSERT_TRUE(SameBits(out, expected)) << "shift " << shift;
  }
}

}  // namespace
}  // namespace lacuna
