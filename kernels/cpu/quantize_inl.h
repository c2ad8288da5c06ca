#ifndef LACUNA_KERNELS_CPU_QUANTIZE_INL_H_
#define LACUNA_KERNELS_CPU_QUANTIZE_INL_H_

#include "kernels/base/quantized_row.h"
#include "kernels/cpu/simd.h"

namespace lacuna {

// quantize_activations, quantize_weights and widen of KernelTable for quantized rows, over a vector
// type V (simd.h).
template <class V>
struct QuantizeKernels {
  using F = typename V::F;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int kRegisters = kVectorElements / kLanes;  // float registers in a vector

  // One block of a row as floats, padded with zeros.
  struct alignas(64) Block {
    float values[kBlockElements];
    int64_t vectors;
  };

  static LACUNA_INLINE void LoadBlock(const float* row, int64_t n, int64_t block,
                                      int64_t all_vectors, Block* out) {
    const int64_t begin = block * kBlockElements;
    const int64_t left = all_vectors - block * kBlockVectors;
    out->vectors = left < kBlockVectors ? left : kBlockVectors;
    const int64_t elements = n - begin < kBlockElements ? n - begin : kBlockElements;
    __builtin_memcpy(out->values, row + begin, elements * sizeof(float));
    __builtin_memset(out->values + elements, 0,
                     (out->vectors * kVectorElements - elements) * sizeof(float));
  }

  // Calls f(register, values) for the elements of every vector of a block at one register's place.
  template <class Function>
  static LACUNA_INLINE void ForRegisters(const Block& block, Function f) {
    for (int64_t v = 0; v < block.vectors; ++v) {
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        f(r, v * kVectorElements + r * kLanes,
          V::Load(block.values + v * kVectorElements + r * kLanes));
      }
    }
  }

