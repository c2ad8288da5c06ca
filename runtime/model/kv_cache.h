#ifndef LACUNA_RUNTIME_MODEL_KV_CACHE_H_
#define LACUNA_RUNTIME_MODEL_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/kernel_table.h"
#include "runtime/model/model_config.h"

namespace lacuna {

// Storage of keys and values for every layer, cut into blocks of kBlockSize positions. Which block
// belongs to whom is the engine's business (BlockAllocator); this class only owns the memory, which
// is that of the device that the model computes on (Model::CreateKvCache).
// Not thread-safe: used by the engine thread and the workers of its step.
class KvCache {
 public:
  static constexpr int32_t kBlockSize = 16;

  // Of keys and values beside weights of a type, on the CPU: bf16 beside int8 and int4, else f32.
  static DType TypeBeside(DType weights);
  // Bytes that one block takes over all layers, keys and values. `type`: kF32 or kBf16.
  static int64_t BytesPerBlock(const ModelConfig& config, DType type);
  // Blocks that hold `positions` positions.
  static int32_t BlocksFor(int64_t positions) {
    return static_cast<int32_t>((positions + kBlockSize - 1) / kBlockSize);
  }

  // Bytes of the blocks that hold `positions` positions.
  static int64_t BytesFor(const ModelConfig& config, DType type, int64_t positions) {
    return BlocksFor(positions) * BytesPerBlock(config, type);
  }

  // In the memory of the CPU. RESOURCE_EXHAUSTED if it cannot be had.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(const ModelConfig& config,
                                                         int32_t num_blocks, DType type);
  // In memory of any kind: num_blocks * BytesPerBlock zeros.
  static std::unique_ptr<KvCache> Over(const ModelConfig& config, int32_t num_blocks, DType type,
                                       std::shared_ptr<std::byte> memory);

  int32_t num_blocks() const { return num_blocks_; }
  KvView layer(int32_t index) const;

 private:
  KvCache() = default;
  std::shared_ptr<std::byte> memory_;
  int32_t num_blocks_ = 0;
  int64_t bytes_per_layer_ = 0;  // keys or values of one layer
  KvView shape_;                 // all but the pointers
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_KV_CACHE_H_
