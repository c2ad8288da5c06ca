#ifndef LACUNA_KERNELS_BASE_ACTIVATION_H_
#define LACUNA_KERNELS_BASE_ACTIVATION_H_

#include <cstdint>

namespace lacuna {

// Activation of the gate of an FFN; of the only projection in, if it has no gate.
enum class ActivationKind : uint8_t {
  kRelu,     // x if x > 0, else 0
  kFatRelu,  // x if x >= threshold, else 0 (ProSparse, arXiv 2402.13516, section 3.3)
  kDRelu,    // kRelu on the gate and on `up` as well (TurboSparse, arXiv 2406.05955, section 4)
  kSilu,     // x / (1 + exp(-x)); has no zeros
};

struct Activation {
  ActivationKind kind = ActivationKind::kSilu;
  float threshold = 0.0f;  // kFatRelu only; > 0

  // True if the activation gives exact zeros, so that neurons can be skipped.
  bool has_zeros() const { return kind != ActivationKind::kSilu; }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_ACTIVATION_H_
