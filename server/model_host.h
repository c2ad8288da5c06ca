#ifndef LACUNA_SERVER_MODEL_HOST_H_
#define LACUNA_SERVER_MODEL_HOST_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/scheduler.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/load_model.h"
#include "server/model_metrics.h"
#include "server/options.h"

namespace lacuna {

// One model that is served: what LoadModel gave, its KV cache, its metrics and the engine that
// runs it. Immutable but for the engine; thread-safe.
class ModelHost {
 public:
  // Starts the engine. RESOURCE_EXHAUSTED if there is no memory for the KV cache.
  // `metrics` must outlive the host.
  static absl::StatusOr<std::unique_ptr<ModelHost>> Create(const std::string& name,
                                                           LoadedModel loaded,
                                                           const ServerOptions& options,
                                                           Metrics* metrics);

  const std::string& name() const { return name_; }
  const Model& model() const { return *loaded_.model; }
  const Tokenizer& tokenizer() const { return *loaded_.tokenizer; }
  // Or why the model takes no messages.
  const absl::StatusOr<std::unique_ptr<ChatTemplate>>& chat_template() const {
    return loaded_.chat_template;
  }
  const std::vector<std::string>& warnings() const { return loaded_.warnings; }
  const ModelMetrics& metrics() const { return *metrics_; }
  ModelMetrics& metrics() { return *metrics_; }
  // As MaxSequenceLength.
  int32_t max_length() const { return max_length_; }
  // Bytes of text that a token stands for, at most.
  int64_t longest_piece_bytes() const { return longest_piece_bytes_; }
  const KvCache& kv_cache() const { return *kv_cache_; }
  Scheduler& scheduler() { return *scheduler_; }

 private:
  ModelHost() = default;
  std::string name_;
  LoadedModel loaded_;
  int32_t max_length_ = 0;
  int64_t longest_piece_bytes_ = 1;
  std::unique_ptr<KvCache> kv_cache_;
  std::unique_ptr<ModelMetrics> metrics_;
  std::unique_ptr<Scheduler> scheduler_;  // uses all of the above: destroyed first
};

// Blocks of a KV cache: `kv_cache_mb` if not 0; else room for `max_concurrent` sequences of the
// full context, in at most half of `free_bytes`. At least one block.
int32_t KvCacheBlocks(const ModelConfig& config, DType kv_type, int64_t kv_cache_mb,
                      int32_t max_concurrent, int64_t free_bytes);

}  // namespace lacuna

#endif  // LACUNA_SERVER_MODEL_HOST_H_
