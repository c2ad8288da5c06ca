#ifndef LACUNA_TESTS_CUDA_EMULATION_INCLUDE_KERNELS_CUDA_PTX_CUH_
#define LACUNA_TESTS_CUDA_EMULATION_INCLUDE_KERNELS_CUDA_PTX_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

// What kernels/cuda/ptx.cuh has, on the CPU.
namespace lacuna {

template <class T>
T* DynamicShared() {
  return static_cast<T*>(cuda_emulation::DynamicShared());
}

inline uint4 LoadStreaming(const void* p) { return *static_cast<const uint4*>(p); }

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void MmaInt8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

}  // namespace lacuna

#endif  // LACUNA_TESTS_CUDA_EMULATION_INCLUDE_KERNELS_CUDA_PTX_CUH_
