// The CUDA models of a build without LACUNA_CUDA.
#include "runtime/model/make_cuda_model.h"

namespace lacuna {
namespace {

absl::Status NoCuda() {
  return absl::UnimplementedError("this build has no CUDA backend (CMake option LACUNA_CUDA)");
}

}  // namespace

absl::Status CheckCudaMemory(const ModelConfig&, DType, int) { return NoCuda(); }

absl::StatusOr<std::unique_ptr<Model>> MakeCudaModel(const ModelConfig&, ModelWeights, int) {
  return NoCuda();
}

}  // namespace lacuna
