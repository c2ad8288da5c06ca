#include "server/model_host.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <utility>

namespace lacuna {
namespace {

// The number at the start of a one-line file such as memory.max; -1 if absent or not a number.
int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t number = -1;
  return file >> number ? number : -1;
}

}  // namespace

int64_t FreeMemoryBytes() {
  int64_t free_bytes = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key, unit; meminfo >> key;) {
    int64_t kib = 0;
    if (key == "MemAvailable:" && meminfo >> kib) {
      free_bytes = kib * 1024;
      break;
    }
    std::getline(meminfo, unit);
  }
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max");
  const int64_t used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) free_bytes = std::min(free_bytes, std::max<int64_t>(0, limit - used));
  return free_bytes;
}

int32_t KvCacheBlocks(const ModelConfig& config, int64_t kv_cache_mb, int32_t max_concurrent,
                      int64_t free_bytes) {
  const int64_t bytes_per_block = KvCache::BytesPerBlock(config);
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
  absl::StatusOr<std::unique_ptr<KvCache>> cache = KvCache::Create(
      config,
      KvCacheBlocks(config, options.kv_cache_mb, options.max_concurrent, FreeMemoryBytes()));
  if (!cache.ok()) return cache.status();
  host->kv_cache_ = *std::move(cache);
  host->metrics_ =
      std::make_unique<ModelMetrics>(metrics, name, config, host->kv_cache_->num_blocks());

  SchedulerOptions scheduling;
  scheduling.max_concurrent = options.max_concurrent;
  scheduling.max_queue = options.max_queue;
  scheduling.max_step_tokens = options.max_step_tokens;
  scheduling.prefix_cache = options.prefix_cache;
  scheduling.ffn_mode = options.ffn;
  host->scheduler_ =
      std::make_unique<Scheduler>(scheduling, host->loaded_.model.get(), host->kv_cache_.get(),
                                  host->loaded_.tokenizer.get(), host->metrics_.get());
  host->metrics_->OnLoad(host->scheduler_->GetLoad());
  host->scheduler_->Start();
  return host;
}

}  // namespace lacuna
