#ifndef LACUNA_KERNELS_CUDA_PTX_CUH_
#define LACUNA_KERNELS_CUDA_PTX_CUH_

#include <cuda_runtime.h>

#include <cstdint>

// What CUDA C++ has no portable words for. tests/cuda_emulation/include has the same header for the
// CPU, so that the kernels themselves are plain C++.
namespace lacuna {

// The block's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* DynamicShared() {
  extern __shared__ uint4 dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

// 16 bytes of memory that no kernel writes meanwhile and that will not be needed again soon:
// weights, which stream through the cache once a step. `p` is 16-byte aligned.
__device__ __forceinline__ uint4 LoadStreaming(const void* p) {
  uint4 value;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
      : "l"(p));
  return value;
}

// d += a b over a warp: a [16, 16] and b [16, 8] of bf16, d [16, 8] of float. With g = lane / 4 and
// i = lane % 4, a lane holds
//   a: rows g, g + 8, g, g + 8; columns 2 i, 2 i + 1 (first two registers), + 8 (last two)
//   b: rows 2 i, 2 i + 1 (first register), + 8 (second); column g
//   d: row g, columns 2 i, 2 i + 1 (first two), row g + 8 (last two)
// two neighbouring bf16 in a register, the first one in the low half.
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b over a warp: a [16, 32] and b [32, 8] of int8, d [16, 8] of int32. A lane holds
//   a: rows g, g + 8, g, g + 8; columns 4 i .. 4 i + 3 (first two registers), + 16 (last two)
//   b: rows 4 i .. 4 i + 3 (first register), + 16 (second); column g
//   d: as MmaBf16
// four neighbouring int8 in a register, the first one in the low byte.
__device__ __forceinline__ void MmaInt8(int32_t (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_PTX_CUH_
