#ifndef LACUNA_KERNELS_CPU_AXPY_INL_H_
#define LACUNA_KERNELS_CPU_AXPY_INL_H_

#include "kernels/base/kernel_table.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cpu/quantize_inl.h"
#include "kernels/cpu/simd.h"

namespace lacuna {

// axpy_rows, axpy_lists and linear_transposed of KernelTable over a vector type V (simd.h). W is
// float, Bf16, Int8 or Int4.
//
// Weights are widened to floats, exactly, and added by one multiply-add each in ascending order of
// the rows, so that a list of rows and a whole matrix, one token and many, give the same bits. A
// tile of outputs at a time is in registers; the operations on one output do not depend on the tile
// it falls into.
template <class V>
struct AxpyKernels {
  using F = typename V::F;
  using Quantize = QuantizeKernels<V>;
  template <class W>
  using Scales = typename Quantize::template Scales<W>;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int kTileTokens = V::kTileTokens;

  // Rows per pass over y when every row comes from memory.
  static constexpr int64_t kPassRows = 8;
  // Rows between what is fetched from memory and what is read, of quantized rows and one token.
  static constexpr int64_t kAheadRows = 2 * kPassRows;
  // Listed tokens that share a quantized row, on average, from which on it pays to pack it.
  static constexpr int64_t kPackUses = 4;
  // With fewer, the bytes of rows, about, that all tokens take from the L2 cache while the next are
  // fetched, and how many rows that is at most.
  static constexpr int64_t kListBytes = 128 << 10;
  static constexpr int64_t kMaxListRows = 512;
  // A packed block of weights, widened: 24 KiB, which leaves room beside it in a first-level cache.
  static constexpr int64_t kPackRows = 48;
  static constexpr int64_t kPackCols = 128;
  struct alignas(64) Packed {
    float rows[kPackRows][kPackCols];
  };

  template <class W>
  static constexpr bool kFloat = sizeof(W) > 1;  // Int8 and Int4 are empty structs

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

  // The same for T tokens and columns begin + [0, cols), prefetching rows [ahead_begin, ahead_end).
  template <class W, int T>
  static void AxpyColumns(const float* a, int64_t a_stride, const void* const* rows, int64_t n,
                          int64_t ahead_begin, int64_t ahead_end, int64_t begin, int64_t cols,
                          float* y, int64_t y_stride) {
    int64_t c = 0;
    for (; c + 4 * kLanes <= cols; c += 4 * kLanes) {
      for (int64_t j = ahead_begin; j < ahead_end; ++j) {
        LACUNA_UNROLL
        for (int64_t i = 0; i < 4 * kLanes; i += 64 / sizeof(W)) {
          Prefetch<W>(rows[j], begin + c + i);
        }
      }
      AxpyTile<W, T, 4>(a, a_stride, rows, n, begin + c, kLanes, y + c, y_stride);
    }
    for (; c + kLanes <= cols; c += kLanes) {
      AxpyTile<W, T, 1>(a, a_stride, rows, n, begin + c, kLanes, y + c, y_stride);
    }
    if (c < cols) AxpyTile<W, T, 1>(a, a_stride, rows, n, begin + c, cols - c, y + c, y_stride);
  }

  // AxpyColumns for `tokens` <= T.
  template <class W, int T>
  static LACUNA_INLINE void AxpyColumnsOf(const float* a, int64_t a_stride, int64_t tokens,
                                          const void* const* rows, int64_t n, int64_t ahead_begin,
                                          int64_t ahead_end, int64_t begin, int64_t cols, float* y,
                                          int64_t y_stride) {
    if (tokens == T) {
      return AxpyColumns<W, T>(a, a_stride, rows, n, ahead_begin, ahead_end, begin, cols, y,
                               y_stride);
    }
    if constexpr (T > 1) {
      AxpyColumnsOf<W, T - 1>(a, a_stride, tokens, rows, n, ahead_begin, ahead_end, begin, cols, y,
                              y_stride);
    }
  }

