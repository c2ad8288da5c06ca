#include "runtime/model/checkpoint_source.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
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
  if (info != nullptr && info->type == StoredType::kOther) {
    return absl::UnimplementedError(absl::StrCat("tensor ", name, " is stored as ", info->dtype,
                                                 ", this build reads F32, F16 and BF16"));
  }
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

// Rows of down_proj that are transposed at a time: a strip of 11008 columns takes 2.7 MiB as
// float32, and a neuron's part of it fills whole cache lines.
constexpr int64_t kStripRows = 64;

// Element first_row + r of out row c = in[r][c], for `in` [rows, cols].
template <typename T>
void TransposeStrip(const T* in, int64_t rows, int64_t cols, int64_t first_row, std::byte* out,
                    int64_t row_stride) {
  for (int64_t c = 0; c < cols; ++c) {
    T* out_row = reinterpret_cast<T*>(out + c * row_stride) + first_row;
    for (int64_t r = 0; r < rows; ++r) out_row[r] = in[r * cols + c];
  }
}

// Infinities and NaNs have all exponent bits set. A zero times such a weight is not zero, so
// leaving it out would change results.
template <typename Bits>
bool AllFinite(const std::byte* data, int64_t rows, int64_t cols, int64_t row_stride,
               Bits exponent) {
  for (int64_t r = 0; r < rows; ++r) {
    const Bits* row = reinterpret_cast<const Bits*>(data + r * row_stride);
    bool finite = true;
    for (int64_t c = 0; c < cols; ++c) finite &= (row[c] & exponent) != exponent;
    if (!finite) return false;
  }
  return true;
}

absl::Status CheckFinite(const std::string& name, DType type, const std::byte* data, int64_t rows,
                         int64_t cols, int64_t row_stride) {
  const bool finite = type == DType::kBf16
                          ? AllFinite<uint16_t>(data, rows, cols, row_stride, 0x7F80)
                          : AllFinite<uint32_t>(data, rows, cols, row_stride, 0x7F800000);
  if (finite) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", name, " holds an infinity or a NaN as ", DTypeName(type)));
}

constexpr Tensor kLayerTensors[] = {
    Tensor::kAttentionNorm, Tensor::kFfnNorm, Tensor::kQ,   Tensor::kK, Tensor::kV, Tensor::kO,
    Tensor::kGate,          Tensor::kUp,      Tensor::kDown};

// Refuses weights of a layer that the forward pass would leave out, such as biases.
absl::Status CheckNothingIsLeftOut(const Checkpoint& checkpoint, const ModelConfig& config) {
  absl::flat_hash_set<std::string> known;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (Tensor tensor : kLayerTensors) known.insert(TensorName(tensor, layer));
  }
  for (const std::string_view view : checkpoint.names()) {
    const std::string name(view);
    // A buffer of older transformers: derived from the configuration.
    if (absl::EndsWith(name, ".rotary_emb.inv_freq")) continue;
    if (absl::StartsWith(name, "model.layers.") && !known.contains(name)) {
      return absl::UnimplementedError(
          absl::StrCat("the checkpoint has tensor ", name, ", which this build does not use"));
    }
  }
  return absl::OkStatus();
}

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
  status.Update(CheckNothingIsLeftOut(*checkpoint, config));
  if (!status.ok()) return status;
  return std::unique_ptr<CheckpointSource>(new CheckpointSource(config, std::move(checkpoint)));
}

absl::Status CheckpointSource::Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                                    int64_t row_stride) const {
  const TensorInfo& info = *checkpoint_->Find(TensorName(tensor, layer));
  const int64_t cols = info.shape.back();
  const int64_t rows = info.shape.size() == 1 ? 1 : info.shape[0];
  if (tensor != Tensor::kDown) {
    const absl::Status status = checkpoint_->ReadRows(info, 0, rows, as, out, row_stride);
    return status.ok() ? CheckFinite(info.name, as, out, rows, cols, row_stride) : status;
  }
  std::vector<std::byte> strip(RowBytes(as, std::min(rows, kStripRows) * cols));
  const int64_t strip_stride = RowBytes(as, cols);
  for (int64_t first = 0; first < rows; first += kStripRows) {
    const int64_t count = std::min(kStripRows, rows - first);
    absl::Status status = checkpoint_->ReadRows(info, first, count, as, strip.data(), strip_stride);
    if (status.ok()) {
      status = CheckFinite(info.name, as, strip.data(), count, cols, strip_stride);
    }
    if (!status.ok()) return status;
    if (as == DType::kBf16) {
      TransposeStrip(reinterpret_cast<const uint16_t*>(strip.data()), count, cols, first, out,
                     row_stride);
    } else {
      TransposeStrip(reinterpret_cast<const float*>(strip.data()), count, cols, first, out,
                     row_stride);
    }
  }
  return absl::OkStatus();
}

DType CheckpointSource::stored_dtype() const {
  const TensorInfo& info = *checkpoint_->Find(TensorName(Tensor::kEmbedding, 0));
  return info.type == StoredType::kBf16 ? DType::kBf16 : DType::kF32;
}

}  // namespace lacuna
