#ifndef LACUNA_TESTS_KERNELS_CUDA_PADDED_MATRIX_H_
#define LACUNA_TESTS_KERNELS_CUDA_PADDED_MATRIX_H_

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/reference/reference.h"
#include "tests/kernels/cuda/device_data.h"
#include "tests/kernels/test_data.h"

namespace lacuna {

// A random matrix on the host and on the device, its rows 64-byte aligned as the runtime lays them
// out, with `gap` bytes more between rows. What is between rows is NaN for float types.
class PaddedMatrix {
 public:
  PaddedMatrix(DType dtype, int64_t rows, int64_t cols, uint32_t seed, int64_t gap = 0)
      : host_(dtype, rows, cols, seed),
        stride_(CeilDiv(RowBytes(dtype, cols), 64) * 64 + gap),
        device_(Padded(host_.view(), stride_)),
        view_(host_.view()) {
    view_.data = device_.get();
    view_.row_stride = stride_;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        elements_.push_back(reference::Element(dtype, host_.rows()[r], cols, c));
      }
    }
  }
  // On the device.
  const RowMatrix& view() const { return view_; }
  // [cols]
  const double* row(int64_t r) const { return &elements_[r * view_.cols]; }

 private:
  static std::vector<std::byte> Padded(const RowMatrix& host, int64_t stride) {
    std::vector<std::byte> bytes(host.rows * stride, std::byte{0xFF});
    for (int64_t r = 0; r < host.rows; ++r) {
      std::memcpy(&bytes[r * stride], host.row(r), RowBytes(host.dtype, host.cols));
    }
    return bytes;
  }

  TestMatrix host_;
  int64_t stride_;
  DeviceArray<std::byte> device_;
  RowMatrix view_;
  std::vector<double> elements_;
};

// Activations of several tokens on the host and on the device, 16-byte aligned, in the form that
// weights of a type are multiplied with.
class PaddedActivations {
 public:
  PaddedActivations(DType dtype, const std::vector<float>& x, int64_t tokens, int64_t k)
      : host_(*SupportedCpuKernels()[0], dtype, x, tokens, k),
        stride_(CeilDiv(host_.stride(), 16) * 16),
        device_(Padded(host_, tokens, stride_)),
        k_(k) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < k; ++i) {
        elements_.push_back(reference::ActivationElement(dtype, host_.token(t), k, i));
      }
    }
  }
  const std::byte* data() const { return device_.get(); }
  int64_t stride() const { return stride_; }
  // [k]
  const double* token(int64_t t) const { return &elements_[t * k_]; }

 private:
  static std::vector<std::byte> Padded(const TestActivations& host, int64_t tokens,
                                       int64_t stride) {
    std::vector<std::byte> bytes(tokens * stride, std::byte{0xFF});
    for (int64_t t = 0; t < tokens; ++t) {
      std::memcpy(&bytes[t * stride], host.token(t), host.stride());
    }
    return bytes;
  }

  TestActivations host_;
  int64_t stride_;
  DeviceArray<std::byte> device_;
  int64_t k_;
  std::vector<double> elements_;
};

// Largest error of a dot product on the device, given the sum of the magnitudes of its terms: a
// term passes through the sums of one lane, which has one in 32 of the chunks of at least 4
// elements (quantized: words, and two more roundings of the scales), of the lanes, of the warps,
// and a bias. On tensor cores, activations that meet bf16 weights lose less than 2^-16 of
// themselves.
inline double DeviceDotTolerance(DType dtype, int64_t k, double magnitudes) {
  const double roundings = static_cast<double>(k) / 32 + 8 + 2 + 5 + 8 + 1;
  return (roundings * kRoundoff + (dtype == DType::kBf16 ? 0x1p-16 : 0)) * magnitudes;
}

// A dot product in double precision, and the sum of the magnitudes of its terms.
struct ReferenceDot {
  ReferenceDot(const double* x, const double* row, int64_t k) {
    for (int64_t i = 0; i < k; ++i) {
      value += x[i] * row[i];
      magnitudes += std::abs(x[i] * row[i]);
    }
  }
  double value = 0, magnitudes = 0;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_KERNELS_CUDA_PADDED_MATRIX_H_
