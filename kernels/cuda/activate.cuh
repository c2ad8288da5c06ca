#ifndef LACUNA_KERNELS_CUDA_ACTIVATE_CUH_
#define LACUNA_KERNELS_CUDA_ACTIVATE_CUH_

#include <cuda_runtime.h>

#include "kernels/base/activation.h"

namespace lacuna {

// As KernelTable::activate: NaN stays NaN, and kDRelu is kRelu.
__device__ __forceinline__ float Activate(Activation activation, float x) {
  switch (activation.kind) {
    case ActivationKind::kRelu:
    case ActivationKind::kDRelu:
      return x <= 0.0f ? 0.0f : x;
    case ActivationKind::kFatRelu:
      return x < activation.threshold ? 0.0f : x;
    case ActivationKind::kSilu:
      break;
  }
  return x / (1.0f + expf(-x));
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_ACTIVATE_CUH_
