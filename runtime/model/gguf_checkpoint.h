#ifndef LACUNA_RUNTIME_MODEL_GGUF_CHECKPOINT_H_
#define LACUNA_RUNTIME_MODEL_GGUF_CHECKPOINT_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/gguf_file.h"
#include "runtime/model/model_config.h"

namespace lacuna {

// The tensors of a GGUF file of the architectures that ParseGgufConfig knows, as a Checkpoint:
// "blk.3.ffn_up.weight" is "model.layers.3.mlp.up_proj.weight". Thread-safe.
//
// Converters reorder the rows of Q and K, since llama.cpp rotates neighbouring elements of a head
// where transformers rotates element i with element i + head_dim / 2: row 2 * i + half of a head is
// row half * head_dim / 2 + i of the original. ReadRows gives the original order.
//
// PowerInfer stores down_proj transposed, as ffn_down_t, and its predictors as fc1 and fc2, which
// are left out.
class GgufCheckpoint : public Checkpoint {
 public:
  // UNIMPLEMENTED names a tensor that the forward pass would leave out.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Create(const ModelConfig& config,
                                                            std::unique_ptr<GgufFile> file);

  const TensorInfo* Find(std::string_view name) const override;
  absl::Status ReadRows(const TensorInfo& tensor, int64_t first_row, int64_t rows, DType as,
                        std::byte* out, int64_t row_stride) const override;
  std::vector<std::string_view> names() const override;

 private:
  struct Entry {
    TensorInfo info;
    const GgufTensor* stored;
    bool interleaved;  // Q or K
  };

  GgufCheckpoint(int32_t head_dim, std::unique_ptr<GgufFile> file)
      : head_dim_(head_dim), file_(std::move(file)) {}

  const int32_t head_dim_;
  const std::unique_ptr<GgufFile> file_;
  absl::flat_hash_map<std::string, Entry> entries_;  // by Hugging Face's name
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_CHECKPOINT_H_
