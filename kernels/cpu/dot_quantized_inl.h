#ifndef LACUNA_KERNELS_CPU_DOT_QUANTIZED_INL_H_
#define LACUNA_KERNELS_CPU_DOT_QUANTIZED_INL_H_

#include "kernels/base/quantized_row.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cpu/simd.h"

namespace lacuna {

// dot_rows and linear of KernelTable for quantized rows over a vector type V (simd.h). W is Int8,
// Int4 or Int2. A dot product is the sum, in order of the blocks, of the integer sums of the groups
// times their two scales, in kLanes partial sums: the same operations in every tile, so that a list
// of rows and a whole matrix, one token and many, give the same bits.
template <class V>
struct QuantizedDotKernels {
  using F = typename V::F;
  using I = typename V::I;
  using B = typename V::B;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kRegisterBytes = 4 * kLanes;
  static constexpr int kDotTokens = V::kDotTokens;

  // Bytes of activations, at most, that one pass over the weights uses: half of an L2 cache of
  // 2 MiB.
  static constexpr int64_t kTokenBytes = 1 << 20;
  // What is fetched of a row ahead of a single token, which soon gets there: from then on hardware
  // follows, with more requests in flight.
  static constexpr int64_t kHeadBytes = 1024;
  // Between what is fetched from memory for a single token and what is read, on AMD: rows of a
  // list, bytes of a whole matrix.
  static constexpr int64_t kAheadRows = 16;
  static constexpr int64_t kStreamBytes = 6 << 10;
  // From how many tokens on rows are fetched two tiles ahead and evenly (bench/README.md).
  static constexpr int64_t kEvenTokens = 9;
  // Whether Dot8 or Dot4 takes other bytes than are stored. From kUnpackTokens on it pays to unpack
  // such rows first.
  template <class W>
  static constexpr bool kNeedUnpacking = W::kType != DType::kInt8 || V::kInt8Offset == 0;
  static constexpr int64_t kUnpackTokens = 32;
  // Rows of up to this many elements are unpacked once for many tokens: 4 of them take 64 KiB.
  static constexpr int64_t kMaxUnpacked = 16384;

  // The codes of one row in the form that the integer products take, and its scales.
  struct Row {
    const char* codes;
    const Bf16* scales;
  };
  // One token's activations.
  struct Token {
    const char* codes;
    const float* scales;
    const int32_t* negative_sums;
  };

  // Rows that Unpack has unpacked: 64 bytes a vector in the form that Dot8, or Dot4, takes.
  template <class W>
  struct Unpacked {
    static constexpr DType kType = W::kType;
    static constexpr int64_t kVectors = 1;
  };

  template <class W, bool kUnpack>
  struct RowsOf {
    using Type = W;
  };
  template <class W>
  struct RowsOf<W, true> {
    using Type = Unpacked<W>;
  };

  template <class W>
  static LACUNA_INLINE Row RowAt(const void* row, int64_t k) {
    const char* codes = static_cast<const char*>(row);
    return {codes, reinterpret_cast<const Bf16*>(codes + CodeBytes(W::kType, k))};
  }
  static LACUNA_INLINE Token TokenAt(const void* x, int64_t x_stride, int64_t t, int64_t k) {
    const char* codes = static_cast<const char*>(x) + t * x_stride;
    const char* scales = codes + ActivationVectors(k) * kVectorElements;
    return {codes, reinterpret_cast<const float*>(scales),
            reinterpret_cast<const int32_t*>(scales + QuantizedBlocks(k) * kBlockGroups * 4)};
  }

  // What a sum of products begins with, to make up for the offset of the codes.
  template <DType kType>
  static LACUNA_INLINE I OffsetSum(const int32_t* negative_sums) {
    if constexpr (kType == DType::kInt4) return V::template ShiftLeft<3>(V::LoadI(negative_sums));
    if constexpr (kType == DType::kInt2) {
      const I sums = V::LoadI(negative_sums);
      return V::AddI(V::template ShiftLeft<1>(sums), sums);
    }
    if constexpr (V::kInt8Offset == 128) return V::template ShiftLeft<7>(V::LoadI(negative_sums));
    return I{};
  }

  // Of 64 bytes of codes, those of vector i as Dot4 takes them, or as Dot8 does: all of them.
  template <class W>
  static LACUNA_INLINE B Part(B codes, int i) {
    if constexpr (W::kVectors == 2) return i == 0 ? V::LowNibbles(codes) : V::HighNibbles(codes);
    if constexpr (W::kVectors == 4) {
      if (i == 0) return V::template TwiceCrumbs<0>(codes);
      if (i == 1) return V::template TwiceCrumbs<1>(codes);
      return i == 2 ? V::template TwiceCrumbs<2>(codes) : V::template TwiceCrumbs<3>(codes);
    }
    return codes;
  }

