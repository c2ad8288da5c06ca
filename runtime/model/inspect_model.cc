#include "runtime/model/inspect_model.h"

#include <cstddef>

#include "kernels/base/available_cpus.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/weights.h"

namespace lacuna {

absl::StatusOr<ModelInspection> InspectModel(const LoadOptions& options) {
  const absl::StatusOr<ModelFiles> files = OpenModel(options);
  if (!files.ok()) return files.status();
  const ModelConfig& config = files->config;
  ModelInspection result{.config = config,
                         .parameters = 0,
                         .auto_weights = files->auto_weights,
                         .tokenizer_kind = files->tokenizer->kind(),
                         .tokenizer_ids = files->tokenizer->vocab_size(),
                         .has_chat_template = files->chat_template.ok(),
                         .warnings = files->warnings};
  for (const TensorInfo* tensor : files->source->tensors()) {
    int64_t numbers = 1;
    for (const int64_t size : tensor->shape) numbers *= size;
    result.parameters += numbers;
    result.stored_bytes[tensor->dtype] += tensor->bytes;
  }
  constexpr DType kTypes[] = {DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4};
  const bool sketch = options.predictor == "sketch";
  const int threads = options.threads > 0 ? options.threads : AvailableCpus();
  for (size_t i = 0; i < result.memory.size(); ++i) {
    const DType type = kTypes[i];
    result.memory[i] = {
        .weights = type,
        .weight_bytes = ModelWeights::BytesFor(config, type, sketch),
        .loading_bytes = ModelWeights::LoadingBytes(config, *files->source, type, sketch, threads),
        .kv_bytes_per_1000_tokens = KvCache::BytesFor(config, KvCache::TypeBeside(type), 1000)};
  }
  return result;
}

}  // namespace lacuna