  // max[r]: the largest value and, below, the largest negated value of each group.
  static LACUNA_INLINE void GroupRange(const Block& block, F* max, F* max_negated) {
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) max[r] = max_negated[r] = F{};
    ForRegisters(block, [&](int r, int64_t, F x) LACUNA_INLINE_LAMBDA {
      max[r] = V::Max(x, max[r]);
      max_negated[r] = V::Max(-x, max_negated[r]);
    });
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) {
      max[r] = V::MaxOf4(max[r]);
      max_negated[r] = V::MaxOf4(max_negated[r]);
    }
  }

  // out[g] = the value of group g, which all of its 4 lanes hold.
  static LACUNA_INLINE void StoreGroups(const F* values, float* out) {
    alignas(64) float lanes[kVectorElements];
    for (int r = 0; r < kRegisters; ++r) V::Store(lanes + r * kLanes, values[r]);
    for (int64_t g = 0; g < kBlockGroups; ++g) out[g] = lanes[4 * g];
  }

  static void QuantizeActivations(const float* x, int64_t n, void* out) {
    const int64_t vectors = ActivationVectors(n);
    int8_t* codes = static_cast<int8_t*>(out);
    float* scales = reinterpret_cast<float*>(codes + vectors * kVectorElements);
    int32_t* sums = reinterpret_cast<int32_t*>(scales + QuantizedBlocks(n) * kBlockGroups);
    Block block;
    for (int64_t b = 0; b < QuantizedBlocks(n); ++b) {
      LoadBlock(x, n, b, vectors, &block);
      F scale[kRegisters], negated[kRegisters], inverse[kRegisters], sum[kRegisters] = {};
      GroupRange(block, scale, negated);
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        const F max = V::Max(scale[r], negated[r]);
        scale[r] = max / V::Set(127.0f);
        // A group of zeros gets codes of 0, one of values near 1e-36 codes that are too small.
        inverse[r] = V::Set(127.0f) / V::Max(max, V::Set(1e-36f));
      }
      ForRegisters(block, [&](int r, int64_t at, F x) LACUNA_INLINE_LAMBDA {
        const F code = V::Round(x * inverse[r]);
        V::StoreInt8(codes + b * kBlockElements + at, code);
        sum[r] = sum[r] + code;
      });
      alignas(64) float lanes[kVectorElements];
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        V::Store(lanes + r * kLanes, sum[r]);
      }
      float group_scales[kBlockGroups];
      StoreGroups(scale, group_scales);
      for (int64_t g = 0; g < kBlockGroups; ++g) {
        const float* s = lanes + 4 * g;
        const float total = (s[0] + s[1]) + (s[2] + s[3]);
        // Any infinity or NaN made a NaN of the sum, and so makes one of the scale.
        scales[b * kBlockGroups + g] = group_scales[g] + 0.0f * total;
        sums[b * kBlockGroups + g] = total == total ? -static_cast<int32_t>(total) : 0;
      }
    }
  }

  // Rounded to nearest even. As a function of vectors: finite values only.
  static LACUNA_INLINE Bf16 ToBf16(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    return {static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
  }
  // Each group's value as bf16, stored and back in its 4 lanes.
  static LACUNA_INLINE void RoundScales(F* scale, Bf16* out) {
    alignas(64) float groups[kBlockGroups];
    StoreGroups(scale, groups);
    for (int64_t g = 0; g < kBlockGroups; ++g) {
      out[g] = ToBf16(groups[g]);
      groups[g] = ToFloat(out[g]);
    }
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) scale[r] = V::Repeat4(groups + r * kLanes / 4);
  }

  // 1 / scale; where that would overflow, something small enough times scale to round to 0.
  static LACUNA_INLINE F Inverse(F scale) {
    const F safe = V::Max(V::Max(scale, -scale), V::Set(1e-36f));
    return scale / safe / safe;
  }

  static void QuantizeInt8(const float* row, int64_t n, void* out) {
    int8_t* codes = static_cast<int8_t*>(out);
    Bf16* scales = reinterpret_cast<Bf16*>(codes + CodeBytes(DType::kInt8, n));
    Block block;
    for (int64_t b = 0; b < QuantizedBlocks(n); ++b) {
      LoadBlock(row, n, b, CeilDiv(n, kVectorElements), &block);
      F scale[kRegisters], negated[kRegisters], inverse[kRegisters];
      GroupRange(block, scale, negated);
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        scale[r] = V::Max(scale[r], negated[r]) / V::Set(127.0f);
      }
      RoundScales(scale, scales + b * kBlockGroups);
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) inverse[r] = Inverse(scale[r]);
      ForRegisters(block, [&](int r, int64_t at, F x) LACUNA_INLINE_LAMBDA {
        V::StoreInt8(codes + b * kBlockElements + at, Clamp(V::Round(x * inverse[r]), 127, 127));
      });
      for (int64_t i = 0; i < block.vectors * kVectorElements; ++i) {
        codes[b * kBlockElements + i] ^= static_cast<int8_t>(128);
      }
    }
  }

  // W is Int4 or Int2.
  template <class W>
  static void QuantizePacked(const float* row, int64_t n, void* out) {
    constexpr int kBits = 8 / W::kVectors;
    uint8_t* codes = static_cast<uint8_t*>(out);
    Bf16* scales = reinterpret_cast<Bf16*>(codes + CodeBytes(W::kType, n));
    Block block;
    for (int64_t b = 0; b < QuantizedBlocks(n); ++b) {
      LoadBlock(row, n, b, RowVectors(W::kType, n), &block);
      F scale[kRegisters], inverse[kRegisters];
      if constexpr (W::kType == DType::kInt4) {
        Int4Scales(block, scale);
      } else {
        Int2Scales(block, scale);
      }
      RoundScales(scale, scales + b * kBlockGroups);
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) inverse[r] = Inverse(scale[r]);
      alignas(64) int8_t bytes[kBlockElements];
      ForRegisters(block, [&](int r, int64_t at, F x) LACUNA_INLINE_LAMBDA {
        if constexpr (W::kType == DType::kInt4) {
          V::StoreInt8(bytes + at, Clamp(V::Round(x * inverse[r]), 8, 7) + V::Set(8));
        } else {
          V::StoreInt8(bytes + at, Int2Code(x * inverse[r]));
        }
      });
      for (int64_t v = 0; v < block.vectors; v += W::kVectors) {
        uint8_t* shared = codes + (b * kBlockVectors + v) / W::kVectors * kVectorElements;
        const int8_t* in = bytes + v * kVectorElements;
        for (int64_t i = 0; i < kVectorElements; ++i) {
          int byte = 0;
          LACUNA_UNROLL
          for (int k = 0; k < W::kVectors; ++k) byte |= in[i + k * kVectorElements] << (kBits * k);
          shared[i] = static_cast<uint8_t>(byte);
        }
      }
    }
  }

  static void WidenInt2(const void* row, int64_t n, float* out) {
    const uint8_t* codes = static_cast<const uint8_t*>(row);
    const Bf16* scales = ScalesOf<Int2>(row, n);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t vector = i / kVectorElements, place = i % kVectorElements;
      const int code = codes[vector / 4 * kVectorElements + place] >> (vector % 4 * 2) & 3;
      out[i] = static_cast<float>(2 * code - 3) *
               ToFloat(scales[i / kBlockElements * kBlockGroups + place / 4]);
    }
  }

  template <class W>
  static void Widen(const void* row, int64_t n, float* out) {
    for (int64_t c = 0; c < n; c += W::kVectors * kVectorElements) {
      F slice[W::kVectors * kRegisters];
      LoadSlice<W>(row, c, LoadScales<W>(row, n, c / kBlockElements), slice);
      for (int v = 0; v < W::kVectors; ++v) {
        const int64_t begin = c + v * kVectorElements;
        if (begin >= n) break;
        StoreColumns(slice + v * kRegisters,
                     n - begin < kVectorElements ? n - begin : kVectorElements, out + begin);
      }
    }
  }

  // The codes of 4 neighbouring columns lie in one 32-bit lane, so widening leaves the 64 columns
  // of a vector in "byte order": those with the same place in a group of 4 side by side, column 4 g
  // + b at 16 b + g. kParts registers hold the 16 groups.
  static constexpr int kParts = kBlockGroups / kLanes;

  // x[0..64) to byte order, and back.
  static LACUNA_INLINE void ToByteOrder(float* x) {
    F columns[kParts][4];
    LACUNA_UNROLL
    for (int q = 0; q < kParts; ++q) {
      LACUNA_UNROLL
      for (int i = 0; i < 4; ++i) columns[q][i] = V::Load(x + (4 * q + i) * kLanes);
      V::Deinterleave4(columns[q]);
    }
    LACUNA_UNROLL
    for (int q = 0; q < kParts; ++q) {
      LACUNA_UNROLL
      for (int b = 0; b < 4; ++b) V::Store(x + b * kBlockGroups + q * kLanes, columns[q][b]);
    }
  }
  static LACUNA_INLINE void FromByteOrder(float* x) {
    F columns[kParts][4];
    LACUNA_UNROLL
    for (int q = 0; q < kParts; ++q) {
      LACUNA_UNROLL
      for (int b = 0; b < 4; ++b) columns[q][b] = V::Load(x + b * kBlockGroups + q * kLanes);
      V::Interleave4(columns[q]);
    }
    LACUNA_UNROLL
    for (int q = 0; q < kParts; ++q) {
      LACUNA_UNROLL
      for (int i = 0; i < 4; ++i) V::Store(x + (4 * q + i) * kLanes, columns[q][i]);
    }
  }
  // The first n of the 64 columns that a vector's registers hold.
  static LACUNA_INLINE void StoreColumns(const F* vector, int64_t n, float* out) {
    float columns[kVectorElements];
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) V::Store(columns + r * kLanes, vector[r]);
    FromByteOrder(columns);
    __builtin_memcpy(out, columns, n * sizeof(float));
  }

  // The scales of a block, and what takes back from scale * value all by which the values that
  // Value gives exceed the codes. (All of these products are exact: a scale has 8 bits.)
  template <class W>
  struct Scales {
    F scale[kParts];
    F offset[W::kVectors][kParts];
  };
  template <class W>
  static LACUNA_INLINE Scales<W> LoadScales(const void* row, int64_t cols, int64_t block) {
    const Bf16* scales = ScalesOf<W>(row, cols) + block * kBlockGroups;
    Scales<W> out;
    LACUNA_UNROLL
    for (int q = 0; q < kParts; ++q) {
      out.scale[q] = V::Load(scales + q * kLanes);
      if constexpr (W::kType == DType::kInt8) {
        out.offset[0][q] = out.scale[q] * V::Set(-(kSecondByte + 128));
      } else {
        out.offset[0][q] = out.scale[q] * V::Set(-(kSecondByte + 8));
        out.offset[1][q] = out.scale[q] * V::Set(-(kHighNibble + 8));
      }
    }
    return out;
  }

  // Byte b of each lane as a float plus kSecondByte; of int4 vector 0's nibble plus kSecondByte, or
  // vector 1's plus kHighNibble: the bits go where they count in the mantissa of a power of 2,
  // which takes fewer operations than widening and converting.
  template <class W, int kVector, int kByte>
  static LACUNA_INLINE F Value(typename V::I codes) {
    if constexpr (kByte == 0) codes = V::template ShiftLeft<8>(codes);
    if constexpr (kByte > 1) codes = V::template ShiftRight<8 * (kByte - 1)>(codes);
    if constexpr (W::kType == DType::kInt8) return V::template Bits<0xFF00, 0x47000000>(codes);
    if constexpr (kVector == 0) return V::template Bits<0x0F00, 0x47000000>(codes);
    return V::template Bits<0xF000, 0x45000000>(codes);
  }

  // Calls f(v, b, value) with one part's four values of each vector of a slice.
  template <class W, class Function>
  static LACUNA_INLINE void ForValues(const char* codes, Function f) {
    const typename V::I lanes = V::LoadI(reinterpret_cast<const int32_t*>(codes));
    f(0, 0, Value<W, 0, 0>(lanes));
    f(0, 1, Value<W, 0, 1>(lanes));
    f(0, 2, Value<W, 0, 2>(lanes));
    f(0, 3, Value<W, 0, 3>(lanes));
    if constexpr (W::kVectors == 2) {
      f(1, 0, Value<W, 1, 0>(lanes));
      f(1, 1, Value<W, 1, 1>(lanes));
      f(1, 2, Value<W, 1, 2>(lanes));
      f(1, 3, Value<W, 1, 3>(lanes));
    }
  }

  // scale * code, which is exact, for the 64 (int4: 128) columns from c on, in byte order.
  template <class W>
  static LACUNA_INLINE void LoadSlice(const void* row, int64_t c, const Scales<W>& scales, F* out) {
    const char* codes = static_cast<const char*>(row) + c / W::kVectors;
    LACUNA_UNROLL
    for (int q = 0; q < kParts; ++q) {
      ForValues<W>(codes + 4 * q * kLanes, [&](int v, int b, F value) LACUNA_INLINE_LAMBDA {
        out[v * kRegisters + b * kParts + q] = V::Fma(value, scales.scale[q], scales.offset[v][q]);
      });
    }
  }

 private:
  static constexpr float kSecondByte = 32768;  // 0x47000000, to which the second byte adds itself
  static constexpr float kHighNibble = 2048;   // 0x45000000, to which its high nibble does

  template <class W>
  static LACUNA_INLINE const Bf16* ScalesOf(const void* row, int64_t cols) {
    return reinterpret_cast<const Bf16*>(static_cast<const char*>(row) + CodeBytes(W::kType, cols));
  }
  static LACUNA_INLINE float ToFloat(Bf16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float out;
    __builtin_memcpy(&out, &bits, sizeof(out));
    return out;
  }

  static LACUNA_INLINE F Clamp(F code, int lowest, int highest) {
    return V::Max(V::Min(code, V::Set(highest)), V::Set(-lowest));
  }

  // (code + 3) / 2 for a value in units of the scale.
  static LACUNA_INLINE F Int2Code(F x) {
    return V::Max(V::Min(V::Round(V::Fma(x, V::Set(0.5f), V::Set(1.5f))), V::Set(3)), F{});
  }

  // For each group the scale with nearly the least squared error (Lloyd's iteration: the best codes
  // for a scale, then the best scale for the codes).
  static LACUNA_INLINE void Int2Scales(const Block& block, F* scale) {
    F sum[kRegisters] = {}, squares[kRegisters];
    ForRegisters(
        block, [&](int r, int64_t, F x) LACUNA_INLINE_LAMBDA { sum[r] = sum[r] + V::Max(x, -x); });
    // Half of a normal variable's standard deviation, which is 1.25 times its mean magnitude, is
    // close to its best scale.
    const float n = static_cast<float>(4 * block.vectors);
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) scale[r] = V::SumOf4(sum[r]) * V::Set(0.625f / n);
    for (int round = 0; round < 4; ++round) {
      F inverse[kRegisters];
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        inverse[r] = Inverse(scale[r]);
        sum[r] = squares[r] = F{};
      }
      ForRegisters(block, [&](int r, int64_t, F x) LACUNA_INLINE_LAMBDA {
        const F code = Int2Code(x * inverse[r]) * V::Set(2) - V::Set(3);
        sum[r] = V::Fma(x, code, sum[r]);
        squares[r] = V::Fma(code, code, squares[r]);
      });
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        scale[r] = V::SumOf4(sum[r]) / V::SumOf4(squares[r]);
      }
    }
  }

  // For each group the scale, of several that map its extreme value to codes from -8.8 to -7 or to
  // 7, with the least squared error.
  static LACUNA_INLINE void Int4Scales(const Block& block, F* scale) {
    F max[kRegisters], negated[kRegisters], best[kRegisters];
    GroupRange(block, max, negated);
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) {
      // The extreme value, with its sign.
      const F magnitude = V::Max(max[r], negated[r]);
      max[r] = V::Select(max[r], magnitude, max[r], -negated[r]);
      best[r] = V::Set(__builtin_inff());
      scale[r] = F{};
    }
    constexpr float kExtremes[] = {-8.8f, -8.4f, -8.0f, -7.6f, -7.2f, 7.0f};
    for (const float extreme : kExtremes) {
      F candidate[kRegisters], inverse[kRegisters], error[kRegisters] = {};
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        candidate[r] = max[r] / V::Set(extreme);
        inverse[r] = Inverse(candidate[r]);
      }
      ForRegisters(block, [&](int r, int64_t, F x) LACUNA_INLINE_LAMBDA {
        const F code = Clamp(V::Round(x * inverse[r]), 8, 7);
        const F d = x - code * candidate[r];
        error[r] = V::Fma(d, d, error[r]);
      });
      LACUNA_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        const F total = V::SumOf4(error[r]);
        scale[r] = V::Select(total, best[r], scale[r], candidate[r]);
        best[r] = V::Min(total, best[r]);
      }
    }
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_QUANTIZE_INL_H_
