#include "runtime/model/gguf_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/utf8.h"
#include "runtime/model/float_bits.h"

namespace lacuna {
namespace {

// Bytes that are read at a time, unless a row is longer.
constexpr int64_t kReadBytes = 256 * 1024;

struct Name {
  absl::string_view gguf;
  absl::string_view transformers;
  bool interleaved = false;
  bool transposed = false;
};

constexpr Name kNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output.weight", "lm_head.weight"},
    {"output_norm.weight", "model.norm.weight"},
};

// After "blk.<layer>." and "model.layers.<layer>.".
constexpr Name kLayerNames[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight", /*interleaved=*/true},
    {"attn_k.weight", "self_attn.k_proj.weight", /*interleaved=*/true},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"ffn_down_t.weight", "mlp.down_proj.weight", /*interleaved=*/false, /*transposed=*/true},
};

// `*name` becomes Hugging Face's. Null if there is no such tensor.
const Name* FindName(absl::string_view gguf, std::string* name) {
  for (const Name& known : kNames) {
    if (known.gguf != gguf) continue;
    *name = std::string(known.transformers);
    return &known;
  }
  if (!absl::ConsumePrefix(&gguf, "blk.")) return nullptr;
  const size_t dot = std::min(gguf.find('.'), gguf.size());
  uint32_t layer = 0;
  if (!absl::SimpleAtoi(gguf.substr(0, dot), &layer)) return nullptr;
  gguf.remove_prefix(std::min(dot + 1, gguf.size()));
  for (const Name& known : kLayerNames) {
    if (known.gguf != gguf) continue;
    *name = absl::StrCat("model.layers.", layer, ".", known.transformers);
    return &known;
  }
  return nullptr;
}

// Whether other tensors or the metadata say the same, or it is of a predictor.
bool IsNotNeeded(absl::string_view gguf, const GgufHeader& header) {
  // A buffer of older converters: derived from the metadata.
  if (absl::EndsWith(gguf, ".attn_rot_embd")) return true;
  // A part of the configuration.
  if (gguf == "rope_freqs.weight") return true;
  return header.powerinfer &&
         (absl::EndsWith(gguf, ".fc1.weight") || absl::EndsWith(gguf, ".fc2.weight"));
}

absl::Status UnusedTensor(const std::string& name) {
  return absl::UnimplementedError(
      absl::StrCat("the file has tensor ", Quoted(name), ", which this build does not use"));
}

StoredType TypeOf(const GgufType& type) {
  if (type.is_quantized()) return StoredType::kQuantized;
  const absl::string_view name = type.name;
  return name == "F16" ? StoredType::kF16 : name == "BF16" ? StoredType::kBf16 : StoredType::kF32;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> GgufCheckpoint::Create(const ModelConfig& config,
                                                                   std::unique_ptr<GgufFile> file) {
  std::unique_ptr<GgufCheckpoint> checkpoint(new GgufCheckpoint(config.head_dim, std::move(file)));
  const GgufHeader& header = checkpoint->file_->header();
  for (const auto& [gguf_name, tensor] : header.tensors) {
    if (IsNotNeeded(gguf_name, header)) continue;
    std::string name;
    const Name* known = FindName(gguf_name, &name);
    if (known == nullptr) return UnusedTensor(gguf_name);
    if (known->interleaved && tensor.shape[0] % config.head_dim != 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(gguf_name), " has ",
                                                     tensor.shape[0], " rows, heads have ",
                                                     config.head_dim));
    }
    TensorInfo info{.name = name,
                    .type = TypeOf(*tensor.type),
                    .dtype = tensor.type->name,
                    .shape = tensor.shape,
                    .offset = tensor.offset,
                    .bytes = tensor.bytes,
                    .transposed = known->transposed};
    if (!checkpoint->entries_.emplace(name, Entry{std::move(info), &tensor, known->interleaved})
             .second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(gguf_name), " is another's in all but its spelling"));
    }
  }
  return checkpoint;
}

const TensorInfo* GgufCheckpoint::Find(std::string_view name) const {
  const auto it = entries_.find(absl::string_view(name.data(), name.size()));
  return it == entries_.end() ? nullptr : &it->second.info;
}

absl::Status GgufCheckpoint::ReadRows(const TensorInfo& tensor, int64_t first_row, int64_t rows,
                                      DType as, std::byte* out, int64_t row_stride) const {
  if (absl::Status status = CheckRows(tensor, first_row, rows); !status.ok()) return status;
  const Entry& entry = entries_.at(tensor.name);
  const GgufTensor& stored = *entry.stored;
  const int64_t row_bytes = stored.row_bytes();
  const int64_t cols = stored.cols();
  const int64_t blocks = cols / stored.type->block_elements;
  const int64_t at_a_time = entry.interleaved ? 1
                                              : std::clamp<int64_t>(kReadBytes / row_bytes, 1,
                                                                    std::max<int64_t>(rows, 1));
  std::vector<std::byte> bytes(at_a_time * row_bytes);
  std::vector<float> floats(as == DType::kF32 ? 0 : cols);
  for (int64_t done = 0; done < rows; done += at_a_time) {
    const int64_t count = std::min(at_a_time, rows - done);
    int64_t row = first_row + done;
    if (entry.interleaved) {
      const int64_t in_head = row % head_dim_;
      const int64_t half = head_dim_ / 2;
      row += in_head % half * 2 + in_head / half - in_head;
    }
    const absl::Status status =
        file_->Read(stored, row * row_bytes, count * row_bytes, bytes.data());
    if (!status.ok()) return status;
    for (int64_t r = 0; r < count; ++r) {
      std::byte* out_row = out + (done + r) * row_stride;
      if (as == DType::kF32) {
        stored.type->dequantize(bytes.data() + r * row_bytes, blocks,
                                reinterpret_cast<float*>(out_row));
        continue;
      }
      stored.type->dequantize(bytes.data() + r * row_bytes, blocks, floats.data());
      for (int64_t c = 0; c < cols; ++c) {
        const uint16_t bits = F32ToBf16(floats[c]);
        std::memcpy(out_row + c * 2, &bits, 2);
      }
    }
  }
  return absl::OkStatus();
}

std::vector<std::string_view> GgufCheckpoint::names() const {
  std::vector<std::string_view> names;
  names.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

}  // namespace lacuna
