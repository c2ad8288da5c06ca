#ifndef LACUNA_KERNELS_CPU_DOT_INL_H_
#define LACUNA_KERNELS_CPU_DOT_INL_H_

#include "kernels/base/row_matrix.h"
#include "kernels/cpu/simd.h"

namespace lacuna {

// dot_rows and linear of KernelTable over a vector type V (simd.h). W is float or Bf16.
//
// Everything is a call of Dots, so that a list of rows and a whole matrix, one token and many, give
// the same bits. It computes a tile of outputs at a time in registers; the operations on one output
// do not depend on the tile it falls into.
template <class V>
struct DotKernels {
  using F = typename V::F;
  static constexpr int kTileTokens = V::kTileTokens;

  // A dot product is the sum, in order, of the sums over blocks of this many elements; each block
  // is added into kLanes partial sums. A block of the 4 rows and kTileTokens tokens of a tile, at
  // most (4 + 6) * 4 KiB, stays in an L1 cache of 48 KiB.
  static constexpr int64_t kBlock = 1024;
  // Bytes of x, at most, that one pass over the weights uses: half of an L2 cache of 2 MiB.
  static constexpr int64_t kTokenBytes = 1 << 20;

  // y[t*y_stride + r] = (add ? itself : 0) + sum over i in [0, n) of x[t][i] * rows[r][begin + i].
  // `next` are R rows to prefetch, since they are needed after these.
  template <class W, int T, int R>
  static void DotTile(const float* x, int64_t x_stride, const void* const* rows,
                      const void* const* next, int64_t begin, int64_t n, bool add, float* y,
                      int64_t y_stride) {
    F sum[T][R] = {};
    const W* row[R];
    LACUNA_UNROLL
    for (int r = 0; r < R; ++r) row[r] = static_cast<const W*>(rows[r]) + begin;
    ForVectors<V>(n, [&](int64_t i, int64_t m) LACUNA_INLINE_LAMBDA {
      LACUNA_UNROLL
      for (int r = 0; r < R; ++r) Prefetch<W>(next[r], begin + i);
      F xs[T];
      LACUNA_UNROLL
      for (int t = 0; t < T; ++t) xs[t] = LoadN<V>(x + t * x_stride + i, m);
      LACUNA_UNROLL
      for (int r = 0; r < R; ++r) {
        const F w = LoadN<V>(row[r] + i, m);
        LACUNA_UNROLL
        for (int t = 0; t < T; ++t) sum[t][r] = V::Fma(xs[t], w, sum[t][r]);
      }
    });
    LACUNA_UNROLL
    for (int t = 0; t < T; ++t) {
      float total[R];
      if constexpr (R % 4 == 0) {
        LACUNA_UNROLL
        for (int r = 0; r < R; r += 4) {
          V::Sum4(sum[t][r], sum[t][r + 1], sum[t][r + 2], sum[t][r + 3], total + r);
        }
      } else {
        LACUNA_UNROLL
        for (int r = 0; r < R; ++r) total[r] = V::Sum(sum[t][r]);
      }
      float* out = y + t * y_stride;
      LACUNA_UNROLL
      for (int r = 0; r < R; ++r) out[r] = add ? out[r] + total[r] : total[r];
    }
  }

  // DotTile for `tokens` <= T.
  template <class W, int T, int R>
  static LACUNA_INLINE void DotTileOf(const float* x, int64_t x_stride, int64_t tokens,
                                      const void* const* rows, const void* const* next,
                                      int64_t begin, int64_t n, bool add, float* y,
                                      int64_t y_stride) {
    if (tokens == T) return DotTile<W, T, R>(x, x_stride, rows, next, begin, n, add, y, y_stride);
    if constexpr (T > 1) {
      DotTileOf<W, T - 1, R>(x, x_stride, tokens, rows, next, begin, n, add, y, y_stride);
    }
  }

  // DotTile for any number of tokens: as few tiles of at most T tokens as possible, of about the
  // same size.
  template <class W, int T, int R>
  static void DotTokens(const float* x, int64_t x_stride, int64_t tokens, const void* const* rows,
                        const void* const* next, int64_t begin, int64_t n, bool add, float* y,
                        int64_t y_stride) {
    int64_t t = 0;
    for (int64_t tiles = (tokens + T - 1) / T; tiles > 0; --tiles) {
      const int64_t count = (tokens - t + tiles - 1) / tiles;
      DotTileOf<W, T, R>(x + t * x_stride, x_stride, count, rows, next, begin, n, add,
                         y + t * y_stride, y_stride);
      t += count;
    }
  }

