// The CUDA backend of a build without LACUNA_CUDA. Who has asked here uses nothing else of it.
#include "absl/status/status.h"
#include "kernels/cuda/cuda_device.h"

namespace lacuna {

namespace {

constexpr char kNone[] = "this build has no CUDA backend (CMake option LACUNA_CUDA)";

}  // namespace

absl::StatusOr<int> CudaDeviceCount() { return absl::UnimplementedError(kNone); }

absl::Status CheckCudaDevice(int) { return absl::UnimplementedError(kNone); }

}  // namespace lacuna
