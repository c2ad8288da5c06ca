#include "runtime/model/kv_cache.h"

#include <utility>

#include "kernels/base/aligned_buffer.h"
#include "runtime/base/memory.h"

namespace lacuna {

DType KvCache::TypeBeside(DType weights) {
  return IsQuantized(weights) ? DType::kBf16 : DType::kF32;
}

int64_t KvCache::BytesPerBlock(const ModelConfig& config, DType type) {
  return int64_t{2} * config.num_layers * kBlockSize * RowBytes(type, config.kv_dim());
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(const ModelConfig& config,
                                                         int32_t num_blocks, DType type) {
  absl::StatusOr<AlignedBuffer> buffer =
      AlignedBuffer::Allocate(BytesPerBlock(config, type) * num_blocks);
  if (!buffer.ok()) return buffer.status();
  struct Memory {
    explicit Memory(AlignedBuffer all)
        : buffer(std::move(all)), promise(buffer.data(), buffer.size()) {}
    AlignedBuffer buffer;
    PromisedMemory promise;  // blocks are first written when they are first used
  };
  const auto memory = std::make_shared<Memory>(*std::move(buffer));
  return Over(config, num_blocks, type, std::shared_ptr<std::byte>(memory, memory->buffer.data()));
}

std::unique_ptr<KvCache> KvCache::Over(const ModelConfig& config, int32_t num_blocks, DType type,
                                       std::shared_ptr<std::byte> memory) {
  std::unique_ptr<KvCache> cache(new KvCache);
  cache->memory_ = std::move(memory);
  cache->num_blocks_ = num_blocks;
  cache->bytes_per_layer_ = int64_t{num_blocks} * kBlockSize * RowBytes(type, config.kv_dim());
  cache->shape_.type = type;
  cache->shape_.block_size = kBlockSize;
  cache->shape_.kv_heads = config.num_kv_heads;
  cache->shape_.head_dim = config.head_dim;
  return cache;
}

KvView KvCache::layer(int32_t index) const {
  KvView view = shape_;
  view.keys = memory_.get() + 2 * index * bytes_per_layer_;
  view.values = view.keys + bytes_per_layer_;
  return view;
}

}  // namespace lacuna
