#ifndef LACUNA_KERNELS_CUDA_CUDA_ERROR_H_
#define LACUNA_KERNELS_CUDA_CUDA_ERROR_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

// For the sources of kernels/cuda only: the one header that needs CUDA's.
namespace lacuna {

// OK, or `what` failed and why: RESOURCE_EXHAUSTED for want of memory, else INTERNAL.
inline absl::Status CudaStatus(const char* what, cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_CUDA_ERROR_H_
