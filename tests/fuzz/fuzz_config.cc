#include <algorithm>
#include <string_view>

#include "runtime/model/model_config.h"
#include "tests/fuzz/fuzz_check.h"

// Input: config.json, and generation_config.json after a NUL.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const auto config =
      lacuna::ParseModelConfig(input.substr(0, end), input.substr(std::min(end + 1, input.size())));
  if (!config.ok()) {
    FUZZ_CHECK(config.status().code() == absl::StatusCode::kInvalidArgument ||
               config.status().code() == absl::StatusCode::kUnimplemented);
    return 0;
  }
  FUZZ_CHECK(config->vocab_size >= 1 && config->vocab_size <= 1 << 20);
  FUZZ_CHECK(config->num_layers >= 1 && config->num_layers <= 1024);
  FUZZ_CHECK(config->num_kv_heads >= 1 && config->num_heads % config->num_kv_heads == 0);
  FUZZ_CHECK(config->head_dim >= 2 && config->head_dim % 2 == 0);
  FUZZ_CHECK(config->q_dim() > 0 && config->norm_eps > 0 && config->rope_theta >= 1);
  FUZZ_CHECK(config->max_context >= 1 && config->max_context <= 1 << 20);
  FUZZ_CHECK(config->sliding_window >= 0 && config->sliding_window < config->max_context);
  FUZZ_CHECK(config->rope_scaling.factor >= 1 && config->rope_scaling.trained_context >= 0);
  FUZZ_CHECK(config->embedding_size() >= 1 && config->embedding_size() <= 65536);
  FUZZ_CHECK(config->bos_id >= -1 && config->bos_id < config->vocab_size);
  for (const int32_t id : config->eos_ids) FUZZ_CHECK(id >= 0 && id < config->vocab_size);
  FUZZ_CHECK(config->activation.kind != lacuna::ActivationKind::kFatRelu ||
             config->activation.threshold > 0);
  return 0;
}
