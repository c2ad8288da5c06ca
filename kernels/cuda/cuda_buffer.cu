#include <cuda_runtime_api.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_error.h"

namespace lacuna {
namespace {

absl::Status CheckRange(const char* what, int64_t offset, int64_t bytes, int64_t size) {
  if (offset >= 0 && bytes >= 0 && offset <= size && bytes <= size - offset) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, " of ", bytes, " bytes at ", offset, " of a buffer of ", size));
}

}  // namespace

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(int64_t bytes) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = nullptr;
  const absl::Status status = CudaStatus("cudaMalloc", cudaMalloc(&data, bytes));
  if (!status.ok()) {
    cudaGetLastError();  // it is dealt with, and not for the next who asks
    return absl::Status(status.code(),
                        absl::StrCat(bytes, " bytes of GPU memory: ", status.message()));
  }
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.size_ = bytes;
  return buffer;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

absl::Status DeviceBuffer::Upload(const void* host, int64_t bytes, int64_t offset) {
  const absl::Status status = CheckRange("upload", offset, bytes, size_);
  if (!status.ok() || bytes == 0) return status;
  absl::Status copied =
      CudaStatus("upload", cudaMemcpy(data_ + offset, host, bytes, cudaMemcpyHostToDevice));
  // From pageable memory cudaMemcpy returns once the bytes are staged, and streams that do not
  // block would not wait for the rest of the way.
  copied.Update(CudaStatus("upload", cudaStreamSynchronize(nullptr)));
  return copied;
}

absl::Status DeviceBuffer::Download(void* host, int64_t bytes, int64_t offset) const {
  const absl::Status status = CheckRange("download", offset, bytes, size_);
  if (!status.ok() || bytes == 0) return status;
  return CudaStatus("download", cudaMemcpy(host, data_ + offset, bytes, cudaMemcpyDeviceToHost));
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t bytes) {
  PinnedBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = nullptr;
  const absl::Status status = CudaStatus("cudaMallocHost", cudaMallocHost(&data, bytes));
  if (!status.ok()) {
    cudaGetLastError();
    return absl::Status(status.code(),
                        absl::StrCat(bytes, " bytes of pinned memory: ", status.message()));
  }
  std::memset(data, 0, bytes);
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.size_ = bytes;
  return buffer;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

}  // namespace lacuna