  // y[t*y_stride + r] = x[t] . rows[r] for all tokens, in tiles of R rows and at most T tokens, for
  // r from `done` on while R rows are left of n; returns the new `done`.
  template <class W, int T, int R>
  static int64_t DotRowTiles(const float* x, int64_t x_stride, int64_t tokens,
                             const void* const* rows, int64_t done, int64_t n, int64_t k, float* y,
                             int64_t y_stride) {
    for (; done + R <= n; done += R) {
      const void* const* row = rows + done;
      const int64_t ahead = R * TilesAhead(R * k * static_cast<int64_t>(sizeof(W)));
      const void* const* next = done + ahead + R <= n ? row + ahead : row;
      int64_t begin = 0;
      do {  // also once for k = 0, to write zeros
        const int64_t m = k - begin < kBlock ? k - begin : kBlock;
        if (tokens <= int64_t{2} * T) {
          DotTokens<W, T, R>(x + begin, x_stride, tokens, row, next, begin, m, begin > 0, y + done,
                             y_stride);
        } else {  // from three tiles on it pays to widen first, into one run of memory
          alignas(64) float wide[R][kBlock];
          const void* wide_rows[R];
          for (int r = 0; r < R; ++r) {
            wide_rows[r] = wide[r];
            ForVectors<V>(m, [&](int64_t i, int64_t lanes) LACUNA_INLINE_LAMBDA {
              Prefetch<W>(next[r], begin + i);
              V::Store(wide[r] + i, LoadN<V>(static_cast<const W*>(row[r]) + begin + i, lanes));
            });
          }
          DotTokens<float, T, R>(x + begin, x_stride, tokens, wide_rows, wide_rows, 0, m, begin > 0,
                                 y + done, y_stride);
        }
        begin += m;
      } while (begin < k);
    }
    return done;
  }

  // y[t*y_stride + r] = x[t] . rows[r] for t in [0, tokens) and r in [0, n).
  template <class W>
  static void Dots(const float* x, int64_t x_stride, int64_t tokens, const void* const* rows,
                   int64_t n, int64_t k, float* y, int64_t y_stride) {
    constexpr int T = kTileTokens;
    int64_t done = 0;
    // One token needs 8 rows for enough independent sums to hide the latency of Fma.
    if (tokens == 1) done = DotRowTiles<W, 1, 8>(x, x_stride, 1, rows, 0, n, k, y, y_stride);
    done = DotRowTiles<W, T, 4>(x, x_stride, tokens, rows, done, n, k, y, y_stride);
    DotRowTiles<W, T, 1>(x, x_stride, tokens, rows, done, n, k, y, y_stride);
  }

  template <class W>
  static void DotRows(const void* x, int64_t k, const void* const* rows, int64_t n,
                      const void* const* ahead, int64_t num_ahead, float* out) {
    Fetcher fetcher(ahead, num_ahead, k * static_cast<int64_t>(sizeof(W)));
    fetcher.FetchRest();
    Dots<W>(static_cast<const float*>(x), k, 1, rows, n, k, out, n);
  }

  template <class W>
  static void Linear(const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
                     int64_t row_begin, int64_t row_end, const float* bias, float* y,
                     int64_t y_stride) {
    const float* xs = static_cast<const float*>(x);
    const int64_t stride = x_stride / static_cast<int64_t>(sizeof(float));
    const int64_t x_bytes = tokens * w.cols * static_cast<int64_t>(sizeof(float));
    int64_t t = 0;
    for (int64_t chunks = x_bytes / kTokenBytes + 1; t < tokens; --chunks) {
      const int64_t count = (tokens - t + chunks - 1) / chunks;
      float* out = y + t * y_stride;
      ForRowBatches(w, row_begin, row_end,
                    [&](int64_t r, const void* const* rows, int64_t n) LACUNA_INLINE_LAMBDA {
                      Dots<W>(xs + t * stride, stride, count, rows, n, w.cols, out + r, y_stride);
                    });
      t += count;
      if (bias == nullptr) continue;
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t r = row_begin; r < row_end; ++r) out[i * y_stride + r] += bias[r];
      }
    }
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_DOT_INL_H_
