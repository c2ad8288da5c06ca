#ifndef LACUNA_KERNELS_BASE_DTYPE_H_
#define LACUNA_KERNELS_BASE_DTYPE_H_

#include <cstdint>

namespace lacuna {

// Storage type of a matrix. The layouts of the quantized types are in kernels/base/quantized_row.h.
// int2 is for sketches of weights only, which are never summed up into a result.
enum class DType : uint8_t { kF32 = 0, kBf16 = 1, kInt8 = 2, kInt4 = 3, kInt2 = 4 };
inline constexpr int kNumDTypes = 5;

inline constexpr const char* DTypeName(DType t) {
  constexpr const char* kNames[kNumDTypes] = {"f32", "bf16", "int8", "int4", "int2"};
  return kNames[static_cast<int>(t)];
}

// Always inlined, so that the per-ISA sources emit no copy that the linker could share.
[[gnu::always_inline]] inline constexpr bool IsQuantized(DType t) {
  return t == DType::kInt8 || t == DType::kInt4 || t == DType::kInt2;
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_DTYPE_H_
