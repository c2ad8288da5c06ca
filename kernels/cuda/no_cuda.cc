// The CUDA backend of a build without LACUNA_CUDA. Who has asked here uses nothing else of it.
#include "absl/status/status.h"
#include "kernels/cuda/cuda_device.h"

namespace lacuna {

absl::StatusOr<int> CudaDeviceCount() {
  return absl::UnimplementedError("this build has no CUDA backend (CMake option LACUNA_CUDA)");
}

}  // namespace lacuna
