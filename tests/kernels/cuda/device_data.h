#ifndef LACUNA_TESTS_KERNELS_CUDA_DEVICE_DATA_H_
#define LACUNA_TESTS_KERNELS_CUDA_DEVICE_DATA_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

// An array in device memory that ends with its last element.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t n) : size_(n) {
    absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Allocate(n * sizeof(T));
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    if (buffer.ok()) buffer_ = *std::move(buffer);
  }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(static_cast<int64_t>(values.size())) {
    const absl::Status status = buffer_.Upload(values.data(), size_ * sizeof(T));
    EXPECT_TRUE(status.ok()) << status;
  }

  T* get() const { return buffer_.as<T>(); }
  int64_t size() const { return size_; }
  // What is there once the stream that writes it is synchronized.
  std::vector<T> Values() const {
    std::vector<T> values(size_);
    const absl::Status status = buffer_.Download(values.data(), size_ * sizeof(T));
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }

 private:
  DeviceBuffer buffer_;
  int64_t size_;
};

// A matrix copied to the device, with its layout.
class DeviceMatrix {
 public:
  explicit DeviceMatrix(const RowMatrix& host)
      : bytes_(std::vector<std::byte>(host.data, host.data + host.rows * host.row_stride)),
        view_(host) {
    view_.data = bytes_.get();
  }
  const RowMatrix& view() const { return view_; }

 private:
  DeviceArray<std::byte> bytes_;
  RowMatrix view_;
};

// A stream on the first GPU. A test with an error in the stream fails.
class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    const absl::Status status = SetCudaDevice(0);
    ASSERT_TRUE(status.ok()) << status;
    absl::StatusOr<CudaStream> stream = CudaStream::Create();
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_ = std::make_unique<CudaStream>(*std::move(stream));
  }
  CudaStream& stream() { return *stream_; }
  void Synchronize() {
    const absl::Status status = stream_->Synchronize();
    ASSERT_TRUE(status.ok()) << status;
  }

 private:
  std::unique_ptr<CudaStream> stream_;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_KERNELS_CUDA_DEVICE_DATA_H_
