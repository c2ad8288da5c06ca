#ifndef LACUNA_KERNELS_CUDA_WEIGHT_CHUNK_CUH_
#define LACUNA_KERNELS_CUDA_WEIGHT_CHUNK_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/base/row_matrix.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

// A row of weights (kernels/base/quantized_row.h) as a sequence of chunks: 16 bytes of elements or
// codes, what one thread loads at once. WeightChunk<type> says how a chunk is loaded, multiplied
// with the activations that belong to it (a dot product), and widened.
namespace lacuna {

inline constexpr int kChunkBytes = 16;
inline constexpr int kWarpLanes = 32;

// What the rows of a matrix have in common.
struct RowShape {
  int64_t cols;
  int32_t chunks;        // of a row; the last may be partial (float types) or padded (quantized)
  int64_t scales;        // byte offset of a row's scales
  int64_t input_scales;  // byte offset of the scales of a token's activations
};

inline RowShape RowShapeOf(DType dtype, int64_t cols) {
  const int64_t bytes = IsQuantized(dtype) ? CodeBytes(dtype, cols) : RowBytes(dtype, cols);
  return {cols, static_cast<int32_t>(CeilDiv(bytes, kChunkBytes)), bytes,
          ActivationVectors(cols) * kVectorElements};
}

// Sums each of kCount values, a power of two, over the 32 lanes of a warp, in a fixed order. The
// sum of value i is returned to lanes i * 32 / kCount to (i + 1) * 32 / kCount - 1. In each step
// lanes exchange half of the values, and each goes on with the other half.
template <int kCount>
__device__ __forceinline__ float WarpSums(float (&values)[kCount]) {
  static_assert((kCount & (kCount - 1)) == 0 && kCount <= kWarpLanes, "");
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  int step = kWarpLanes / 2;
#pragma unroll
  for (int left = kCount / 2; left > 0; left /= 2) {
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < left; ++i) {
      const float given = upper ? values[i] : values[i + left];
      const float kept = upper ? values[i + left] : values[i];
      values[i] = kept + __shfl_xor_sync(kFullWarp, given, step);
    }
    step /= 2;
  }
  for (; step > 0; step /= 2) values[0] += __shfl_xor_sync(kFullWarp, values[0], step);
  return values[0];
}

__device__ __forceinline__ float LowBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighBf16(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000);
}

// A pair of floats as bf16: what of them fits, and the rest, rounded: together all but less than
// 2^-16 of them.
__device__ __forceinline__ void SplitPair(float x0, float x1, uint32_t* high, uint32_t* low) {
  const uint32_t bits0 = __float_as_uint(x0), bits1 = __float_as_uint(x1);
  *high = __byte_perm(bits0, bits1, 0x7632);
  const float rest0 = x0 - __uint_as_float(bits0 & 0xFFFF0000);
  const float rest1 = x1 - __uint_as_float(bits1 & 0xFFFF0000);
  *low = __byte_perm(__float_as_uint(rest0) + 0x8000, __float_as_uint(rest1) + 0x8000, 0x7632);
}

template <DType kType>
struct WeightChunk;

template <>
struct WeightChunk<DType::kF32> {
  static constexpr int kElements = 4;
  struct Weights {
    float w[4];
  };
  struct Input {
    float x[4];
  };

  // Elements beyond the end of the row are 0, and not read.
  static __device__ __forceinline__ Weights Load(const std::byte* row, const RowShape& shape,
                                                 int chunk) {
    const float* from = reinterpret_cast<const float*>(row) + chunk * 4;
    if ((chunk + 1) * 4 <= shape.cols) {
      const uint4 bits = LoadStreaming(from);
      return {{__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
               __uint_as_float(bits.w)}};
    }
    Weights out;
#pragma unroll
    for (int e = 0; e < 4; ++e) out.w[e] = chunk * 4 + e < shape.cols ? from[e] : 0.0f;
    return out;
  }
  static __device__ __forceinline__ Input LoadInput(const std::byte* x, const RowShape& shape,
                                                    int chunk) {
    const float* from = reinterpret_cast<const float*>(x) + chunk * 4;
    if ((chunk + 1) * 4 <= shape.cols) {
      const float4 v = *reinterpret_cast<const float4*>(from);
      return {{v.x, v.y, v.z, v.w}};
    }
    Input out;
#pragma unroll
    for (int e = 0; e < 4; ++e) out.x[e] = chunk * 4 + e < shape.cols ? from[e] : 0.0f;
    return out;
  }
  static __device__ __forceinline__ Weights Zero() { return {}; }
  // sum + the products of the chunk.
  static __device__ __forceinline__ float Dot(const Weights& w, const Input& in, float sum) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sum = fmaf(w.w[e], in.x[e], sum);
    return sum;
  }
  // Weight e, which is of column Column(chunk, e), exactly.
  static __device__ __forceinline__ float At(const Weights& w, int e) { return w.w[e]; }
  static __device__ __forceinline__ int64_t Column(int chunk, int e) { return chunk * 4 + e; }
};

