#ifndef LACUNA_KERNELS_CUDA_LAUNCH_CUH_
#define LACUNA_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

// Threads of a warp, all of which take part.
inline constexpr unsigned kFullWarp = 0xFFFFFFFFu;

// Enqueues kernel<<<grid, block, shared_bytes>>>(arguments...); errors go to the stream, with
// `name`, a literal. A grid without blocks is nothing to do. Static and dynamic shared memory of a
// block: 48 KiB at most.
template <class... Parameters, class... Arguments>
void Launch(CudaStream& stream, const char* name, void (*kernel)(Parameters...), dim3 grid,
            dim3 block, size_t shared_bytes, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.get();
  stream.Enqueued(name, cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_LAUNCH_CUH_