  // Rows that will be needed next, and how many of their lines to fetch for each register of codes
  // of every row of a tile, in 1 / kLineParts of a line. `due` is what has not come to a whole line
  // yet.
  static constexpr int kLinePartBits = 8;
  static constexpr int64_t kLineParts = 1 << kLinePartBits;
  struct Ahead {
    Fetcher fetcher;
    int64_t rate;
    int64_t due = kLineParts - 1;
  };

  // sums[t][r] += the products of one block of `vectors` vectors.
  template <class W, int T, int R>
  static LACUNA_INLINE void DotBlock(const Token* tokens, const Row* rows, int64_t block,
                                     int64_t vectors, Ahead* ahead, F (*sums)[R]) {
    constexpr DType kType = W::kType;
    const int64_t rate = ahead->rate;
    int64_t due = ahead->due;
    LACUNA_UNROLL
    for (int64_t group = 0; group < kBlockGroups; group += kLanes) {
      I acc[T][R];
      const char* x[T];
      const char* w[R];
      LACUNA_UNROLL
      for (int t = 0; t < T; ++t) {
        const I begin = OffsetSum<kType>(tokens[t].negative_sums + block * kBlockGroups + group);
        LACUNA_UNROLL
        for (int r = 0; r < R; ++r) acc[t][r] = begin;
        x[t] = tokens[t].codes + block * kBlockElements + 4 * group;
      }
      LACUNA_UNROLL
      for (int r = 0; r < R; ++r) {
        w[r] = rows[r].codes + block * kBlockElements / W::kVectors + 4 * group;
      }
      for (int64_t v = 0; v < vectors; v += W::kVectors) {
        due += rate;
        ahead->fetcher.Fetch(due >> kLinePartBits);
        due &= kLineParts - 1;
        B codes[R];
        LACUNA_UNROLL
        for (int r = 0; r < R; ++r) {
          codes[r] = V::LoadB(w[r] + v / W::kVectors * kVectorElements);
          if constexpr (__is_same(W, Int8)) codes[r] = V::Int8Codes(codes[r]);
        }
        LACUNA_UNROLL
        for (int i = 0; i < W::kVectors; ++i) {
          B part[R];
          LACUNA_UNROLL
          for (int r = 0; r < R; ++r) {
            part[r] = Part<W>(codes[r], i);
          }
          LACUNA_UNROLL
          for (int t = 0; t < T; ++t) {
            const B xs = V::LoadB(x[t] + (v + i) * kVectorElements);
            LACUNA_UNROLL
            for (int r = 0; r < R; ++r) {
              if constexpr (kType == DType::kInt8) {
                acc[t][r] = V::Dot8(acc[t][r], part[r], xs);
              } else {
                acc[t][r] = V::Dot4(acc[t][r], part[r], xs);
              }
            }
          }
        }
      }
      F scale[R];
      LACUNA_UNROLL
      for (int r = 0; r < R; ++r) scale[r] = V::Load(rows[r].scales + block * kBlockGroups + group);
      LACUNA_UNROLL
      for (int t = 0; t < T; ++t) {
        const F token_scale = V::Load(tokens[t].scales + block * kBlockGroups + group);
        LACUNA_UNROLL
        for (int r = 0; r < R; ++r) {
          sums[t][r] = V::Fma(V::ToFloat(acc[t][r]), scale[r] * token_scale, sums[t][r]);
        }
      }
    }
    ahead->due = due;
  }

  // y[t*y_stride + r] = x[t] . rows[r] for T tokens and R rows of k elements.
  template <class W, int T, int R>
  static void DotTile(const Token* tokens, const Row* rows, Ahead* ahead, int64_t k, float* y,
                      int64_t y_stride) {
    F sums[T][R] = {};
    const int64_t vectors = RowVectors(W::kType, k);
    for (int64_t block = 0; block < QuantizedBlocks(k); ++block) {
      const int64_t left = vectors - block * kBlockVectors;
      if (left >= kBlockVectors) {
        DotBlock<W, T, R>(tokens, rows, block, kBlockVectors, ahead, sums);
      } else {
        DotBlock<W, T, R>(tokens, rows, block, left, ahead, sums);
      }
    }
    LACUNA_UNROLL
    for (int t = 0; t < T; ++t) {
      float* out = y + t * y_stride;
      if constexpr (R % 4 == 0) {
        LACUNA_UNROLL
        for (int r = 0; r < R; r += 4) {
          V::Sum4(sums[t][r], sums[t][r + 1], sums[t][r + 2], sums[t][r + 3], out + r);
        }
      } else {
        LACUNA_UNROLL
        for (int r = 0; r < R; ++r) out[r] = V::Sum(sums[t][r]);
      }
    }
  }