template <>
struct WeightChunk<DType::kBf16> {
  static constexpr int kElements = 8;
  struct Weights {
    uint32_t pairs[4];
  };
  struct Input {
    float x[8];
  };

  static __device__ __forceinline__ Weights Load(const std::byte* row, const RowShape& shape,
                                                 int chunk) {
    if ((chunk + 1) * 8 <= shape.cols) {
      const uint4 bits = LoadStreaming(row + chunk * kChunkBytes);
      return {{bits.x, bits.y, bits.z, bits.w}};
    }
    const uint16_t* from = reinterpret_cast<const uint16_t*>(row) + chunk * 8;
    Weights out{};
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const uint32_t bits = chunk * 8 + e < shape.cols ? from[e] : 0;
      out.pairs[e / 2] |= bits << (e % 2 * 16);
    }
    return out;
  }
  static __device__ __forceinline__ Input LoadInput(const std::byte* x, const RowShape& shape,
                                                    int chunk) {
    using Half = WeightChunk<DType::kF32>;
    const Half::Input low = Half::LoadInput(x, shape, 2 * chunk);
    const Half::Input high = Half::LoadInput(x, shape, 2 * chunk + 1);
    return {{low.x[0], low.x[1], low.x[2], low.x[3], high.x[0], high.x[1], high.x[2], high.x[3]}};
  }
  static __device__ __forceinline__ Weights Zero() { return {}; }
  static __device__ __forceinline__ float Dot(const Weights& w, const Input& in, float sum) {
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      sum = fmaf(LowBf16(w.pairs[p]), in.x[2 * p], sum);
      sum = fmaf(HighBf16(w.pairs[p]), in.x[2 * p + 1], sum);
    }
    return sum;
  }
  static __device__ __forceinline__ float At(const Weights& w, int e) {
    return e % 2 == 0 ? LowBf16(w.pairs[e / 2]) : HighBf16(w.pairs[e / 2]);
  }
  static __device__ __forceinline__ int64_t Column(int chunk, int e) { return chunk * 8 + e; }
};

__device__ __forceinline__ uint32_t WordOf(const uint4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}

// Quantized: a chunk is 16 bytes of 64 that vectors share, so each of its 4 words is of one group.
// Word w of chunk c belongs to group 4 (c % 4) + w of its block. Words of codes are multiplied by
// __dp4a, exactly, and then scaled.
template <int kVectors>  // vectors that share bytes: 1 (int8) or 2 (int4)
struct QuantizedChunk {
  static constexpr int kElements = 16 * kVectors;
  static constexpr int kChunksPerBlock = static_cast<int>(kBlockVectors) / kVectors * 4;
  // Codes of int4 are put into the upper halves of bytes: 16 times too large.
  static constexpr float kCodeScale = kVectors == 1 ? 1.0f : 1.0f / 16;
  struct Weights {
    uint4 codes;
    uint2 scales;  // 4 bf16
  };
  struct Input {
    uint4 codes[kVectors];
    float4 scales;  // times kCodeScale
  };

