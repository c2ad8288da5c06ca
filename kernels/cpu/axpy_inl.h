#ifndef LACUNA_KERNELS_CPU_AXPY_INL_H_
#define LACUNA_KERNELS_CPU_AXPY_INL_H_

#include "kernels/base/row_matrix.h"
#include "kernels/cpu/simd.h"

namespace lacuna {

// axpy_rows and linear_transposed of KernelTable over a vector type V (simd.h). W is float or Bf16.
//
// Everything is a call of Axpys, so that a list of rows and a whole matrix, one token and many,
// give the same bits. It computes a tile of outputs at a time in registers; the operations on one
// output do not depend on the tile it falls into.
template <class V>
struct AxpyKernels {
  using F = typename V::F;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int kTileTokens = V::kTileTokens;

  // Rows per pass over y when every row comes from memory.
  static constexpr int64_t kPassRows = 8;
  // A packed block of weights: 128 rows of 4 vectors, which are 32 KiB at 16 lanes.
  static constexpr int64_t kPackRows = 128;
  static constexpr int64_t kPackCols = 4 * kLanes;

  // y[t*y_stride + c] += sum over j in [0, n) of a[t*a_stride + j] * rows[j][begin + c], ascending
  // j, for c in [0, C * kLanes), or with C = 1 for c in [0, m).
  template <class W, int T, int C>
  static LACUNA_INLINE void AxpyTile(const float* a, int64_t a_stride, const void* const* rows,
                                     int64_t n, int64_t begin, int64_t m, float* y,
                                     int64_t y_stride) {
    F sum[T][C];
    LACUNA_UNROLL
    for (int t = 0; t < T; ++t) {
      LACUNA_UNROLL
      for (int c = 0; c < C; ++c) sum[t][c] = LoadN<V>(y + t * y_stride + c * kLanes, m);
    }
    for (int64_t j = 0; j < n; ++j) {
      const W* row = static_cast<const W*>(rows[j]) + begin;
      F as[T];
      LACUNA_UNROLL
      for (int t = 0; t < T; ++t) as[t] = V::Set(a[t * a_stride + j]);
      LACUNA_UNROLL
      for (int c = 0; c < C; ++c) {
        const F w = LoadN<V>(row + c * kLanes, m);
        LACUNA_UNROLL
        for (int t = 0; t < T; ++t) sum[t][c] = V::Fma(as[t], w, sum[t][c]);
      }
    }
    LACUNA_UNROLL
    for (int t = 0; t < T; ++t) {
      LACUNA_UNROLL
      for (int c = 0; c < C; ++c) StoreN<V>(y + t * y_stride + c * kLanes, m, sum[t][c]);
    }
  }

  // The same for T tokens and any number of columns, prefetching the `ahead` rows after these.
  template <class W, int T>
  static void AxpyColumns(const float* a, int64_t a_stride, const void* const* rows, int64_t n,
                          int64_t ahead, int64_t cols, float* y, int64_t y_stride) {
    int64_t c = 0;
    for (; c + 4 * kLanes <= cols; c += 4 * kLanes) {
      for (int64_t j = n; j < n + ahead; ++j) {
        LACUNA_UNROLL
        for (int64_t i = 0; i < 4 * kLanes; i += 64 / sizeof(W)) Prefetch<W>(rows[j], c + i);
      }
      AxpyTile<W, T, 4>(a, a_stride, rows, n, c, kLanes, y + c, y_stride);
    }
    for (; c + kLanes <= cols; c += kLanes) {
      AxpyTile<W, T, 1>(a, a_stride, rows, n, c, kLanes, y + c, y_stride);
    }
    if (c < cols) AxpyTile<W, T, 1>(a, a_stride, rows, n, c, cols - c, y + c, y_stride);
  }

