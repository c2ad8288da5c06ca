#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"

namespace lacuna {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(CeilDiv(items, per_block));
}

__device__ __forceinline__ int64_t ThreadOfGrid() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads)
    AddScaledKernel(float scale, const float* x, int64_t n, float* y) {
  const int64_t i = ThreadOfGrid();
  if (i < n) y[i] += scale * x[i];
}

__global__ void __launch_bounds__(kThreads) ScaleKernel(float scale, int64_t n, float* x) {
  const int64_t i = ThreadOfGrid();
  if (i < n) x[i] *= scale;
}

}  // namespace

void AddScaled(CudaStream& stream, float scale, const float* x, int64_t n, float* y) {
  Launch(stream, "AddScaled", AddScaledKernel, Blocks(n, kThreads), kThreads, 0, scale, x, n, y);
}

void Scale(CudaStream& stream, float scale, int64_t n, float* x) {
  Launch(stream, "Scale", ScaleKernel, Blocks(n, kThreads), kThreads, 0, scale, n, x);
}

}  // namespace lacuna
