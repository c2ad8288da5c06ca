#ifndef LACUNA_RUNTIME_MODEL_CHECKPOINT_H_
#define LACUNA_RUNTIME_MODEL_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/quantized_row.h"
#include "runtime/model/safetensors.h"

namespace lacuna {

// The tensors of a Hugging Face directory: model.safetensors or, failing that, the shards that
// model.safetensors.index.json names. Immutable and thread-safe after Open.
class Checkpoint {
 public:
  // Opens and validates every shard's header; reads no weights. NOT_FOUND, INVALID_ARGUMENT
  // (what is wrong, in which file) or DATA_LOSS (truncated). Every tensor of the index must be in
  // its shard; tensors of a shard that the index does not name are left out.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);

  // Null if there is no tensor of that name.
  const TensorInfo* Find(std::string_view name) const;

  // Reads `rows` rows, the first at row `first_row`, of `tensor` (of this checkpoint, 2-d or 1-d: a
  // 1-d tensor is one row) as float32 or bf16 into `out`, row r at out + r * row_stride bytes.
  // Stored f32, f16 and bf16 are converted as needed, round-to-nearest-even. INVALID_ARGUMENT if
  // the rows are not in the tensor, UNIMPLEMENTED for other stored types, DATA_LOSS if the file
  // has become shorter.
  absl::Status ReadRows(const TensorInfo& tensor, int64_t first_row, int64_t rows, DType as,
                        std::byte* out, int64_t row_stride) const;

  // In no particular order.
  std::vector<std::string_view> names() const;

 private:
  absl::Status OpenSingle(const std::string& path);
  absl::Status OpenShards(const std::string& directory, const std::string& index_path);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, int> file_of_;  // tensor name -> index in files_
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CHECKPOINT_H_
