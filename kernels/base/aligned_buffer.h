#ifndef LACUNA_KERNELS_BASE_ALIGNED_BUFFER_H_
#define LACUNA_KERNELS_BASE_ALIGNED_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace lacuna {

// A zeroed, 64-byte aligned (2 MiB aligned and offered to the kernel for huge pages when large)
// block of memory. Movable, not copyable.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // RESOURCE_EXHAUSTED, naming the size, when memory cannot be had.
  static absl::StatusOr<AlignedBuffer> Allocate(int64_t bytes);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_ALIGNED_BUFFER_H_
