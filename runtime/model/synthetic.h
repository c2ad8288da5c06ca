#ifndef LACUNA_RUNTIME_MODEL_SYNTHETIC_H_
#define LACUNA_RUNTIME_MODEL_SYNTHETIC_H_

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace lacuna {

// Models for benchmarks: the shapes of well-known checkpoints with seeded random weights.
struct SyntheticShape {
  const char* name;
  int32_t hidden_size, ffn_size, num_layers, num_heads, num_kv_heads, vocab_size;
  double sparsity;  // of the checkpoint that the shape is named after
};
const std::vector<SyntheticShape>& SyntheticShapes();

// NOT_FOUND lists the known names.
absl::StatusOr<SyntheticShape> FindSyntheticShape(std::string_view name);

// The configuration of a shape: FATReLU with a threshold of 1 in units of the gate's scale.
ModelConfig SyntheticConfig(const SyntheticShape& shape);

// Weights whose FFN layers reach `sparsity` (in [0.6, 0.99]) on random tokens, and whose neurons
// are unevenly hot, such that the union of active neurons over a batch grows as it does in a real
// layer of ProSparse-LLaMA2-7B (ARCHITECTURE.md, "Synthetic models"). Same seed, same weights.
std::unique_ptr<WeightSource> MakeSyntheticSource(const ModelConfig& config, double sparsity,
                                                  uint64_t seed);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_SYNTHETIC_H_
