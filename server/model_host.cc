#include "server/model_host.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/engine/engine.h"

namespace lacuna {

int32_t KvCacheBlocks(const ModelConfig& config, DType kv_type, int64_t kv_cache_mb,
                      int32_t max_concurrent, int64_t free_bytes) {
  const int64_t bytes_per_block = KvCache::BytesPerBlock(config, kv_type);
  int64_t blocks = 0;
  if (kv_cache_mb > 0) {
    blocks = kv_cache_mb * (int64_t{1} << 20) / bytes_per_block;
  } else {
    const int64_t wanted = int64_t{KvCache::BlocksFor(config.max_context)} * max_concurrent;
    blocks = std::min(wanted, free_bytes / 2 / bytes_per_block);
  }
  return static_cast<int32_t>(
      std::clamp<int64_t>(blocks, 1, std::numeric_limits<int32_t>::max() / KvCache::kBlockSize));
}

absl::StatusOr<std::unique_ptr<ModelHost>> ModelHost::Create(const std::string& name,
                                                             LoadedModel loaded,
                                                             const ServerOptions& options,
                                                             Metrics* metrics) {
  auto host = std::unique_ptr<ModelHost>(new ModelHost);
  host->name_ = name;
  host->loaded_ = std::move(loaded);
  const ModelConfig& config = host->model().config();
  const DType kv_type = host->model().facts().kv_type;
  absl::StatusOr<std::unique_ptr<KvCache>> cache = host->model().CreateKvCache(
      KvCacheBlocks(config, kv_type, options.kv_cache_mb, options.max_concurrent,
                    host->model().AvailableBytes()));
  if (!cache.ok()) return cache.status();
  host->kv_cache_ = *std::move(cache);
  host->max_length_ = MaxSequenceLength(host->model(), *host->kv_cache_);
  const Tokenizer& tokenizer = host->tokenizer();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    host->longest_piece_bytes_ =
        std::max<int64_t>(host->longest_piece_bytes_, tokenizer.TokenBytes(id).size());
  }
  host->metrics_ = std::make_unique<ModelMetrics>(
      metrics, name, config, host->model().facts().has_predictor, host->kv_cache_->num_blocks());

  SchedulerOptions scheduling;
  scheduling.max_concurrent = options.max_concurrent;
  scheduling.max_queue = options.max_queue;
  scheduling.max_step_tokens = options.max_step_tokens;
  scheduling.prefix_cache = options.prefix_cache;
  scheduling.ffn_mode = options.ffn;
  scheduling.pool = host->loaded_.pool.get();
  host->scheduler_ =
      std::make_unique<Scheduler>(scheduling, host->loaded_.model.get(), host->kv_cache_.get(),
                                  host->loaded_.tokenizer.get(), host->metrics_.get());
  host->metrics_->OnLoad(host->scheduler_->GetLoad());
  host->scheduler_->Start();
  return host;
}

}  // namespace lacuna
