#ifndef LACUNA_RUNTIME_MODEL_CHECKPOINT_SOURCE_H_
#define LACUNA_RUNTIME_MODEL_CHECKPOINT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace lacuna {

// The weights of a checkpoint with LLaMA's tensor names, or OPT's if the config has no
// gate. Of its matrices only down_proj may be stored transposed. Thread-safe.
class CheckpointSource : public WeightSource {
 public:
  // Checks, before any weight is read, that every tensor the config calls for is there with the
  // right shape (INVALID_ARGUMENT names the tensor, its shape and the one wanted), in a type that
  // can be read, and that the layers have no others (UNIMPLEMENTED). If a file stores an lm_head
  // although the config ties it, the config wins. `config` is copied; `checkpoint` is owned.
  static absl::StatusOr<std::unique_ptr<CheckpointSource>> Create(
      const ModelConfig& config, std::unique_ptr<Checkpoint> checkpoint);

  // INVALID_ARGUMENT also for a weight that is not finite in the type asked for.
  absl::Status Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                    int64_t row_stride) const override;

  // As stored, all that the config calls for. They live as long as the source.
  std::vector<const TensorInfo*> tensors() const;
  // Whether the files store an lm_head of their own although the config ties it.
  bool has_unused_lm_head() const;

  // bf16 if the embedding is stored as bf16, else f32: what `--weights=auto` keeps.
  DType stored_dtype() const override;

 private:
  CheckpointSource(const ModelConfig& config, std::unique_ptr<Checkpoint> checkpoint);

  // Calls visit(tensor, layer) for every tensor that the config calls for, layer by layer.
  template <typename Visitor>
  void ForEachTensor(Visitor visit) const;
  absl::Status CheckTensors() const;
  absl::Status CheckTensor(Tensor tensor, int32_t layer) const;
  absl::Status CheckNothingIsLeftOut() const;
  std::string Name(Tensor tensor, int32_t layer) const;
  std::vector<int64_t> StoredShape(Tensor tensor) const;

  const ModelConfig config_;
  const std::unique_ptr<Checkpoint> checkpoint_;
  const std::string prefix_;  // of the names of all tensors but the lm_head
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CHECKPOINT_SOURCE_H_
