#include "runtime/model/checkpoint_source.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lacuna {
namespace {

// How checkpoints name a tensor; "" where the family has none.
struct TensorNames {
  Tensor tensor;
  bool in_layer;
  const char* llama;
  const char* opt;
};

constexpr TensorNames kNames[] = {
    {Tensor::kEmbedding, false, "embed_tokens.weight", "embed_tokens.weight"},
    {Tensor::kPositions, false, "", "embed_positions.weight"},
    {Tensor::kProjectIn, false, "", "project_in.weight"},
    {Tensor::kProjectOut, false, "", "project_out.weight"},
    {Tensor::kFinalNorm, false, "norm.weight", "final_layer_norm.weight"},
    {Tensor::kFinalNormBias, false, "", "final_layer_norm.bias"},
    {Tensor::kLmHead, false, "lm_head.weight", "lm_head.weight"},
    {Tensor::kAttentionNorm, true, "input_layernorm.weight", "self_attn_layer_norm.weight"},
    {Tensor::kAttentionNormBias, true, "", "self_attn_layer_norm.bias"},
    {Tensor::kFfnNorm, true, "post_attention_layernorm.weight", "final_layer_norm.weight"},
    {Tensor::kFfnNormBias, true, "", "final_layer_norm.bias"},
    {Tensor::kQ, true, "self_attn.q_proj.weight", "self_attn.q_proj.weight"},
    {Tensor::kK, true, "self_attn.k_proj.weight", "self_attn.k_proj.weight"},
    {Tensor::kV, true, "self_attn.v_proj.weight", "self_attn.v_proj.weight"},
    {Tensor::kO, true, "self_attn.o_proj.weight", "self_attn.out_proj.weight"},
    {Tensor::kQBias, true, "self_attn.q_proj.bias", "self_attn.q_proj.bias"},
    {Tensor::kKBias, true, "self_attn.k_proj.bias", "self_attn.k_proj.bias"},
    {Tensor::kVBias, true, "self_attn.v_proj.bias", "self_attn.v_proj.bias"},
    {Tensor::kOBias, true, "self_attn.o_proj.bias", "self_attn.out_proj.bias"},
    {Tensor::kGate, true, "mlp.gate_proj.weight", "fc1.weight"},
    {Tensor::kUp, true, "mlp.up_proj.weight", ""},
    {Tensor::kDown, true, "mlp.down_proj.weight", "fc2.weight"},
    {Tensor::kGateBias, true, "", "fc1.bias"},
    {Tensor::kDownBias, true, "", "fc2.bias"},
};

// Whether a model of this configuration has the tensor.
bool Wants(const ModelConfig& c, Tensor tensor) {
  switch (tensor) {
    case Tensor::kLmHead:
      return !c.tie_embeddings;
    case Tensor::kPositions:
      return c.positions == PositionKind::kLearned;
    case Tensor::kProjectIn:
    case Tensor::kProjectOut:
      return c.projected_embedding_size > 0;
    case Tensor::kFinalNorm:
      return c.final_norm;
    case Tensor::kFinalNormBias:
      return c.final_norm && c.norm == NormKind::kLayer;
    case Tensor::kAttentionNormBias:
    case Tensor::kFfnNormBias:
      return c.norm == NormKind::kLayer;
    case Tensor::kQBias:
    case Tensor::kKBias:
    case Tensor::kVBias:
    case Tensor::kOBias:
      return c.attention_bias;
    case Tensor::kUp:
      return c.gated;
    case Tensor::kGateBias:
    case Tensor::kDownBias:
      return c.ffn_bias;
    default:
      return true;
  }
}

// OPT's tensors are called model.decoder.X, or decoder.X in files written from the bare decoder.
std::string FindPrefix(const ModelConfig& config, const Checkpoint& checkpoint) {
  if (config.gated) return "model.";
  return checkpoint.Find("decoder.embed_tokens.weight") != nullptr ? "decoder." : "model.decoder.";
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
    Bits special = 0;  // as wide as the elements, so that compilers make vectors of the loop
    for (int64_t c = 0; c < cols; ++c) special |= (row[c] & exponent) == exponent ? 1 : 0;
    if (special != 0) return false;
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

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointSource>> CheckpointSource::Create(
    const ModelConfig& config, std::unique_ptr<Checkpoint> checkpoint) {
  std::unique_ptr<CheckpointSource> source(new CheckpointSource(config, std::move(checkpoint)));
  absl::Status status = source->CheckTensors();
  status.Update(source->CheckNothingIsLeftOut());
  if (!status.ok()) return status;
  return source;
}

CheckpointSource::CheckpointSource(const ModelConfig& config,
                                   std::unique_ptr<Checkpoint> checkpoint)
    : config_(config),
      checkpoint_(std::move(checkpoint)),
      prefix_(FindPrefix(config_, *checkpoint_)) {}

std::string CheckpointSource::Name(Tensor tensor, int32_t layer) const {
  const auto* it = std::find_if(std::begin(kNames), std::end(kNames),
                                [tensor](const TensorNames& n) { return n.tensor == tensor; });
  const char* const name = config_.gated ? it->llama : it->opt;
  if (tensor == Tensor::kLmHead) return name;
  return it->in_layer ? absl::StrCat(prefix_, "layers.", layer, ".", name)
                      : absl::StrCat(prefix_, name);
}

// As checkpoints store it: unlike a WeightSource's, vectors are 1-d and `down` is transposed.
std::vector<int64_t> CheckpointSource::StoredShape(Tensor tensor) const {
  const ModelConfig& c = config_;
  switch (tensor) {
    case Tensor::kEmbedding:
    case Tensor::kLmHead:
      return {c.vocab_size, c.embedding_size()};
    case Tensor::kPositions:
      return {c.max_context + kLearnedPositionOffset, c.hidden_size};
    case Tensor::kProjectIn:
      return {c.hidden_size, c.embedding_size()};
    case Tensor::kProjectOut:
      return {c.embedding_size(), c.hidden_size};
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
    case Tensor::kQBias:
      return {c.q_dim()};
    case Tensor::kKBias:
    case Tensor::kVBias:
      return {c.kv_dim()};
    case Tensor::kGateBias:
      return {c.ffn_size};
    case Tensor::kFinalNorm:
    case Tensor::kAttentionNorm:
    case Tensor::kFfnNorm:
    case Tensor::kFinalNormBias:
    case Tensor::kAttentionNormBias:
    case Tensor::kFfnNormBias:
    case Tensor::kOBias:
    case Tensor::kDownBias:
      return {c.hidden_size};
  }
  return {};
}

template <typename Visitor>
void CheckpointSource::ForEachTensor(Visitor visit) const {
  for (int32_t layer = -1; layer < config_.num_layers; ++layer) {
    for (const TensorNames& names : kNames) {
      if (names.in_layer == (layer >= 0) && Wants(config_, names.tensor)) {
        visit(names.tensor, layer);
      }
    }
  }
}

absl::Status CheckpointSource::CheckTensors() const {
  absl::Status status;
  ForEachTensor([&](Tensor tensor, int32_t layer) {
    if (status.ok()) status = CheckTensor(tensor, layer);
  });
  return status;
}

std::vector<const TensorInfo*> CheckpointSource::tensors() const {
  std::vector<const TensorInfo*> tensors;
  ForEachTensor([&](Tensor tensor, int32_t layer) {
    tensors.push_back(checkpoint_->Find(Name(tensor, layer)));
  });
  return tensors;
}

bool CheckpointSource::has_unused_lm_head() const {
  return config_.tie_embeddings && checkpoint_->Find(Name(Tensor::kLmHead, 0)) != nullptr;
}

absl::Status CheckpointSource::CheckTensor(Tensor tensor, int32_t layer) const {
  const std::string name = Name(tensor, layer);
  const TensorInfo* info = checkpoint_->Find(name);
  if (info != nullptr && info->type == StoredType::kOther) {
    return absl::UnimplementedError(absl::StrCat("tensor ", name, " is stored as ", info->dtype,
                                                 ", this build reads F32, F16 and BF16"));
  }
  if (info == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint has no tensor ", name,
                                                   ", which its configuration calls for (",
                                                   config_.num_layers, " layers)"));
  }
  std::vector<int64_t> want = StoredShape(tensor);
  if (info->transposed) std::reverse(want.begin(), want.end());
  if (info->shape != want) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has shape [", absl::StrJoin(info->shape, ", "),
                     "], its configuration calls for [", absl::StrJoin(want, ", "), "]"));
  }
  return absl::OkStatus();
}