  // AxpyColumns for `tokens` <= T.
  template <class W, int T>
  static LACUNA_INLINE void AxpyColumnsOf(const float* a, int64_t a_stride, int64_t tokens,
                                          const void* const* rows, int64_t n, int64_t ahead,
                                          int64_t cols, float* y, int64_t y_stride) {
    if (tokens == T) return AxpyColumns<W, T>(a, a_stride, rows, n, ahead, cols, y, y_stride);
    if constexpr (T > 1) {
      AxpyColumnsOf<W, T - 1>(a, a_stride, tokens, rows, n, ahead, cols, y, y_stride);
    }
  }

  // AxpyColumns for any number of tokens, in as few tiles as possible, of about the same size.
  template <class W>
  static void AxpyTokens(const float* a, int64_t a_stride, int64_t tokens, const void* const* rows,
                         int64_t n, int64_t ahead, int64_t cols, float* y, int64_t y_stride) {
    int64_t t = 0;
    for (int64_t tiles = (tokens + kTileTokens - 1) / kTileTokens; tiles > 0; --tiles) {
      const int64_t count = (tokens - t + tiles - 1) / tiles;
      AxpyColumnsOf<W, kTileTokens>(a + t * a_stride, a_stride, count, rows, n, ahead, cols,
                                    y + t * y_stride, y_stride);
      t += count;
    }
  }

  // y[t*y_stride + c] += sum over j in [0, n) of a[t*a_stride + j] * rows[j][c], ascending j, for
  // t in [0, tokens) and c in [0, cols).
  template <class W>
  static void Axpys(const float* a, int64_t a_stride, int64_t tokens, const void* const* rows,
                    int64_t n, int64_t cols, float* y, int64_t y_stride) {
    if (tokens <= int64_t{2} * kTileTokens) {
      for (int64_t j = 0; j < n; j += kPassRows) {
        const int64_t m = n - j < kPassRows ? n - j : kPassRows;
        const int64_t left = n - j - m;
        const int64_t ahead = left < kPassRows ? left : kPassRows;
        AxpyTokens<W>(a + j, a_stride, tokens, rows + j, m, ahead, cols, y, y_stride);
      }
      return;
    }
    // From three tiles on it pays to pack a block of the weights first.
    alignas(64) float packed[kPackRows][kPackCols];
    const void* packed_rows[kPackRows];
    for (int64_t j = 0; j < kPackRows; ++j) packed_rows[j] = packed[j];
    for (int64_t j = 0; j < n; j += kPackRows) {
      const int64_t m = n - j < kPackRows ? n - j : kPackRows;
      for (int64_t c = 0; c < cols; c += kPackCols) {
        const int64_t width = cols - c < kPackCols ? cols - c : kPackCols;
        for (int64_t i = 0; i < m; ++i) {
          ForVectors<V>(width, [&](int64_t q, int64_t lanes) LACUNA_INLINE_LAMBDA {
            if (c + q + kPackCols < cols) Prefetch<W>(rows[j + i], c + q + kPackCols);
            V::Store(packed[i] + q, LoadN<V>(static_cast<const W*>(rows[j + i]) + c + q, lanes));
          });
        }
        AxpyTokens<float>(a + j, a_stride, tokens, packed_rows, m, 0, width, y + c, y_stride);
      }
    }
  }

  template <class W>
  static void AxpyRows(const float* a, const void* const* rows, int64_t n, int64_t cols, float* y) {
    Axpys<W>(a, n, 1, rows, n, cols, y, cols);
  }

  template <class W>
  static void LinearTransposed(const float* a, int64_t a_stride, int64_t tokens, const RowMatrix& w,
                               int64_t col_begin, int64_t col_end, float* y, int64_t y_stride) {
    ForRowBatches<W>(w, 0, w.rows, col_begin,
                     [&](int64_t r, const void* const* rows, int64_t n) LACUNA_INLINE_LAMBDA {
                       Axpys<W>(a + r, a_stride, tokens, rows, n, col_end - col_begin,
                                y + col_begin, y_stride);
                     });
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_AXPY_INL_H_
