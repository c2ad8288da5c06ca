#include "tests/cuda_emulation/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes)
#endif

namespace cuda_emulation {
namespace {

constexpr size_t kAlignment = 256;
constexpr int kGarbage = 0xFB;  // of floats: -2.6e36

size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }
size_t PageBytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// The pages of a block, with one before and one after that nobody may touch.
char* PagesOf(const char* p, size_t bytes) {
  const size_t used = RoundUp(bytes, kAlignment);
  return const_cast<char*>(p) + used - RoundUp(used, PageBytes());
}
size_t PagesBytes(size_t bytes) { return RoundUp(RoundUp(bytes, kAlignment), PageBytes()); }

}  // namespace

DeviceMemory::Access::Access(DeviceMemory* memory) : memory_(memory) {
  if (memory_->accesses_++ == 0) memory_->Protect(PROT_READ | PROT_WRITE);
}
DeviceMemory::Access::~Access() {
  if (--memory_->accesses_ == 0) memory_->Protect(PROT_NONE);
}

void DeviceMemory::Protect(int protection) const {
  for (const auto& [p, bytes] : blocks_) mprotect(PagesOf(p, bytes), PagesBytes(bytes), protection);
}

void* DeviceMemory::Allocate(size_t bytes) {
  const size_t page = PageBytes(), pages = PagesBytes(bytes);
  void* const mapped = mmap(nullptr, pages + 2 * page, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const size_t used = RoundUp(bytes, kAlignment);
  char* const p = static_cast<char*>(mapped) + page + pages - used;
  blocks_[p] = bytes;
  allocated_ += bytes;
  mprotect(PagesOf(p, bytes), pages, PROT_READ | PROT_WRITE);
  std::memset(p, kGarbage, bytes);
  ASAN_POISON_MEMORY_REGION(p + bytes, used - bytes);
  if (accesses_ == 0) mprotect(PagesOf(p, bytes), pages, PROT_NONE);
  return p;
}

bool DeviceMemory::Free(void* p) {
  const auto block = blocks_.find(static_cast<char*>(p));
  if (block == blocks_.end()) return false;
  const size_t bytes = block->second;
  ASAN_UNPOISON_MEMORY_REGION(static_cast<char*>(p) + bytes, RoundUp(bytes, kAlignment) - bytes);
  munmap(PagesOf(block->first, bytes) - PageBytes(), PagesBytes(bytes) + 2 * PageBytes());
  allocated_ -= bytes;
  blocks_.erase(block);
  return true;
}

void* DeviceMemory::AllocatePinned(size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, kAlignment, bytes) != 0) return nullptr;
  std::memset(p, kGarbage, bytes);
  pinned_[static_cast<char*>(p)] = bytes;
  return p;
}

bool DeviceMemory::FreePinned(void* p) {
  if (pinned_.erase(static_cast<char*>(p)) == 0) return false;
  std::free(p);
  return true;
}

bool DeviceMemory::Within(const Blocks& blocks, const void* p, size_t bytes) {
  const char* const begin = static_cast<const char*>(p);
  auto block = blocks.upper_bound(begin);
  if (block == blocks.begin()) return false;
  --block;
  const size_t offset = begin - block->first;
  return offset <= block->second && bytes <= block->second - offset;
}
bool DeviceMemory::IsOnDevice(const void* p, size_t bytes) const {
  return Within(blocks_, p, bytes);
}
bool DeviceMemory::IsPinned(const void* p, size_t bytes) const { return Within(pinned_, p, bytes); }

bool IsMapped(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (address < PageBytes() || address >> 47 != 0) return false;
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(address / PageBytes() * PageBytes()), 1, &resident) == 0;
}

}  // namespace cuda_emulation
