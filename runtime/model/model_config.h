#ifndef LACUNA_RUNTIME_MODEL_MODEL_CONFIG_H_
#define LACUNA_RUNTIME_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/activation.h"
#include "runtime/model/rope.h"

namespace lacuna {

enum class NormKind : uint8_t {
  kRms,    // x / rms(x) * weight
  kLayer,  // (x - mean) / deviation * weight + bias
};

enum class PositionKind : uint8_t {
  kRotary,   // queries and keys are rotated
  kLearned,  // a row of a table is added to the embedding
};

// OPT's table of positions has two more rows than positions; the first two belong to none.
inline constexpr int32_t kLearnedPositionOffset = 2;

// What the forward pass needs to know, normalised from the many spellings of config.json. The
// defaults are LLaMA's.
struct ModelConfig {
  std::string architecture;  // for people, as the file says or implies: "LlamaForCausalLM"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t ffn_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t max_context = 0;  // positions
  Activation activation;
  bool gated = true;      // activation(x . Wgate) * (x . Wup); else activation(x . Wgate + bias)
  bool ffn_bias = false;  // of the ungated FFN's projections in and out
  bool attention_bias = false;  // of the projections q, k, v and o
  NormKind norm = NormKind::kRms;
  bool norm_after = false;  // of what a block leaves in the residual stream, not of what it reads
  bool final_norm = true;
  float norm_eps = 1e-5f;
  PositionKind positions = PositionKind::kRotary;
  float rope_theta = 10000.0f;
  RopeScaling rope_scaling;
  int32_t sliding_window = 0;  // positions a token attends to, its own among them; 0: all
  bool tie_embeddings = false;
  // Width of the rows of the embeddings and the lm_head, if they are projected to hidden_size and
  // back; else 0.
  int32_t projected_embedding_size = 0;
  // muP scales of the MiniCPM architecture; 1 elsewhere, whatever keys a file carries.
  float embedding_scale = 1.0f;
  float residual_scale = 1.0f;
  float logits_scale = 1.0f;  // hidden is multiplied by this before lm_head
  int32_t bos_id = -1;
  std::vector<int32_t> eos_ids;  // of config.json and generation_config.json together
  // For people: why the activation is not what the files say, if it is not; other keys that do not
  // mean what they say.
  std::string activation_note;
  std::vector<std::string> notes;

  int32_t q_dim() const { return num_heads * head_dim; }
  int32_t kv_dim() const { return num_kv_heads * head_dim; }
  int32_t embedding_size() const {
    return projected_embedding_size > 0 ? projected_embedding_size : hidden_size;
  }
};

// Parses config.json (and, if not empty, generation_config.json). `activation`, if not empty (see
// ParseActivation), replaces the one that the file declares. INVALID_ARGUMENT names the key
// and value at fault; UNIMPLEMENTED an architecture or feature that this build does not run.
// Every number is checked against the bounds of the format, so that no product of two overflows.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json,
                                             std::string_view activation = "");

// Makes `activation` (see ParseActivation) that of *config. INVALID_ARGUMENT if there is none of
// that name or it needs a gate that the model does not have.
absl::Status ReplaceActivation(std::string_view activation, ModelConfig* config);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_MODEL_CONFIG_H_
