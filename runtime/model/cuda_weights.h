#ifndef LACUNA_RUNTIME_MODEL_CUDA_WEIGHTS_H_
#define LACUNA_RUNTIME_MODEL_CUDA_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/ffn.h"
#include "runtime/model/weights.h"

namespace lacuna {

// A norm's vectors [hidden] in device memory; null where there is none.
struct CudaNorm {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// LayerWeights, but for sketches, in device memory. Biases are null where there is none.
struct CudaLayer {
  CudaNorm attention_norm, ffn_norm;
  const float* qkv_bias = nullptr;
  const float* o_bias = nullptr;
  RowMatrix qkv, o;
  CudaFfnWeights ffn;
};

// ModelWeights in device memory: the same bytes in the same layout. Immutable after Upload.
struct CudaWeights {
  RowMatrix embedding, lm_head;
  RowMatrix project_in, project_out, positions;  // empty where there is none
  CudaNorm final_norm;
  std::vector<CudaLayer> layers;
  DeviceBuffer memory;

  // Copies to the calling thread's GPU. What has been copied of the host's memory is freed.
  // RESOURCE_EXHAUSTED if the GPU has no room.
  static absl::StatusOr<CudaWeights> Upload(ModelWeights host);
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CUDA_WEIGHTS_H_