  // DotTile for `count` <= T tokens.
  template <class W, int T, int R>
  static LACUNA_INLINE void DotTileOf(int64_t count, const Token* tokens, const Row* rows,
                                      Ahead* ahead, int64_t k, float* y, int64_t y_stride) {
    if (count == T) return DotTile<W, T, R>(tokens, rows, ahead, k, y, y_stride);
    if constexpr (T > 1) DotTileOf<W, T - 1, R>(count, tokens, rows, ahead, k, y, y_stride);
  }

  // What to fetch beside some tiles of rows of k elements.
  template <class W>
  static LACUNA_INLINE Ahead AheadOf(const Fetcher& fetcher, int64_t tiles, int64_t k,
                                     bool evenly = false) {
    const int64_t registers =
        tiles * (RowVectors(W::kType, k) / W::kVectors) * (kBlockGroups / kLanes);
    if (registers <= 0) return {fetcher, 0};
    if (evenly) return {fetcher, CeilDiv(fetcher.lines() * kLineParts, registers)};
    return {fetcher, CeilDiv(fetcher.lines(), registers) * kLineParts};
  }

  // DotTile for any number of tokens, in as few tiles of at most T as possible, of about the same
  // size.
  template <class W, int T, int R>
  static void DotTokens(const void* x, int64_t x_stride, int64_t tokens, const Row* rows,
                        Ahead* ahead, int64_t k, float* y, int64_t y_stride) {
    const int64_t tiles = CeilDiv(tokens, T);
    int64_t t = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t count = CeilDiv(tokens - t, tiles - tile);
      Token list[T];
      for (int64_t i = 0; i < count; ++i) list[i] = TokenAt(x, x_stride, t + i, k);
      DotTileOf<W, T, R>(count, list, rows, ahead, k, y + t * y_stride, y_stride);
      t += count;
    }
  }

  // A row's codes as Dot8 or Dot4 takes them.
  template <class W>
  static void Unpack(const void* row, int64_t k, char* out) {
    for (int64_t at = 0; at < CodeBytes(W::kType, k); at += kRegisterBytes) {
      const B codes = V::LoadB(static_cast<const char*>(row) + at);
      if constexpr (W::kType == DType::kInt8) {
        V::StoreB(out + at, V::Int8Codes(codes));
      } else {
        char* first =
            out + at / kVectorElements * W::kVectors * kVectorElements + at % kVectorElements;
        LACUNA_UNROLL
        for (int i = 0; i < W::kVectors; ++i) {
          V::StoreB(first + i * kVectorElements, Part<W>(codes, i));
        }
      }
    }
  }

  // What is fetched during the products of a list of rows: the rows given or, without any, the rows
  // that are `distance` places on in the list, of each the first `bytes`; evenly over the products,
  // or in whole lines, done somewhat sooner.
  struct Fetching {
    Ahead* given;
    int64_t distance;
    int64_t bytes;
    bool evenly = false;
  };

  // y[t*y_stride + r] = x[t] . rows[r] for all tokens, in tiles of R rows and T tokens, for r from
  // `done` on while R rows are left of n; returns the new `done`. With kUnpack, rows are unpacked
  // first; k <= kMaxUnpacked then.
  template <class W, int T, int R, bool kUnpack>
  static int64_t DotRowTiles(const void* x, int64_t x_stride, int64_t tokens,
                             const void* const* rows, int64_t done, int64_t n, int64_t k,
                             const Fetching& fetching, float* y, int64_t y_stride) {
    using Tiles = typename RowsOf<W, kUnpack>::Type;
    for (; done + R <= n; done += R) {
      const int64_t rest = n - done;
      const int64_t skip = rest < fetching.distance ? rest : fetching.distance;
      const int64_t count = rest - skip < R ? rest - skip : R;
      Ahead next = AheadOf<Tiles>(Fetcher(rows + done + skip, count, fetching.bytes),
                                  CeilDiv(tokens, T), k, fetching.evenly);
      Row tile[R];
      alignas(64) char unpacked[kUnpack ? R : 1][kUnpack ? kMaxUnpacked : 1];
      for (int r = 0; r < R; ++r) {
        tile[r] = RowAt<W>(rows[done + r], k);
        if constexpr (kUnpack) {
          Unpack<W>(rows[done + r], k, unpacked[r]);
          tile[r].codes = unpacked[r];
        }
      }
      DotTokens<Tiles, T, R>(x, x_stride, tokens, tile,
                             fetching.given != nullptr ? fetching.given : &next, k, y + done,
                             y_stride);
    }
    return done;
  }

