#ifndef LACUNA_KERNELS_BASE_QUANTIZED_ROW_H_
#define LACUNA_KERNELS_BASE_QUANTIZED_ROW_H_

#include <cstdint>

#include "kernels/base/dtype.h"

namespace lacuna {

// How rows of weights, and the activations that are multiplied with them, lie in memory.
//
// A row of float weights is its elements. A row of quantized weights is its codes, then its scales:
// weight = scale * code, with the code in [-127, 127] (int8), [-8, 7] (int4) or {-3, -1, 1, 3}
// (int2).
//
// The elements of a row are cut into vectors of 64, and vectors into blocks of 16 (the last may be
// shorter). A group, which shares a scale, is 4 neighbouring elements of each vector of a block: at
// most 64. So when a 64-byte register of codes is multiplied 4 by 4 and summed into 16 lanes, one
// lane only ever sees one group, and a whole block is summed in integers before 16 scales apply at
// once. This holds for any register width that divides 64 bytes.
//   int8: code + 128 of vector v is in the bytes 64 v .. 64 v + 63.
//   int4: vectors 2 p and 2 p + 1 share the bytes 64 p .. 64 p + 63: code + 8 in the low nibbles is
//         of the first, in the high nibbles of the second. The count of vectors is rounded up to
//         even.
//   int2: vectors 4 q .. 4 q + 3 share the bytes 64 q .. 64 q + 63: (code + 3) / 2 in bits 2 i and
//         2 i + 1 is of vector 4 q + i. The count of vectors is rounded up to a multiple of 4.
// Scales are bf16, 16 a block, behind the codes. Padding codes are 0, but for int2, which has none.
//
// Activations for such weights are signed bytes in the order of int8 codes, padded with zeros to a
// multiple of 4 vectors, then 16 float scales a block, then 16 int32 a block: minus the sum of the
// codes of each group, with which kernels undo an offset of the weights' codes.
inline constexpr int64_t kVectorElements = 64;
inline constexpr int64_t kBlockVectors = 16;
inline constexpr int64_t kBlockElements = kVectorElements * kBlockVectors;
inline constexpr int64_t kBlockGroups = 16;

// Always inlined, all of them, so that the per-ISA sources emit no copy that the linker could
// share.
[[gnu::always_inline]] inline constexpr int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Vectors that share 64 bytes of codes.
[[gnu::always_inline]] inline constexpr int64_t VectorsIn64Bytes(DType t) {
  if (t == DType::kInt2) return 4;
  return t == DType::kInt4 ? 2 : 1;
}

// Vectors of a quantized row of `cols` elements, with padding.
[[gnu::always_inline]] inline constexpr int64_t RowVectors(DType t, int64_t cols) {
  return CeilDiv(cols, VectorsIn64Bytes(t) * kVectorElements) * VectorsIn64Bytes(t);
}

// Vectors of the activations that quantized rows of `cols` elements are multiplied with.
[[gnu::always_inline]] inline constexpr int64_t ActivationVectors(int64_t cols) {
  return RowVectors(DType::kInt2, cols);
}

[[gnu::always_inline]] inline constexpr int64_t QuantizedBlocks(int64_t cols) {
  return CeilDiv(cols, kBlockElements);
}

// Bytes of the codes of a quantized row: where its scales begin.
[[gnu::always_inline]] inline constexpr int64_t CodeBytes(DType t, int64_t cols) {
  return RowVectors(t, cols) / VectorsIn64Bytes(t) * kVectorElements;
}

// Bytes of a row of `cols` elements, without padding between rows.
[[gnu::always_inline]] inline constexpr int64_t RowBytes(DType t, int64_t cols) {
  if (t == DType::kF32) return cols * 4;
  if (t == DType::kBf16) return cols * 2;
  return CodeBytes(t, cols) + QuantizedBlocks(cols) * kBlockGroups * 2;
}

// Parts of a row that can be read by themselves start at multiples of this many elements.
[[gnu::always_inline]] inline constexpr int64_t ColumnGrain(DType t) {
  return IsQuantized(t) ? VectorsIn64Bytes(t) * kVectorElements : 16;
}

// Bytes of one token's activations in the form that weights of a type are multiplied with.
[[gnu::always_inline]] inline constexpr int64_t ActivationBytes(DType t, int64_t cols) {
  if (!IsQuantized(t)) return cols * 4;
  return ActivationVectors(cols) * kVectorElements + QuantizedBlocks(cols) * kBlockGroups * 8;
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_QUANTIZED_ROW_H_
