#ifndef LACUNA_RUNTIME_MODEL_MODEL_CONFIG_H_
#define LACUNA_RUNTIME_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/activation.h"

namespace lacuna {

// What the forward pass needs to know, normalised from the many spellings of config.json.
struct ModelConfig {
  std::string architecture;  // as the file says, for people: "LlamaForCausalLM"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t ffn_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t max_context = 0;  // positions
  Activation activation;
  float norm_eps = 1e-5f;
  float rope_theta = 10000.0f;
  bool tie_embeddings = false;
  // muP scales of the MiniCPM architecture; 1 elsewhere, whatever keys a file carries.
  float embedding_scale = 1.0f;
  float residual_scale = 1.0f;
  float logits_scale = 1.0f;  // hidden is multiplied by this before lm_head
  int32_t bos_id = -1;
  std::vector<int32_t> eos_ids;  // of config.json and generation_config.json together

  int32_t q_dim() const { return num_heads * head_dim; }
  int32_t kv_dim() const { return num_kv_heads * head_dim; }
};

// Parses config.json (and, if not empty, generation_config.json). INVALID_ARGUMENT names the key
// and value at fault; UNIMPLEMENTED an architecture or feature that this build does not run.
// Every number is checked against the bounds of the format, so that no product of two overflows.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_MODEL_CONFIG_H_