// Refuses weights of a layer that the forward pass would leave out, such as biases.
absl::Status CheckpointSource::CheckNothingIsLeftOut() const {
  absl::flat_hash_set<std::string> known;
  for (const TensorNames& names : kNames) {
    if (!names.in_layer || !Wants(config_, names.tensor)) continue;
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      known.insert(Name(names.tensor, layer));
    }
  }
  const std::string layers = prefix_ + "layers.";
  for (const std::string_view view : checkpoint_->names()) {
    const std::string name(view);
    // A buffer of older transformers: derived from the configuration.
    if (absl::EndsWith(name, ".rotary_emb.inv_freq")) continue;
    if (absl::StartsWith(name, layers) && !known.contains(name)) {
      return absl::UnimplementedError(
          absl::StrCat("the checkpoint has tensor ", name, ", which this build does not use"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointSource::Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                                    int64_t row_stride) const {
  const TensorInfo& info = *checkpoint_->Find(Name(tensor, layer));
  const int64_t cols = info.shape.back();
  const int64_t rows = info.shape.size() == 1 ? 1 : info.shape[0];
  if (tensor != Tensor::kDown || info.transposed) {
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
  const TensorInfo& info = *checkpoint_->Find(Name(Tensor::kEmbedding, 0));
  return info.type == StoredType::kBf16 ? DType::kBf16 : DType::kF32;
}

}  // namespace lacuna
