#include "kernels/base/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lacuna {
namespace {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Buffers that fill at least one huge page are mapped, smaller ones come from the heap.
bool IsMapped(int64_t bytes) { return bytes >= kHugePage; }

// `bytes` rounded up to whole huge pages, 2 MiB aligned; null when memory cannot be had.
std::byte* Map(int64_t bytes) {
  const int64_t wanted = RoundUp(bytes, kHugePage);
  void* map =
      mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  std::byte* begin = static_cast<std::byte*>(map);
  const int64_t before = -reinterpret_cast<intptr_t>(begin) & (kHugePage - 1);
  if (before > 0) munmap(begin, before);
  munmap(begin + before + wanted, kHugePage - before);
  madvise(begin + before, wanted, MADV_HUGEPAGE);  // advice: works without
  return begin + before;
}

std::byte* AllocateFromHeap(int64_t bytes) {
  void* data = std::aligned_alloc(kCacheLine, RoundUp(bytes, kCacheLine));
  if (data != nullptr) std::memset(data, 0, bytes);
  return static_cast<std::byte*>(data);
}

}  // namespace

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  if (bytes > 0 && bytes <= std::numeric_limits<int64_t>::max() - 2 * kHugePage) {
    buffer.data_ = IsMapped(bytes) ? Map(bytes) : AllocateFromHeap(bytes);
  }
  if (buffer.data_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  }
  buffer.size_ = bytes;
  return buffer;
}

AlignedBuffer::~AlignedBuffer() {
  if (IsMapped(size_)) {
    munmap(data_, RoundUp(size_, kHugePage));
  } else {
    std::free(data_);
  }
}

}  // namespace lacuna