  // AxpyColumns for any number of tokens, in as few tiles as possible, of about the same size.
  template <class W>
  static void AxpyTokens(const float* a, int64_t a_stride, int64_t tokens, const void* const* rows,
                         int64_t n, int64_t ahead_begin, int64_t ahead_end, int64_t begin,
                         int64_t cols, float* y, int64_t y_stride) {
    int64_t t = 0;
    for (int64_t tiles = CeilDiv(tokens, kTileTokens); tiles > 0; --tiles) {
      const int64_t count = CeilDiv(tokens - t, tiles);
      AxpyColumnsOf<W, kTileTokens>(a + t * a_stride, a_stride, count, rows, n, ahead_begin,
                                    ahead_end, begin, cols, y + t * y_stride, y_stride);
      t += count;
    }
  }

  // packed[i][c] = rows[i][begin + c] for i in [0, n) and c in [0, width), width <= kPackCols;
  // fetches the same part of the columns that follow into the cache. Whole vectors of quantized
  // rows are packed in byte order (QuantizeKernels).
  template <class W>
  static void Pack(const void* const* rows, int64_t n, int64_t cols, int64_t begin, int64_t width,
                   Packed* packed) {
    for (int64_t i = 0; i < n; ++i) {
      float* out = packed->rows[i];
      if constexpr (kFloat<W>) {
        const W* row = static_cast<const W*>(rows[i]) + begin;
        ForVectors<V>(width, [&](int64_t c, int64_t m) LACUNA_INLINE_LAMBDA {
          if (begin + c + kPackCols < cols) Prefetch<W>(row, c + kPackCols);
          V::Store(out + c, LoadN<V>(row + c, m));
        });
      } else {
        constexpr int64_t kSlice = W::kVectors * kVectorElements;
        constexpr int kRegisters = Quantize::kRegisters;
        const Scales<W> scales =
            Quantize::template LoadScales<W>(rows[i], cols, begin / kBlockElements);
        for (int64_t c = 0; c < width; c += kSlice) {
          __builtin_prefetch(
              static_cast<const char*>(rows[i]) + (begin + c + kPackCols) / W::kVectors, 0, 2);
          F slice[W::kVectors * kRegisters];
          Quantize::template LoadSlice<W>(rows[i], begin + c, scales, slice);
          LACUNA_UNROLL
          for (int r = 0; r < W::kVectors * kRegisters; ++r) {
            V::Store(out + c + r * kLanes, slice[r]);
          }
        }
        if (width % kVectorElements != 0) {
          Quantize::FromByteOrder(out + width / kVectorElements * kVectorElements);
        }
      }
    }
  }

