#ifndef LACUNA_KERNELS_CUDA_CUDA_BUFFER_H_
#define LACUNA_KERNELS_CUDA_CUDA_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lacuna {

// A block of memory on the GPU of the thread that allocates it, 256-byte aligned, with undefined
// contents. The host must not touch it but through copies. Movable, not copyable. Freeing waits for
// all work of the GPU.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // RESOURCE_EXHAUSTED, naming the size, when the GPU has no such room. No bytes need no memory.
  static absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  int64_t size() const { return size_; }

  // Copies `bytes` from ordinary host memory to `offset`, and waits until that is done: for
  // weights, and for tests.
  absl::Status Upload(const void* host, int64_t bytes, int64_t offset = 0);
  // The other way round. Waits for nothing else: work that writes the buffer is synchronized first.
  absl::Status Download(void* host, int64_t bytes, int64_t offset = 0) const;

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

// A zeroed, page-locked block of host memory: what copies of a CudaStream come from and go to.
// Movable, not copyable.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  // RESOURCE_EXHAUSTED, naming the size, when memory cannot be had.
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::byte* data() const { return data_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  int64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_CUDA_BUFFER_H_
