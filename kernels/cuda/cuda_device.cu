#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_error.h"

namespace lacuna {
namespace {

constexpr int kOldestMajor = 8;  // Ampere: bf16 in tensor cores

__global__ void Nothing() {}

}  // namespace

absl::Status CheckCudaDevice(int ordinal) {
  int major = 0, minor = 0;
  absl::Status status =
      CudaStatus("cudaDeviceGetAttribute",
                 cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
  status.Update(
      CudaStatus("cudaDeviceGetAttribute",
                 cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal)));
  if (!status.ok()) return status;
  if (major < kOldestMajor) {
    return absl::UnavailableError(absl::StrCat("no usable GPU: GPU ", ordinal,
                                               " has compute capability ", major, ".", minor,
                                               ", the kernels are for ", kOldestMajor, ".0 on"));
  }
  status.Update(CudaStatus("cudaSetDevice", cudaSetDevice(ordinal)));
  if (!status.ok()) return status;
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, Nothing);
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction) {
    return CudaStatus("cudaFuncGetAttributes", error);
  }
  cudaGetLastError();  // forgets it
  return absl::UnavailableError(absl::StrCat("no usable GPU: this build has no code for GPU ",
                                             ordinal, ", sm_", major, minor));
}

absl::StatusOr<int> CudaDeviceCount() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    return absl::UnavailableError(absl::StrCat("no usable GPU: ", cudaGetErrorString(error)));
  }
  if (count == 0) return absl::UnavailableError("no usable GPU: the driver lists none");
  return count;
}

absl::Status SetCudaDevice(int ordinal) {
  const absl::StatusOr<int> count = CudaDeviceCount();
  if (!count.ok()) return count.status();
  if (ordinal < 0 || ordinal >= *count) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no GPU ", ordinal, ": they are numbered 0 to ", *count - 1));
  }
  return CudaStatus("cudaSetDevice", cudaSetDevice(ordinal));
}

absl::StatusOr<CudaDeviceInfo> GetCudaDeviceInfo() {
  int ordinal = 0;
  cudaDeviceProp properties;
  size_t free = 0, total = 0;
  absl::Status status = CudaStatus("cudaGetDevice", cudaGetDevice(&ordinal));
  status.Update(
      CudaStatus("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, ordinal)));
  status.Update(CudaStatus("cudaMemGetInfo", cudaMemGetInfo(&free, &total)));
  if (!status.ok()) return status;
  CudaDeviceInfo info;
  info.name = properties.name;
  info.isa = absl::StrCat("sm_", properties.major, properties.minor);
  info.multiprocessors = properties.multiProcessorCount;
  info.memory_bytes = static_cast<int64_t>(total);
  info.free_bytes = static_cast<int64_t>(free);
  return info;
}

}  // namespace lacuna
