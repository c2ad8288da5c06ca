#include "runtime/model/checkpoint_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lacuna {
namespace {

std::string TensorName(Tensor tensor, int32_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  switch (tensor) {
    case Tensor::kEmbedding:
      return "model.embed_tokens.weight";
    case Tensor::kLmHead:
      return "lm_head.weight";
    case Tensor::kFinalNorm:
      return "model.norm.weight";
    case Tensor::kAttentionNorm:
      return prefix + "input_layernorm.weight";
    case Tensor::kFfnNorm:
      return prefix + "post_attention_layernorm.weight";
    case Tensor::kQ:
      return prefix + "self_attn.q_proj.weight";
    case Tensor::kK:
      return prefix + "self_attn.k_proj.weight";
    case Tensor::kV:
      return prefix + "self_attn.v_proj.weight";
    case Tensor::kO:
      return prefix + "self_attn.o_proj.weight";
    case Tensor::kGate:
      return prefix + "mlp.gate_proj.weight";
    case Tensor::kUp:
      return prefix + "mlp.up_proj.weight";
    case Tensor::kDown:
      return prefix + "mlp.down_proj.weight";
  }
  return "";
}

// As checkpoints store it.
std::vector<int64_t> StoredShape(const ModelConfig& c, Tensor tensor) {
  switch (tensor) {
    case Tensor::kEmbedding:
    case Tensor::kLmHead:
      return {c.vocab_size, c.hidden_size};
    case Tensor::kFinalNorm:
    case Tensor::kAttentionNorm:
    case Tensor::kFfnNorm:
      return {c.hidden_size};
    case Tensor::kQ:
      return {c.q_dim(), c.hidden_size};
    case Tensor::kK:
    case Tensor::kV:
      return {c.kv_dim(), c.hidden_size};
    case Tensor::kO:
      return {c.hidden_size, c.q_dim()};
    case Tensor::kGate:
    case Tensor::kUp:
      return {c.ffn_size, c.hidden_size};
    case Tensor::kDown:
      return {c.hidden_size, c.ffn_size};
  }
  return {};
}

absl::Status CheckShape(const Checkpoint& checkpoint, const ModelConfig& config, Tensor tensor,
                        int32_t layer) {
  const std::string name = TensorName(tensor, layer);
  const TensorInfo* info = checkpoint.Find(name);
  if (info == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint has no tensor ", name,
                                                   ", which config.json calls for (",
                                                   config.num_layers, " layers)"));
  }
  const std::vector<int64_t> want = StoredShape(config, tensor);
  if (info->shape != want) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(info->shape, ", "),
                     "], config.json calls for [", absl::StrJoin(want, ", "), "]"));
  }
  return absl::OkStatus();
}

// out row j = column j of `in` [rows, cols], in square tiles that stay in the first-level cache.
template <typename T>
void Transpose(const T* in, int64_t rows, int64_t cols, std::byte* out, int64_t row_stride) {
  constexpr int64_t kTile = 32;
  for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
    for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
      for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
        T* out_row = reinterpret_cast<T*>(out + c * row_stride);
        for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) out_row[r] = in[r * cols + c];
      }
    }
  }
}

constexpr Tensor kLayerTensors[] = {
    Tensor::kAttentionNorm, Tensor::kFfnNorm, Tensor::kQ,   Tensor::kK, Tensor::kV, Tensor::kO,
    Tensor::kGate,          Tensor::kUp,      Tensor::kDown};

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointSource>> CheckpointSource::Create(
    const ModelConfig& config, std::unique_ptr<Checkpoint> checkpoint) {
  absl::Status status = CheckShape(*checkpoint, config, Tensor::kEmbedding, 0);
  status.Update(CheckShape(*checkpoint, config, Tensor::kFinalNorm, 0));
  if (!config.tie_embeddings) {
    status.Update(CheckShape(*checkpoint, config, Tensor::kLmHead, 0));
  }
  for (int32_t layer = 0; status.ok() && layer < config.num_layers; ++layer) {
    for (Tensor tensor : kLayerTensors) {
      status.Update(CheckShape(*checkpoint, config, tensor, layer));
    }
  }
  if (!status.ok()) return status;
  return std::unique_ptr<CheckpointSource>(new CheckpointSource(config, std::move(checkpoint)));
}

absl::Status CheckpointSource::Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                                    int64_t row_stride) const {
  const TensorInfo& info = *checkpoint_->Find(TensorName(tensor, layer));
  const int64_t cols = info.shape.back();
  const int64_t rows = info.shape.size() == 1 ? 1 : info.shape[0];
  if (tensor != Tensor::kDown) return checkpoint_->ReadRows(info, 0, rows, as, out, row_stride);

  std::vector<std::byte> stored(RowBytes(as, rows * cols));
  absl::Status status = checkpoint_->ReadRows(info, 0, rows, as, stored.data(), RowBytes(as, cols));
  if (!status.ok()) return status;
  if (as == DType::kBf16) {
    Transpose(reinterpret_cast<const uint16_t*>(stored.data()), rows, cols, out, row_stride);
  } else {
    Transpose(reinterpret_cast<const float*>(stored.data()), rows, cols, out, row_stride);
  }
  return status;
}

DType CheckpointSource::stored_dtype() const {
  const TensorInfo& info = *checkpoint_->Find(TensorName(Tensor::kEmbedding, 0));
  return info.type == StoredType::kBf16 ? DType::kBf16 : DType::kF32;
}

}  // namespace lacuna
