#ifndef LACUNA_KERNELS_CUDA_CUDA_DEVICE_H_
#define LACUNA_KERNELS_CUDA_CUDA_DEVICE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lacuna {

// Number of GPUs, at least 1. UNAVAILABLE, with the reason, if there is none; UNIMPLEMENTED if this
// build has no CUDA backend.
absl::StatusOr<int> CudaDeviceCount();

// UNAVAILABLE, with the reason, if the kernels of this build do not run on GPU `ordinal`, one of
// those counted; other codes if it cannot be asked. Makes it the calling thread's, as
// SetCudaDevice.
absl::Status CheckCudaDevice(int ordinal);

// Makes GPU `ordinal` the one on which the calling thread allocates, creates and launches from now
// on. Every thread that uses the CUDA backend calls it first. INVALID_ARGUMENT, naming the number
// of GPUs, if there is no such GPU; UNAVAILABLE as CudaDeviceCount.
absl::Status SetCudaDevice(int ordinal);

struct CudaDeviceInfo {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  std::string isa;   // "sm_90"
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;
};

// About the calling thread's GPU.
absl::StatusOr<CudaDeviceInfo> GetCudaDeviceInfo();

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_CUDA_DEVICE_H_
