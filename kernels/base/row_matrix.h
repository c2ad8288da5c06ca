#ifndef LACUNA_KERNELS_BASE_ROW_MATRIX_H_
#define LACUNA_KERNELS_BASE_ROW_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/quantized_row.h"

namespace lacuna {

// A view of a weight matrix [rows, cols], one row after the other, `row_stride` bytes apart.
// The view owns nothing; rows start 64-byte aligned in everything the runtime builds.
struct RowMatrix {
  const std::byte* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // bytes
  DType dtype = DType::kF32;

  // Always inlined, so that the per-ISA sources emit no copy that the linker could share.
  [[gnu::always_inline]] const void* row(int64_t r) const { return data + r * row_stride; }
  bool empty() const { return data == nullptr; }
  // Bytes that reading every row once takes.
  int64_t bytes() const { return rows * RowBytes(dtype, cols); }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_ROW_MATRIX_H_
