#ifndef LACUNA_RUNTIME_MODEL_ACTIVATION_NAME_H_
#define LACUNA_RUNTIME_MODEL_ACTIVATION_NAME_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/base/activation.h"

namespace lacuna {

// "relu", "fatrelu:T" with a threshold T in [1e-6, 1e6], "drelu" or "silu". INVALID_ARGUMENT for
// anything else.
absl::StatusOr<Activation> ParseActivation(std::string_view text);

// The reverse.
std::string ActivationName(const Activation& activation);

// "relu", "fatrelu", "drelu" or "silu".
const char* ActivationKindName(ActivationKind kind);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_ACTIVATION_NAME_H_
