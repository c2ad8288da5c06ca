#ifndef LACUNA_RUNTIME_MODEL_CHECKPOINT_H_
#define LACUNA_RUNTIME_MODEL_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/quantized_row.h"
#include "runtime/model/tensor_info.h"

namespace lacuna {

// The tensors of a model, under the names, in the shapes and with the order of rows that Hugging
// Face's transformers gives them. Immutable and thread-safe.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // A Hugging Face directory: model.safetensors or, failing that, the shards that
  // model.safetensors.index.json names. Opens and validates every shard's header; reads no weights.
  // NOT_FOUND, INVALID_ARGUMENT (what is wrong, in which file) or DATA_LOSS (truncated). Every
  // tensor of the index must be in its shard; tensors of a shard that the index does not name are
  // left out.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);

  // Null if there is no tensor of that name.
  virtual const TensorInfo* Find(std::string_view name) const = 0;

  // Reads `rows` rows, the first at row `first_row`, of `tensor` (of this checkpoint, 2-d or 1-d: a
  // 1-d tensor is one row) as float32 or bf16 into `out`, row r at out + r * row_stride bytes.
  // What is stored is converted as needed, round-to-nearest-even. INVALID_ARGUMENT if the rows are
  // not in the tensor, UNIMPLEMENTED for stored types that are not read, DATA_LOSS if the file has
  // become shorter.
  virtual absl::Status ReadRows(const TensorInfo& tensor, int64_t first_row, int64_t rows, DType as,
                                std::byte* out, int64_t row_stride) const = 0;

  // In no particular order.
  virtual std::vector<std::string_view> names() const = 0;
};

// INVALID_ARGUMENT if these are no rows of `tensor`, or it is neither a matrix nor a vector.
absl::Status CheckRows(const TensorInfo& tensor, int64_t first_row, int64_t rows);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CHECKPOINT_H_
