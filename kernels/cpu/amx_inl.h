#ifndef LACUNA_KERNELS_CPU_AMX_INL_H_
#define LACUNA_KERNELS_CPU_AMX_INL_H_

#include <immintrin.h>

#include "kernels/cpu/dot_quantized_inl.h"

namespace lacuna {

// `linear` of KernelTable for quantized rows and many tokens on Intel's matrix unit (AMX), over a
// vector type V of 16 lanes that derives from Avx512Base. Equal bit for bit to
// QuantizedDotKernels<V>: a group's products are summed in integers, and what follows is the same
// operations in the same order.
//
// One instruction multiplies a tile of 16 tokens x 64 codes by one of 64 codes x 16 rows: a group
// of each. A tile of tokens has a token's group in each of its 16 lines of 64 bytes, a tile of rows
// has 4 neighbouring codes of all rows in a line. Both are the transpose of how codes lie in
// memory, where a line holds 4 codes of each of 16 groups.
template <class V>
struct AmxKernels {
  using F = typename V::F;
  using Dots = QuantizedDotKernels<V>;

  static constexpr int64_t kTileRows = 16;  // of weights
  static constexpr int64_t kTileTokens = 16;
  // With fewer, tiles gain little or lose (bench/README.md).
  static constexpr int64_t kMinTokens = 32;
  // Blocks of a row, at most, and of all tiles of tokens that one pass over the weights uses:
  // 136 and 272 KiB of factors on the stack, a fifth of a second-level cache of 2 MiB.
  static constexpr int64_t kMaxBlocks = 8;
  static constexpr int64_t kMaxTokenBlocks = 16;

  // One factor of a product: a group of 16 tokens or rows, and its scales. The factors of a tile
  // lie in the order in which their products are summed: group by group, in kGroupOrder, and the
  // blocks of a group within.
  struct alignas(64) Factor {
    int8_t codes[16][kVectorElements];
    float scales[16];
  };
  // Sum of V adds lane i to lane i + 8, then the pairs i and i + 4, and so on.
  static constexpr uint8_t kGroupOrder[kBlockGroups] = {0, 8, 4, 12, 2, 10, 6, 14,
                                                        1, 9, 5, 13, 3, 11, 7, 15};

  struct alignas(64) Products {
    int32_t value[kTileTokens][kTileRows];
  };
  struct alignas(64) Sums {
    float value[kTileRows];
  };

  // Calls f(i, element i of each of 16 lines of 16 elements of 32 bits) for i in [0, 16). A line
  // begins `stride` bytes after another.
  template <class Function>
  static LACUNA_INLINE void Transpose(const void* lines, int64_t stride, Function f) {
    LACUNA_UNROLL
    for (int quarter = 0; quarter < 4; ++quarter) {
      const char* const first = static_cast<const char*>(lines) + 16 * quarter;
      const char* const second = first + 8 * stride;
      F out[4];
      LACUNA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const auto part = [](const char* p) LACUNA_INLINE_LAMBDA {
          return _mm_loadu_ps(reinterpret_cast<const float*>(p));
        };
        F parts = _mm512_castps128_ps512(part(first + i * stride));
        parts = _mm512_mask_broadcast_f32x4(parts, 0x00F0, part(first + (i + 4) * stride));
        parts = _mm512_mask_broadcast_f32x4(parts, 0x0F00, part(second + i * stride));
        out[i] = _mm512_mask_broadcast_f32x4(parts, 0xF000, part(second + (i + 4) * stride));
      }
      V::TransposeQuarters(out);
      LACUNA_UNROLL
      for (int k = 0; k < 4; ++k) f(4 * quarter + k, out[k]);
    }
  }

  // Vectors of a block of rows of k elements.
  template <class W>
  static LACUNA_INLINE int64_t BlockVectors(int64_t k, int64_t block) {
    const int64_t left = RowVectors(W::kType, k) - block * kBlockVectors;
    return left < kBlockVectors ? left : kBlockVectors;
  }

  // Where group g of a block is among the factors of a tile.
  static LACUNA_INLINE int64_t Place(int g, int64_t block, int64_t blocks) {
    return kGroupOrder[g] * blocks + block;  // the order is its own inverse
  }

