#ifndef LACUNA_TESTS_KERNELS_TEST_DATA_H_
#define LACUNA_TESTS_KERNELS_TEST_DATA_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/kernel_table.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cpu/cpu_kernels.h"
#include "tests/same_bits.h"

namespace lacuna {

// Half the distance from 1 to the next float: the largest relative error of one rounding.
inline constexpr double kRoundoff = 1.0 / (1 << 24);

// Uniform in [-1, 1).
inline std::vector<float> RandomFloats(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f;
  return values;
}

// A random matrix whose memory ends with its last element, so that AddressSanitizer sees a kernel
// that reads on.
class TestMatrix {
 public:
  TestMatrix(DType dtype, int64_t rows, int64_t cols, uint32_t seed) {
    const std::vector<float> values = RandomFloats(rows * cols, seed);
    const int64_t row_bytes = RowBytes(dtype, cols);
    bytes_.resize(rows * row_bytes);
    for (int64_t r = 0; r < rows; ++r) {
      std::byte* row = bytes_.data() + r * row_bytes;
      if (IsQuantized(dtype)) {  // by the plainest code, whichever kernels are tested
        SupportedCpuKernels()[0]->quantize_weights[static_cast<int>(dtype)](&values[r * cols], cols,
                                                                            row);
        continue;
      }
      const int64_t width = RowBytes(dtype, 1);
      for (int64_t i = 0; i < cols; ++i) {
        // The upper half of a float is a bf16, cut off.
        const char* value = reinterpret_cast<const char*>(&values[r * cols + i]);
        std::memcpy(row + i * width, value + 4 - width, width);
      }
    }
    view_ = {
        .data = bytes_.data(), .rows = rows, .cols = cols, .row_stride = row_bytes, .dtype = dtype};
    for (int64_t r = 0; r < rows; ++r) rows_.push_back(view_.row(r));
  }

  const RowMatrix& view() const { return view_; }
  // Pointers to all rows.
  const void* const* rows() const { return rows_.data(); }

 private:
  std::vector<std::byte> bytes_;
  RowMatrix view_;
  std::vector<const void*> rows_;
};

// Activations [tokens, k] in the form that weights of a type are multiplied with, each token's
// memory `margin` elements apart from the next (float weights) or not at all.
class TestActivations {
 public:
  TestActivations(const KernelTable& kernels, DType dtype, const std::vector<float>& x,
                  int64_t tokens, int64_t k, int64_t margin = 0)
      : stride_(ActivationBytes(dtype, IsQuantized(dtype) ? k : k + margin)) {
    bytes_.resize(tokens * stride_);
    for (int64_t t = 0; t < tokens; ++t) {
      if (IsQuantized(dtype)) {
        kernels.quantize_activations(x.data() + t * k, k, bytes_.data() + t * stride_);
      } else {
        std::memcpy(bytes_.data() + t * stride_, x.data() + t * k, k * sizeof(float));
      }
    }
  }
  const void* token(int64_t t) const { return bytes_.data() + t * stride_; }
  int64_t stride() const { return stride_; }

 private:
  int64_t stride_;
  std::vector<std::byte> bytes_;
};

// How GoogleTest prints a parameter.
inline void PrintTo(const KernelTable* table, std::ostream* out) { *out << table->isa; }
inline void PrintTo(DType dtype, std::ostream* out) { *out << DTypeName(dtype); }

// Fixtures for what is tested on every ISA, and on every ISA with every type of weights.
class IsaTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }
};
class IsaDTypeTest : public testing::TestWithParam<std::tuple<const KernelTable*, DType>> {
 protected:
  const KernelTable& kernels() const { return *std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  int type_index() const { return static_cast<int>(dtype()); }
};

inline std::string IsaName(const testing::TestParamInfo<const KernelTable*>& info) {
  return info.param->isa;
}
inline std::string IsaDTypeName(
    const testing::TestParamInfo<std::tuple<const KernelTable*, DType>>& info) {
  return std::string(std::get<0>(info.param)->isa) + "_" + DTypeName(std::get<1>(info.param));
}

#define LACUNA_TEST_EVERY_ISA(fixture) \
  INSTANTIATE_TEST_SUITE_P(Isa, fixture, testing::ValuesIn(SupportedCpuKernels()), IsaName)
#define LACUNA_TEST_EVERY_ISA_AND(fixture, ...)                                                 \
  INSTANTIATE_TEST_SUITE_P(                                                                     \
      Isa, fixture,                                                                             \
      testing::Combine(testing::ValuesIn(SupportedCpuKernels()), testing::Values(__VA_ARGS__)), \
      IsaDTypeName)
// Types of weights, which every kernel takes.
#define LACUNA_TEST_EVERY_ISA_AND_WEIGHT_TYPE(fixture) \
  LACUNA_TEST_EVERY_ISA_AND(fixture, DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4)
// And that of sketches, for kernels that take them.
#define LACUNA_TEST_EVERY_ISA_AND_DTYPE(fixture)                                            \
  LACUNA_TEST_EVERY_ISA_AND(fixture, DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4, \
                            DType::kInt2)

}  // namespace lacuna

#endif  // LACUNA_TESTS_KERNELS_TEST_DATA_H_