  static __device__ __forceinline__ int FirstGroup(int chunk) {
    return chunk / kChunksPerBlock * static_cast<int>(kBlockGroups) + chunk % 4 * 4;
  }
  static __device__ __forceinline__ Weights Load(const std::byte* row, const RowShape& shape,
                                                 int chunk) {
    return {LoadStreaming(row + chunk * kChunkBytes),
            *reinterpret_cast<const uint2*>(row + shape.scales + FirstGroup(chunk) * 2)};
  }
  static __device__ __forceinline__ Input LoadInput(const std::byte* x, const RowShape& shape,
                                                    int chunk) {
    Input in;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      in.codes[v] =
          *reinterpret_cast<const uint4*>(x + (chunk / 4 * kVectors + v) * 64 + chunk % 4 * 16);
    }
    const float4 s =
        *reinterpret_cast<const float4*>(x + shape.input_scales + FirstGroup(chunk) * 4);
    in.scales = {s.x * kCodeScale, s.y * kCodeScale, s.z * kCodeScale, s.w * kCodeScale};
    return in;
  }
  static __device__ __forceinline__ Weights Zero() { return {}; }

  // A word of stored codes as signed bytes, for vector v; int4's times 16.
  static __device__ __forceinline__ int Codes(uint32_t word, int v) {
    if (kVectors == 2) word = (v == 0 ? word << 4 : word) & 0xF0F0F0F0;
    return static_cast<int>(word ^ 0x80808080);
  }
  static __device__ __forceinline__ float DotWord(uint32_t word, uint32_t x0, uint32_t x1) {
    int sum = __dp4a(Codes(word, 0), static_cast<int>(x0), 0);
    if (kVectors == 2) sum = __dp4a(Codes(word, 1), static_cast<int>(x1), sum);
    return static_cast<float>(sum);
  }
  static __device__ __forceinline__ float Dot(const Weights& w, const Input& in, float sum) {
    const uint4& x0 = in.codes[0];
    const uint4& x1 = in.codes[kVectors - 1];
    sum = fmaf(DotWord(w.codes.x, x0.x, x1.x), LowBf16(w.scales.x) * in.scales.x, sum);
    sum = fmaf(DotWord(w.codes.y, x0.y, x1.y), HighBf16(w.scales.x) * in.scales.y, sum);
    sum = fmaf(DotWord(w.codes.z, x0.z, x1.z), LowBf16(w.scales.y) * in.scales.z, sum);
    sum = fmaf(DotWord(w.codes.w, x0.w, x1.w), HighBf16(w.scales.y) * in.scales.w, sum);
    return sum;
  }

  static __device__ __forceinline__ float At(const Weights& w, int e) {
    const int group = e % 16 / 4;
    const uint32_t byte = WordOf(w.codes, group) >> (e % 4 * 8) & 0xFF;
    const uint32_t pair = group < 2 ? w.scales.x : w.scales.y;
    const float scale = group % 2 == 0 ? LowBf16(pair) : HighBf16(pair);
    if (kVectors == 1) return (SmallInteger(byte) - 128.0f) * scale;
    return (SmallInteger(e < 16 ? byte & 15 : byte >> 4) - 8.0f) * scale;
  }
  static __device__ __forceinline__ int64_t Column(int chunk, int e) {
    return (chunk / 4 * kVectors + e / 16) * 64 + chunk % 4 * 16 + e % 16;
  }

 private:
  // float(i) for i < 2^23, with an addition instead of a conversion, of which a multiprocessor does
  // an eighth as many: i is the low bits of the mantissa of 2^23 + i.
  static __device__ __forceinline__ float SmallInteger(uint32_t i) {
    return __uint_as_float(0x4B000000 | i) - 8388608.0f;
  }
};

// y[e] += a * weight e of the chunk.
template <class Chunk>
__device__ __forceinline__ void AddChunk(float a, const typename Chunk::Weights& w, float* y) {
#pragma unroll
  for (int e = 0; e < Chunk::kElements; ++e) y[e] = fmaf(a, Chunk::At(w, e), y[e]);
}

template <>
struct WeightChunk<DType::kInt8> : QuantizedChunk<1> {};
template <>
struct WeightChunk<DType::kInt4> : QuantizedChunk<2> {};

// Calls f(std::integral_constant<DType, type>) for one of the four types of weights.
template <class Function>
void ForWeightType(DType dtype, Function f) {
  if (dtype == DType::kF32) f(std::integral_constant<DType, DType::kF32>());
  if (dtype == DType::kBf16) f(std::integral_constant<DType, DType::kBf16>());
  if (dtype == DType::kInt8) f(std::integral_constant<DType, DType::kInt8>());
  if (dtype == DType::kInt4) f(std::integral_constant<DType, DType::kInt4>());
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_WEIGHT_CHUNK_CUH_
