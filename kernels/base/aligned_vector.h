#ifndef LACUNA_KERNELS_BASE_ALIGNED_VECTOR_H_
#define LACUNA_KERNELS_BASE_ALIGNED_VECTOR_H_

#include <cstddef>
#include <new>
#include <vector>

namespace lacuna {

template <class T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};

  CacheLineAllocator() = default;
  template <class U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}

  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kAlignment)); }
  void deallocate(T* p, size_t) { ::operator delete(p, kAlignment); }
  template <class U>
  bool operator==(const CacheLineAllocator<U>&) const {
    return true;
  }
};

// A vector that starts at a multiple of 64 bytes. What kernels add into belongs into one: a
// register of an unaligned array lies across two cache lines, which costs the CPU twice
// (bench/README.md).
template <class T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_ALIGNED_VECTOR_H_
