#ifndef LACUNA_TESTS_CUDA_EMULATION_DEVICE_MEMORY_H_
#define LACUNA_TESTS_CUDA_EMULATION_DEVICE_MEMORY_H_

#include <cstddef>
#include <map>

namespace cuda_emulation {

// Device memory: pages that can be touched only while an Access exists, which kernels and copies
// have and the host has not. A block ends with its last page, so that whoever goes on by more than
// 255 bytes (under AddressSanitizer: by any) is caught. Not thread-safe.
class DeviceMemory {
 public:
  class Access {
   public:
    explicit Access(DeviceMemory* memory);
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    DeviceMemory* const memory_;
  };

  // 256-byte aligned, full of garbage; null if there is none.
  void* Allocate(size_t bytes);
  // False if `p` is not what Allocate gave.
  bool Free(void* p);
  // Page-locked host memory.
  void* AllocatePinned(size_t bytes);
  bool FreePinned(void* p);

  // True if [p, p + bytes) lies within one block; its end counts, if bytes is 0.
  bool IsOnDevice(const void* p, size_t bytes) const;
  bool IsPinned(const void* p, size_t bytes) const;
  size_t allocated() const { return allocated_; }

 private:
  using Blocks = std::map<const char*, size_t>;
  static bool Within(const Blocks& blocks, const void* p, size_t bytes);
  void Protect(int protection) const;

  Blocks blocks_, pinned_;
  size_t allocated_ = 0;
  int accesses_ = 0;
};

// True if `p` is an address of this process.
bool IsMapped(const void* p);

}  // namespace cuda_emulation

#endif  // LACUNA_TESTS_CUDA_EMULATION_DEVICE_MEMORY_H_
