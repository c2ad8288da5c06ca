#ifndef LACUNA_KERNELS_CUDA_WARP_CUH_
#define LACUNA_KERNELS_CUDA_WARP_CUH_

#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"

// Sums in a fixed order, and conversions, for kernels.
namespace lacuna {

// The sum over all lanes of a warp, in every lane.
__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kFullWarp, x, lanes);
  return x;
}

// The sum over all threads of a block of whole warps, in every thread. `scratch`: 33 floats of
// shared memory, which nothing else uses between two calls.
__device__ __forceinline__ float BlockSum(float x, float* scratch) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  x = WarpSum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  if (warp == 0) {
    const float sum = WarpSum(lane < warps ? scratch[lane] : 0.0f);
    if (lane == 0) scratch[32] = sum;
  }
  __syncthreads();
  return scratch[32];
}

__device__ __forceinline__ float Bf16ToFloat(uint16_t bits) {
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

// Rounded to nearest even; NaN stays NaN. As the runtime's F32ToBf16.
__device__ __forceinline__ uint16_t FloatToBf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_WARP_CUH_
