#include "runtime/model/model.h"

#include "runtime/base/memory.h"

namespace lacuna {

absl::StatusOr<std::unique_ptr<KvCache>> Model::CreateKvCache(int32_t num_blocks) const {
  return KvCache::Create(config(), num_blocks, facts().kv_type);
}

int64_t Model::AvailableBytes() const { return AvailableMemoryBytes(); }

}  // namespace lacuna