  // out = the factors of `count` <= kTileTokens tokens; zeros where there is none.
  template <class W>
  static void PackTokens(const void* x, int64_t x_stride, int64_t count, int64_t k, Factor* out) {
    const int64_t blocks = QuantizedBlocks(k);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t bytes = BlockVectors<W>(k, b) * kVectorElements;
      alignas(64) float scales[kTileTokens][kBlockGroups] = {};
      for (int64_t t = 0; t < kTileTokens; ++t) {
        alignas(64) char codes[kBlockElements] = {};
        if (t < count) {
          const auto token = Dots::TokenAt(x, x_stride, t, k);
          __builtin_memcpy(codes, token.codes + b * kBlockElements, bytes);
          __builtin_memcpy(scales[t], token.scales + b * kBlockGroups, sizeof scales[t]);
        }
        Transpose(codes, kVectorElements, [&](int g, F group) LACUNA_INLINE_LAMBDA {
          _mm512_store_ps(out[Place(g, b, blocks)].codes[t], group);
        });
      }
      Transpose(scales, sizeof scales[0], [&](int g, F group) LACUNA_INLINE_LAMBDA {
        V::Store(out[Place(g, b, blocks)].scales, group);
      });
    }
  }

  // out = the factors of 16 rows of k elements. Meanwhile `ahead` fetches `lines` for each 64 bytes
  // of them all. What lies behind the end of the rows may be anything: tokens have zeros there.
  template <class W>
  static void PackRows(const void* rows, int64_t stride, int64_t k, Fetcher* ahead, int64_t lines,
                       Factor* out) {
    const int64_t blocks = QuantizedBlocks(k);
    for (int64_t b = 0; b < blocks; ++b) {
      const char* codes = static_cast<const char*>(rows) + b * kBlockElements / W::kVectors;
      const int64_t vectors = BlockVectors<W>(k, b);
      for (int64_t v = 0; v < vectors; v += W::kVectors, codes += kVectorElements) {
        ahead->Fetch(lines);
        Transpose(codes, stride, [&](int g, F group) LACUNA_INLINE_LAMBDA {
          const __m512i stored = _mm512_castps_si512(group);
          Factor& factor = out[Place(g, b, blocks)];
          if constexpr (W::kType == DType::kInt8) {
            const __m512i offset = _mm512_set1_epi8(static_cast<char>(128));
            _mm512_store_si512(factor.codes[v], _mm512_xor_si512(stored, offset));
          } else {
            const __m512i offset = _mm512_set1_epi8(8);
            const __m512i low = V::LowNibbles(stored), high = V::HighNibbles(stored);
            _mm512_store_si512(factor.codes[v], _mm512_sub_epi8(low, offset));
            _mm512_store_si512(factor.codes[v + 1], _mm512_sub_epi8(high, offset));
          }
        });
      }
      alignas(64) float scales[kTileRows][kBlockGroups];
      for (int64_t r = 0; r < kTileRows; ++r) {
        const auto row = Dots::template RowAt<W>(static_cast<const char*>(rows) + r * stride, k);
        V::Store(scales[r], V::Load(row.scales + b * kBlockGroups));
      }
      Transpose(scales, sizeof scales[0], [&](int g, F group) LACUNA_INLINE_LAMBDA {
        V::Store(out[Place(g, b, blocks)].scales, group);
      });
    }
  }

  // Not by GCC 12's intrinsics: they take numbers of tile registers as literals only, and do not
  // tell the compiler what they read.
  template <int i>
  static LACUNA_INLINE void MultiplyTile(const Factor& x, const Factor& rows) {
    __asm__ volatile(
        "tileloadd (%0,%2,1), %%tmm%c4\n\t"
        "tileloadd (%1,%2,1), %%tmm%c5\n\t"
        "tilezero %%tmm%c3\n\t"
        "tdpbssd %%tmm%c5, %%tmm%c4, %%tmm%c3"
        :
        : "r"(x.codes), "r"(rows.codes), "r"(kVectorElements), "i"(i), "i"(4 + i % 2),
          "i"(6 + i % 2)
        : "memory");
  }
  template <int i>
  static LACUNA_INLINE void StoreTile(Products* products) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(products), "r"(4 * kTileRows), "i"(i)
                     : "memory");
  }

  // The products of kBatch factors, in as many tile registers.
  static constexpr int kBatch = 4;
  static LACUNA_INLINE void MultiplyBatch(const Factor* x, const Factor* rows) {
    MultiplyTile<0>(x[0], rows[0]);
    MultiplyTile<1>(x[1], rows[1]);
    MultiplyTile<2>(x[2], rows[2]);
    MultiplyTile<3>(x[3], rows[3]);
  }
  static LACUNA_INLINE void StoreBatch(Products* products) {
    StoreTile<0>(&products[0]);
    StoreTile<1>(&products[1]);
    StoreTile<2>(&products[2]);
    StoreTile<3>(&products[3]);
  }

  // y[t*y_stride + r] = x[t] . rows[r] for `count` tokens of a tile and one of rows. Meanwhile
  // `ahead` fetches `lines` for each product.
  static void DotTile(const Factor* x, int64_t count, const Factor* rows, int64_t blocks,
                      Fetcher* ahead, int64_t lines, float* y, int64_t y_stride) {
    const int64_t steps = kBlockGroups * blocks;
    Products products[kBatch];
    // Of 1 group, of 2, 4, 8, which wait for as many others, and of all 16.
    Sums sums[5][kTileTokens];
    MultiplyBatch(x, rows);
    int64_t step = 0;
    for (int group = 0; group < kBlockGroups; ++group) {
      F sum[kTileTokens] = {};
      for (int64_t b = 0; b < blocks; ++b, ++step) {
        if (step % kBatch == 0) {
          // The next batch is multiplied while this one is added up.
          StoreBatch(products);
          const int64_t next = step + kBatch;
          if (next < steps) MultiplyBatch(x + next, rows + next);
        }
        ahead->Fetch(lines);
        const F row_scales = V::Load(rows[step].scales);
        LACUNA_UNROLL
        for (int t = 0; t < kTileTokens; ++t) {
          const F product = V::ToFloat(V::LoadI(products[step % kBatch].value[t]));
          sum[t] = V::Fma(product, row_scales * V::Set(x[step].scales[t]), sum[t]);
        }
      }
      const int level = __builtin_ctz(~group);
      for (int i = 0; i < level; ++i) {
        LACUNA_UNROLL
        for (int t = 0; t < kTileTokens; ++t) sum[t] = V::Load(sums[i][t].value) + sum[t];
      }
      LACUNA_UNROLL
      for (int t = 0; t < kTileTokens; ++t) V::Store(sums[level][t].value, sum[t]);
    }
    for (int64_t t = 0; t < count; ++t) V::Store(y + t * y_stride, V::Load(sums[4][t].value));
  }

  static LACUNA_INLINE void ConfigureTiles() {
    struct {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t line_bytes[16] = {};
      uint8_t lines[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) {
      config.line_bytes[tile] = 64;
      config.lines[tile] = 16;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }

  // All tokens of a pass with whole tiles of rows, each while the next one is fetched.
  template <class W>
  static void LinearPass(const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
                         int64_t row_begin, int64_t row_end, float* y, int64_t y_stride) {
    const int64_t blocks = QuantizedBlocks(w.cols);
    const int64_t steps = kBlockGroups * blocks;
    Factor token_factors[kBlockGroups * kMaxTokenBlocks];
    Factor row_factors[kBlockGroups * kMaxBlocks];
    for (int64_t t = 0; t < tokens; t += kTileTokens) {
      const int64_t count = tokens - t < kTileTokens ? tokens - t : kTileTokens;
      PackTokens<W>(static_cast<const char*>(x) + t * x_stride, x_stride, count, w.cols,
                    token_factors + t / kTileTokens * steps);
    }
    ConfigureTiles();
    for (int64_t r = row_begin; r < row_end; r += kTileRows) {
      const void* next[kTileRows];
      const int64_t num_next = r + kTileRows < row_end ? kTileRows : 0;
      for (int64_t i = 0; i < num_next; ++i) next[i] = w.row(r + kTileRows + i);
      Fetcher ahead(next, num_next, RowBytes(W::kType, w.cols));
      // Packing 64 bytes of 16 rows takes about as long as a product.
      const int64_t lines = CeilDiv(ahead.lines(), RowVectors(W::kType, w.cols) / W::kVectors +
                                                       CeilDiv(tokens, kTileTokens) * steps);
      PackRows<W>(w.row(r), w.row_stride, w.cols, &ahead, lines, row_factors);
      for (int64_t t = 0; t < tokens; t += kTileTokens) {
        const int64_t count = tokens - t < kTileTokens ? tokens - t : kTileTokens;
        DotTile(token_factors + t / kTileTokens * steps, count, row_factors, blocks, &ahead, lines,
                y + t * y_stride + r, y_stride);
      }
    }
    _tile_release();
  }

  template <class W>
  static void Linear(const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
                     int64_t row_begin, int64_t row_end, const float* bias, float* y,
                     int64_t y_stride) {
    const int64_t blocks = QuantizedBlocks(w.cols);
    const int64_t tile_end = row_begin + (row_end - row_begin) / kTileRows * kTileRows;
    const bool tiles = blocks > 0 && blocks <= kMaxBlocks && tile_end > row_begin;
    int64_t t = 0;
    while (tiles && tokens - t >= kMinTokens) {
      // A last tile of tokens may be half empty, but no more.
      int64_t count = (tokens - t + kTileTokens / 2) / kTileTokens * kTileTokens;
      const int64_t most = kMaxTokenBlocks / blocks * kTileTokens;
      if (count > most) count = most;
      if (count > tokens - t) count = tokens - t;
      LinearPass<W>(static_cast<const char*>(x) + t * x_stride, x_stride, count, w, row_begin,
                    tile_end, y + t * y_stride, y_stride);
      t += count;
    }
    if (bias != nullptr) {
      for (int64_t i = 0; i < t; ++i) {
        for (int64_t r = row_begin; r < tile_end; ++r) y[i * y_stride + r] += bias[r];
      }
    }
    // What is too little for a tile.
    Dots::template Linear<W>(x, x_stride, t, w, tile_end, row_end, bias, y, y_stride);
    Dots::template Linear<W>(static_cast<const char*>(x) + t * x_stride, x_stride, tokens - t, w,
                             row_begin, row_end, bias, y + t * y_stride, y_stride);
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_AMX_INL_H_
