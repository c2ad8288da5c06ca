#ifndef LACUNA_KERNELS_BASE_DTYPE_H_
#define LACUNA_KERNELS_BASE_DTYPE_H_

#include <cstdint>

namespace lacuna {

// Storage type of a weight matrix. Activations are always float32.
// int8 and int4 will be grouped along a row, so that one row stays one run of bytes.
enum class DType : uint8_t { kF32 = 0, kBf16 = 1 };
inline constexpr int kNumDTypes = 2;

inline constexpr const char* DTypeName(DType t) { return t == DType::kF32 ? "f32" : "bf16"; }

// Bytes of `cols` elements of one row, without padding.
inline constexpr int64_t RowBytes(DType t, int64_t cols) {
  return cols * (t == DType::kF32 ? 4 : 2);
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_DTYPE_H_
