#ifndef LACUNA_RUNTIME_MODEL_INSPECT_MODEL_H_
#define LACUNA_RUNTIME_MODEL_INSPECT_MODEL_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/load_model.h"

namespace lacuna {

// Memory that a model takes with weights of one type.
struct MemoryNeed {
  DType weights;
  int64_t weight_bytes;   // when it is loaded
  int64_t loading_bytes;  // the most that loading takes; refused if there is less
  // Keys and values of 1,000 positions, in whole blocks.
  int64_t kv_bytes_per_1000_tokens;
};

// What LoadModel would make of a model's files.
struct ModelInspection {
  ModelConfig config;
  int64_t parameters;
  std::map<std::string, int64_t> stored_bytes;  // by type, as the files spell it: {"BF16": 12}
  DType auto_weights;                           // what --weights=auto stands for
  std::array<MemoryNeed, 4> memory;             // of f32, bf16, int8 and int4
  std::string tokenizer_kind;                   // Tokenizer::kind()
  int32_t tokenizer_ids;
  bool has_chat_template;
  std::vector<std::string> warnings;  // as in ModelFiles
};

// Reads headers, configuration and tokenizer, and no weights: as long as LoadModel takes to refuse
// a model. Errors are LoadModel's, but for those of the weights' values. Of `options`, path,
// activation, threads and predictor count.
absl::StatusOr<ModelInspection> InspectModel(const LoadOptions& options);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_INSPECT_MODEL_H_
