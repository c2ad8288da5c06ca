// A build without LACUNA_CUDA.
#include "bench/cuda_bandwidth.h"

namespace lacuna {

absl::StatusOr<double> CudaCopyBandwidth(int) {
  return absl::UnimplementedError("this build has no CUDA backend (CMake option LACUNA_CUDA)");
}

}  // namespace lacuna
