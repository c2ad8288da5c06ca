#ifndef LACUNA_TESTS_RUNTIME_MODEL_MODEL_CONFIG_JSON_H_
#define LACUNA_TESTS_RUNTIME_MODEL_MODEL_CONFIG_JSON_H_

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/model/model_config.h"

namespace lacuna {

// A config.json that parses.
inline nlohmann::json Llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "relu"},
          {"vocab_size", 32000},
          {"hidden_size", 4096},
          {"intermediate_size", 11008},
          {"num_hidden_layers", 32},
          {"num_attention_heads", 32},
          {"num_key_value_heads", 8},
          {"max_position_embeddings", 2048},
          {"rms_norm_eps", 1e-5},
          {"bos_token_id", 1},
          {"eos_token_id", 2}};
}

// Llama() with some keys replaced.
inline nlohmann::json With(const nlohmann::json& changes) {
  nlohmann::json config = Llama();
  config.update(changes);
  return config;
}
inline nlohmann::json Without(const char* key) {
  nlohmann::json config = Llama();
  config.erase(key);
  return config;
}

inline absl::StatusOr<ModelConfig> Parse(const nlohmann::json& config,
                                         const std::string& generation = "") {
  return ParseModelConfig(config.dump(), generation);
}

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_MODEL_MODEL_CONFIG_JSON_H_
