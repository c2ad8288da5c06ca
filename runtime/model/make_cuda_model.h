#ifndef LACUNA_RUNTIME_MODEL_MAKE_CUDA_MODEL_H_
#define LACUNA_RUNTIME_MODEL_MAKE_CUDA_MODEL_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/model/model.h"
#include "runtime/model/weights.h"

// What the runtime knows of CUDA. A build without it links no_cuda_model.cc instead, where both are
// UNIMPLEMENTED.
namespace lacuna {

// Whether MakeCudaModel can be expected to succeed, to be asked before weights are read:
// RESOURCE_EXHAUSTED, with numbers, if the GPU has less memory free than the model takes without
// its KV cache; UNIMPLEMENTED, naming it, for a shape that the kernels do not take.
absl::Status CheckCudaMemory(const ModelConfig& config, DType dtype, int gpu);

// A model that computes on GPU number `gpu`. Copies the weights there, layer by layer, and gives
// back the host's memory as it goes; calibrates. Errors as above.
absl::StatusOr<std::unique_ptr<Model>> MakeCudaModel(const ModelConfig& config,
                                                     ModelWeights weights, int gpu);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_MAKE_CUDA_MODEL_H_
