#ifndef LACUNA_KERNELS_BASE_DTYPE_H_
#define LACUNA_KERNELS_BASE_DTYPE_H_

#include <cstdint>

namespace lacuna {

// Storage type of a weight matrix. The int8 and int4 layouts are in kernels/base/quantized_row.h.
enum class DType : uint8_t { kF32 = 0, kBf16 = 1, kInt8 = 2, kInt4 = 3 };
inline constexpr int kNumDTypes = 4;

inline constexpr const char* DTypeName(DType t) {
  constexpr const char* kNames[kNumDTypes] = {"f32", "bf16", "int8", "int4"};
  return kNames[static_cast<int>(t)];
}

// Always inlined, so that the per-ISA sources emit no copy that the linker could share.
[[gnu::always_inline]] inline constexpr bool IsQuantized(DType t) {
  return t == DType::kInt8 || t == DType::kInt4;
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_DTYPE_H_