  // With kContiguous, the rows lie one behind the other. Fetches `given`, if any, or else the rows
  // themselves.
  template <class W, bool kContiguous>
  static void Dots(const void* x, int64_t x_stride, int64_t tokens, const void* const* rows,
                   int64_t n, int64_t k, Ahead* given, float* y, int64_t y_stride) {
    const int64_t bytes = RowBytes(W::kType, k);
    int64_t done = 0;
    if (tokens == 1) {
      Fetching fetching{given, 8, bytes < kHeadBytes ? bytes : kHeadBytes};
      if (__builtin_cpu_is("amd")) {
        fetching = {given, kContiguous ? kStreamBytes / (bytes + 1) + 1 : kAheadRows, bytes};
        if (given == nullptr) {
          Fetcher first(rows, n < fetching.distance ? n : fetching.distance, bytes);
          first.FetchRest();
        }
        // One stream of memory is what AMD's prefetching follows best, while Intel's reads several
        // streams faster than one (bench/README.md). As many rows of it at once as one register
        // holds vectors: each vector's products wait for those of the row's last one.
        if (kContiguous) {
          done = DotRowTiles<W, 1, W::kVectors, false>(x, x_stride, tokens, rows, done, n, k,
                                                       fetching, y, y_stride);
          DotRowTiles<W, 1, 1, false>(x, x_stride, tokens, rows, done, n, k, fetching, y, y_stride);
          return;
        }
      }
      done =
          DotRowTiles<W, 1, 8, false>(x, x_stride, tokens, rows, done, n, k, fetching, y, y_stride);
    }
    constexpr int T = kDotTokens;
    // The products of many tokens give memory time: rows may come two tiles ahead, evenly.
    const bool many = tokens >= kEvenTokens;
    const Fetching fetching{given, many ? 8 : 4, bytes, many};
    if constexpr (kNeedUnpacking<W>) {
      if (tokens >= kUnpackTokens && k <= kMaxUnpacked) {
        done = DotRowTiles<W, T, 4, true>(x, x_stride, tokens, rows, done, n, k, fetching, y,
                                          y_stride);
      }
    }
    done =
        DotRowTiles<W, T, 4, false>(x, x_stride, tokens, rows, done, n, k, fetching, y, y_stride);
    DotRowTiles<W, T, 1, false>(x, x_stride, tokens, rows, done, n, k, fetching, y, y_stride);
  }

  template <class W>
  static void DotRows(const void* x, int64_t k, const void* const* rows, int64_t n,
                      const void* const* ahead, int64_t num_ahead, float* out) {
    // In tiles of 8 rows, 4 and 1.
    Ahead given =
        AheadOf<W>(Fetcher(ahead, num_ahead, RowBytes(W::kType, k)), n / 8 + n % 8 / 4 + n % 4, k);
    Dots<W, false>(x, 0, 1, rows, n, k, ahead != nullptr ? &given : nullptr, out, n);
    given.fetcher.FetchRest();
  }

  template <class W>
  static void Linear(const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
                     int64_t row_begin, int64_t row_end, const float* bias, float* y,
                     int64_t y_stride) {
    const int64_t x_bytes = tokens * ActivationBytes(W::kType, w.cols);
    int64_t t = 0;
    for (int64_t chunks = x_bytes / kTokenBytes + 1; t < tokens; --chunks) {
      const int64_t count = CeilDiv(tokens - t, chunks);
      const char* xs = static_cast<const char*>(x) + t * x_stride;
      float* out = y + t * y_stride;
      ForRowBatches(w, row_begin, row_end,
                    [&](int64_t r, const void* const* rows, int64_t n) LACUNA_INLINE_LAMBDA {
                      Dots<W, true>(xs, x_stride, count, rows, n, w.cols, nullptr, out + r,
                                    y_stride);
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

#endif  // LACUNA_KERNELS_CPU_DOT_QUANTIZED_INL_H_
