#ifndef LACUNA_KERNELS_CUDA_CUDA_DEVICE_H_
#define LACUNA_KERNELS_CUDA_CUDA_DEVICE_H_

#include "absl/status/statusor.h"

namespace lacuna {

// Number of usable GPUs, at least 1. UNAVAILABLE, with the reason, if there is none; UNIMPLEMENTED
// if this build has no CUDA backend.
absl::StatusOr<int> CudaDeviceCount();

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_CUDA_DEVICE_H_
