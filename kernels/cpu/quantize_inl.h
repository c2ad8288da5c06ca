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
        // A group of zeros, or of values whose reciprocal overflows, gets codes of 0.
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
      const uint32_t bits = static_cast<uint32_t>(out[g].bits) << 16;
      __builtin_memcpy(&groups[g], &bits, sizeof(bits));
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
    for (int64_t block = 0; block < QuantizedBlocks(n); ++block) {
      F scale[kRegisters];
      ExpandScales<Int2>(row, n, block, scale);
      alignas(64) float scales[kVectorElements];
      for (int r = 0; r < kRegisters; ++r) V::Store(scales + r * kLanes, scale[r]);
      const int64_t begin = block * kBlockElements;
      const int64_t end = n - begin < kBlockElements ? n : begin + kBlockElements;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t vector = i / kVectorElements, place = i % kVectorElements;
        const int code = codes[vector / 4 * kVectorElements + place] >> (vector % 4 * 2) & 3;
        out[i] = static_cast<float>(2 * code - 3) * scales[place];
      }
    }
  }

  template <class W>
  static void Widen(const void* row, int64_t n, float* out) {
    for (int64_t c = 0; c < n; c += W::kVectors * kVectorElements) {
      alignas(64) float values[W::kVectors * kVectorElements];
      const int64_t left = n - c;
      F scale[kRegisters], offset[kRegisters];
      ExpandScales<W>(row, n, c / kBlockElements, scale);
      Offsets(scale, offset);
      F slice[W::kVectors * kRegisters];
      LoadSlice<W>(row, c, scale, offset, slice);
      for (int i = 0; i < W::kVectors * kRegisters; ++i) V::Store(values + i * kLanes, slice[i]);
      const int64_t count =
          left < W::kVectors * kVectorElements ? left : W::kVectors * kVectorElements;
      __builtin_memcpy(out + c, values, count * sizeof(float));
    }
  }

  // The scales of one block, each in the 4 lanes of its group.
  template <class W>
  static LACUNA_INLINE void ExpandScales(const void* row, int64_t cols, int64_t block, F* scale) {
    const Bf16* scales =
        reinterpret_cast<const Bf16*>(static_cast<const char*>(row) + CodeBytes(W::kType, cols)) +
        block * kBlockGroups;
    alignas(64) float wide[kBlockGroups];
    for (int64_t g = 0; g < kBlockGroups; g += kLanes) V::Store(wide + g, V::Load(scales + g));
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) scale[r] = V::Repeat4(wide + r * kLanes / 4);
  }

  // What takes the offset of int8 codes back: -128 scale.
  static LACUNA_INLINE void Offsets(const F* scale, F* offset) {
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) offset[r] = scale[r] * V::Set(-128.0f);
  }

  // scale * code, which is exact, for the 64 (int4: 128) columns from c on. The offsets are for
  // int8 only.
  template <class W>
  static LACUNA_INLINE void LoadSlice(const void* row, int64_t c, const F* scale, const F* offset,
                                      F* out) {
    const char* codes = static_cast<const char*>(row) + c / W::kVectors;
    LACUNA_UNROLL
    for (int r = 0; r < kRegisters; ++r) {
      if constexpr (W::kVectors == 1) {
        out[r] = V::Fma(V::ByteToFloat(codes + r * kLanes), scale[r], offset[r]);
      } else {
        F low, high;
        V::Int4ToFloat(codes + r * kLanes, &low, &high);
        out[r] = low * scale[r];
        out[kRegisters + r] = high * scale[r];
      }
    }
  }

 private:
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