  // Whole vectors of columns [begin, end) of y to byte order, and back, for quantized rows.
  template <class W>
  static void ToByteOrder(int64_t tokens, int64_t begin, int64_t end, float* y, int64_t y_stride) {
    if constexpr (kFloat<W>) return;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = begin; c + kVectorElements <= end; c += kVectorElements) {
        Quantize::ToByteOrder(y + t * y_stride + c);
      }
    }
  }
  template <class W>
  static void FromByteOrder(int64_t tokens, int64_t begin, int64_t end, float* y,
                            int64_t y_stride) {
    if constexpr (kFloat<W>) return;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = begin; c + kVectorElements <= end; c += kVectorElements) {
        Quantize::FromByteOrder(y + t * y_stride + c);
      }
    }
  }

  // Calls f(first, width) for runs of at most kPackCols columns of [begin, end), none of which
  // crosses a multiple of kPackCols.
  template <class Function>
  static LACUNA_INLINE void ForPackedColumns(int64_t begin, int64_t end, Function f) {
    for (int64_t c = begin; c < end;) {
      int64_t width = kPackCols - c % kPackCols;
      if (width > end - c) width = end - c;
      f(c, width);
      c += width;
    }
  }

  // What fetches columns [begin, end) of n quantized rows of `cols` elements, and their scales.
  template <class W>
  static LACUNA_INLINE Fetcher ColumnFetcher(const void* const* rows, int64_t n, int64_t cols,
                                             int64_t begin, int64_t end) {
    const int64_t first_block = begin / kBlockElements;
    const int64_t blocks = CeilDiv(end, kBlockElements) - first_block;
    return Fetcher(rows, n, begin / W::kVectors,
                   CeilDiv(end - begin, W::kVectors * kVectorElements),
                   CodeBytes(W::kType, cols) + first_block * kBlockGroups * 2,
                   CeilDiv(blocks * kBlockGroups * 2, 64));
  }

  // One token and quantized rows; y in byte order. Meanwhile `ahead` fetches `lines` for each slice
  // of kPassRows rows.
  template <class W>
  static void AxpyQuantized(const float* a, const void* const* rows, int64_t n, int64_t cols,
                            int64_t begin, int64_t end, Fetcher* ahead, int64_t lines, float* y) {
    constexpr int64_t kSlice = W::kVectors * kVectorElements;
    // The vectors of the last, shorter slice in full.
    const int64_t whole = begin + (end - begin) / kSlice * kSlice;
    alignas(64) float rest[kSlice] = {};
    __builtin_memcpy(rest, y + whole, (end - whole) * sizeof(float));
    const int64_t shorter = (end - whole) / kVectorElements;
    if ((end - whole) % kVectorElements != 0) {
      Quantize::ToByteOrder(rest + shorter * kVectorElements);
    }
    Scales<W> scales[kPassRows];
    for (int64_t j = 0; j < n; j += kPassRows) {
      const int64_t m = n - j < kPassRows ? n - j : kPassRows;
      const int64_t left = n - j - m;
      const int64_t next = left < kPassRows ? left : kPassRows;
      int64_t block = -1;
      for (int64_t c = begin; c < end; c += kSlice) {
        if (c / kBlockElements != block) {
          block = c / kBlockElements;
          for (int64_t i = 0; i < m; ++i) {
            scales[i] = Quantize::template LoadScales<W>(rows[j + i], cols, block);
          }
        }
        ahead->Fetch(lines);
        for (int64_t i = m; i < m + next; ++i) {
          __builtin_prefetch(static_cast<const char*>(rows[j + i]) + c / W::kVectors, 0, 3);
        }
        AxpySlice<W>(a + j, rows + j, m, c, scales, c < whole ? y + c : rest);
      }
    }
    if ((end - whole) % kVectorElements != 0) {
      Quantize::FromByteOrder(rest + shorter * kVectorElements);
    }
    __builtin_memcpy(y + whole, rest, (end - whole) * sizeof(float));
  }

  // One slice of y, in byte order, for n <= kPassRows rows.
  template <class W>
  static LACUNA_INLINE void AxpySlice(const float* a, const void* const* rows, int64_t n, int64_t c,
                                      const Scales<W>* scales, float* y) {
    LACUNA_UNROLL
    for (int q = 0; q < Quantize::kParts; ++q) {
      F sum[W::kVectors][4];
      const auto out = [&](int v, int b) LACUNA_INLINE_LAMBDA {
        return y + v * kVectorElements + b * kBlockGroups + q * kLanes;
      };
      LACUNA_UNROLL
      for (int v = 0; v < W::kVectors; ++v) {
        LACUNA_UNROLL
        for (int b = 0; b < 4; ++b) sum[v][b] = V::Load(out(v, b));
      }
      for (int64_t i = 0; i < n; ++i) {
        const char* codes = static_cast<const char*>(rows[i]) + c / W::kVectors + 4 * q * kLanes;
        const F factor = V::Set(a[i]);
        Quantize::template ForValues<W>(codes, [&](int v, int b, F value) LACUNA_INLINE_LAMBDA {
          const F w = V::Fma(value, scales[i].scale[q], scales[i].offset[v][q]);
          sum[v][b] = V::Fma(factor, w, sum[v][b]);
        });
      }
      LACUNA_UNROLL
      for (int v = 0; v < W::kVectors; ++v) {
        LACUNA_UNROLL
        for (int b = 0; b < 4; ++b) V::Store(out(v, b), sum[v][b]);
      }
    }
  }

  // y[t*y_stride + c] += sum over j in [0, n) of a[t*a_stride + j] * rows[j][c], ascending j, for
  // t in [0, tokens) and c in [begin, end); for quantized rows y is in byte order.
  template <class W>
  static void Axpys(const float* a, int64_t a_stride, int64_t tokens, const void* const* rows,
                    int64_t n, int64_t cols, int64_t begin, int64_t end, float* y,
                    int64_t y_stride) {
    if constexpr (kFloat<W>) {
      if (tokens <= int64_t{2} * kTileTokens) {
        const int64_t pass_bytes = kPassRows * (end - begin) * static_cast<int64_t>(sizeof(W));
        const int64_t ahead = kPassRows * TilesAhead(pass_bytes);
        for (int64_t j = 0; j < n; j += kPassRows) {
          const int64_t m = n - j < kPassRows ? n - j : kPassRows;
          const int64_t left = n - j < ahead + kPassRows ? n - j : ahead + kPassRows;
          AxpyTokens<W>(a + j, a_stride, tokens, rows + j, m, ahead, left, begin, end - begin,
                        y + begin, y_stride);
        }
        return;
      }
    } else if (tokens == 1) {
      const int64_t first = n < kAheadRows ? n : kAheadRows;
      Fetcher now = ColumnFetcher<W>(rows, first, cols, begin, end);
      now.FetchRest();
      Fetcher ahead = ColumnFetcher<W>(rows + first, n - first, cols, begin, end);
      return AxpyQuantized<W>(a, rows, n, cols, begin, end, &ahead, kPassRows + 1, y);
    }
    // For more tokens it pays to pack a block of the weights first.
    Packed packed;
    const void* packed_rows[kPackRows];
    for (int64_t j = 0; j < kPackRows; ++j) packed_rows[j] = packed.rows[j];
    for (int64_t j = 0; j < n; j += kPackRows) {
      const int64_t m = n - j < kPackRows ? n - j : kPackRows;
      ForPackedColumns(begin, end, [&](int64_t c, int64_t width) LACUNA_INLINE_LAMBDA {
        Pack<W>(rows + j, m, cols, c, width, &packed);
        AxpyTokens<float>(a + j, a_stride, tokens, packed_rows, m, 0, 0, 0, width, y + c, y_stride);
      });
    }
  }

  // y[c] += sum over i in [begin, end) of a[i] * packed.rows[index[i] - first][column + c], for c
  // in [0, C * kLanes), or with C = 1 for c in [0, m).
  template <int C>
  static LACUNA_INLINE void CombineTile(const Packed& packed, int64_t first,
                                        const RowCombination& token, int64_t begin, int64_t end,
                                        int64_t column, int64_t m, float* y) {
    F sum[C];
    LACUNA_UNROLL
    for (int c = 0; c < C; ++c) sum[c] = LoadN<V>(y + c * kLanes, m);
    for (int64_t i = begin; i < end; ++i) {
      const F a = V::Set(token.a[i]);
      const float* row = packed.rows[token.index[i] - first] + column;
      LACUNA_UNROLL
      for (int c = 0; c < C; ++c) sum[c] = V::Fma(a, V::Load(row + c * kLanes), sum[c]);
    }
    LACUNA_UNROLL
    for (int c = 0; c < C; ++c) StoreN<V>(y + c * kLanes, m, sum[c]);
  }

  // AxpyLists for quantized rows.
  template <class W>
  static void AxpyQuantizedLists(const void* const* rows, int64_t num_rows, int64_t cols,
                                 const RowCombination* tokens, int64_t num_tokens, int64_t begin,
                                 int64_t end, float* y, int64_t y_stride) {
    const int64_t slices = CeilDiv(end - begin, W::kVectors * kVectorElements);
    int64_t pass = kListBytes / (64 * slices + 1) + 1;
    if (pass > kMaxListRows) pass = kMaxListRows;
    // The part of each token's list that falls into a pass.
    int64_t from[KernelTable::kMaxListTokens];
    int64_t to[KernelTable::kMaxListTokens] = {};
    const void* listed[kMaxListRows];
    ToByteOrder<W>(num_tokens, begin, end, y, y_stride);
    Fetcher now = ColumnFetcher<W>(rows, pass < num_rows ? pass : num_rows, cols, begin, end);
    now.FetchRest();
    for (int64_t first = 0; first < num_rows; first += pass) {
      const int64_t last = first + pass < num_rows ? first + pass : num_rows;
      int64_t steps = 1;
      for (int64_t t = 0; t < num_tokens; ++t) {
        from[t] = to[t];
        while (to[t] < tokens[t].n && tokens[t].index[to[t]] < last) ++to[t];
        steps += CeilDiv(to[t] - from[t], kPassRows) * slices;
      }
      const int64_t left = num_rows - last;
      Fetcher ahead = ColumnFetcher<W>(rows + last, left < pass ? left : pass, cols, begin, end);
      const int64_t lines = CeilDiv(ahead.lines(), steps);
      for (int64_t t = 0; t < num_tokens; ++t) {
        const RowCombination& token = tokens[t];
        for (int64_t i = from[t]; i < to[t]; ++i) listed[i - from[t]] = rows[token.index[i]];
        AxpyQuantized<W>(token.a + from[t], listed, to[t] - from[t], cols, begin, end, &ahead,
                         lines, y + t * y_stride);
      }
    }
    FromByteOrder<W>(num_tokens, begin, end, y, y_stride);
  }

  template <class W>
  static void AxpyLists(const void* const* rows, int64_t num_rows, int64_t cols,
                        const RowCombination* tokens, int64_t num_tokens, int64_t begin,
                        int64_t end, float* y, int64_t y_stride) {
    if constexpr (!kFloat<W>) {
      int64_t pairs = 0;
      for (int64_t t = 0; t < num_tokens; ++t) pairs += tokens[t].n;
      if (pairs < kPackUses * num_rows) {
        return AxpyQuantizedLists<W>(rows, num_rows, cols, tokens, num_tokens, begin, end, y,
                                     y_stride);
      }
    }
    Packed packed;
    // The part of each token's list that falls into the rows packed.
    int64_t from[KernelTable::kMaxListTokens];
    int64_t to[KernelTable::kMaxListTokens] = {};
    ToByteOrder<W>(num_tokens, begin, end, y, y_stride);
    for (int64_t first = 0; first < num_rows; first += kPackRows) {
      const int64_t n = num_rows - first < kPackRows ? num_rows - first : kPackRows;
      for (int64_t t = 0; t < num_tokens; ++t) {
        from[t] = to[t];
        while (to[t] < tokens[t].n && tokens[t].index[to[t]] < first + n) ++to[t];
      }
      ForPackedColumns(begin, end, [&](int64_t column, int64_t width) LACUNA_INLINE_LAMBDA {
        Pack<W>(rows + first, n, cols, column, width, &packed);
        for (int64_t t = 0; t < num_tokens; ++t) {
          float* out = y + t * y_stride + column;
          int64_t c = 0;
          for (; c + 8 * kLanes <= width; c += 8 * kLanes) {
            CombineTile<8>(packed, first, tokens[t], from[t], to[t], c, kLanes, out + c);
          }
          for (; c < width; c += kLanes) {
            const int64_t m = width - c < kLanes ? width - c : kLanes;
            CombineTile<1>(packed, first, tokens[t], from[t], to[t], c, m, out + c);
          }
        }
      });
    }
    FromByteOrder<W>(num_tokens, begin, end, y, y_stride);
  }

  template <class W>
  static void AxpyRows(const float* a, const void* const* rows, int64_t n, int64_t cols,
                       int64_t begin, int64_t end, float* y) {
    ToByteOrder<W>(1, begin, end, y, 0);
    Axpys<W>(a, n, 1, rows, n, cols, begin, end, y, 0);
    FromByteOrder<W>(1, begin, end, y, 0);
  }

  template <class W>
  static void LinearTransposed(const float* a, int64_t a_stride, int64_t tokens, const RowMatrix& w,
                               int64_t begin, int64_t end, float* y, int64_t y_stride) {
    ToByteOrder<W>(tokens, begin, end, y, y_stride);
    ForRowBatches(w, 0, w.rows,
                  [&](int64_t r, const void* const* rows, int64_t n) LACUNA_INLINE_LAMBDA {
                    Axpys<W>(a + r, a_stride, tokens, rows, n, w.cols, begin, end, y, y_stride);
                  });
    FromByteOrder<W>(tokens, begin, end, y, y_stride);
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_AXPY_INL_H_
