#include "runtime/model/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/utf8.h"
#include "runtime/model/gguf_reader.h"

namespace lacuna {
namespace {

// As in model_config.cc.
constexpr double kMinScale = 1e-6;
constexpr double kMaxScale = 1e6;
constexpr int32_t kMaxContext = 1 << 20;

constexpr std::string_view kTurnEnds[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"};

// Keys start with the architecture: "llama.block_count".
class ArchitectureReader {
 public:
  ArchitectureReader(std::string architecture, const GgufHeader& header)
      : reader_(header), prefix_(std::move(architecture) + ".") {}

  GgufReader& all() { return reader_; }
  std::string Key(absl::string_view key) const { return absl::StrCat(prefix_, key); }
  bool Has(absl::string_view key) const { return reader_.Has(Key(key)); }
  int32_t Int(absl::string_view key, int64_t min, int64_t max,
              std::optional<int32_t> missing = {}) {
    return reader_.Int(Key(key), min, max, missing);
  }
  float Float(absl::string_view key, double min, double max, std::optional<float> missing = {}) {
    return reader_.Float(Key(key), min, max, missing);
  }

 private:
  GgufReader reader_;
  const std::string prefix_;
};

void ReadAttention(ArchitectureReader& reader, ModelConfig* config) {
  config->num_heads = reader.Int("attention.head_count", 1, 1024);
  config->num_kv_heads = reader.Int("attention.head_count_kv", 1, 1024, config->num_heads);
  if (!reader.all().status().ok()) return;
  if (config->num_heads % config->num_kv_heads != 0) {
    reader.all().Fail(absl::StrCat(config->num_kv_heads, " key and value heads do not divide ",
                                   config->num_heads, " heads"));
  }
  const bool has_length = reader.Has("attention.key_length");
  if (!has_length && config->hidden_size % config->num_heads != 0) {
    reader.all().Fail(absl::StrCat(config->num_heads, " heads do not divide ",
                                   reader.Key("embedding_length"), " = ", config->hidden_size));
  }
  config->head_dim =
      reader.Int("attention.key_length", 2, 512, config->hidden_size / config->num_heads);
  if (config->head_dim < 2 || config->head_dim > 512 || config->head_dim % 2 != 0) {
    reader.all().Fail(absl::StrCat("heads have ", config->head_dim,
                                   " dimensions, expected an even number in [2, 512]"));
  }
  if (reader.Int("attention.value_length", 1, 65536, config->head_dim) != config->head_dim) {
    reader.all().Unimplemented("values of another length than keys");
  }
}

// Refuses what would make the plain forward pass compute something else.
void CheckFeatures(ArchitectureReader& reader, const ModelConfig& config) {
  GgufReader& all = reader.all();
  if (reader.Int("expert_count", 0, 1 << 20, 0) > 0) all.Unimplemented("a mixture of experts");
  if (all.Bool(reader.Key("use_parallel_residual"), false)) {
    all.Unimplemented(reader.Key("use_parallel_residual"));
  }
  if (!all.Bool(reader.Key("attention.causal"), true)) {
    all.Unimplemented("attention that is not causal");
  }
  if (reader.Has("attention.scale")) all.Unimplemented(reader.Key("attention.scale"));
  if (reader.Int("rope.dimension_count", 0, 65536, config.head_dim) != config.head_dim) {
    all.Unimplemented(absl::StrCat("rotation of a part of the ", config.head_dim,
                                   " dimensions of a head (", reader.Key("rope.dimension_count"),
                                   ")"));
  }
}

// What llama.cpp's converter writes of a config.json, as transformers means it. Some keys of yarn
// that it writes, its own engine multiplies where transformers replaces, or does not read.
void ReadYarn(ArchitectureReader& reader, RopeScaling* scaling) {
  constexpr char kBetaFast[] = "rope.scaling.yarn_beta_fast";
  constexpr char kBetaSlow[] = "rope.scaling.yarn_beta_slow";
  scaling->beta_fast = reader.Float(kBetaFast, kMinScale, kMaxScale, scaling->beta_fast);
  scaling->beta_slow = reader.Float(kBetaSlow, kMinScale, kMaxScale, scaling->beta_slow);
  scaling->attention_factor = YarnAttentionFactor(scaling->factor);
  for (const auto& [name, plain] :
       {std::pair("attn_factor", 1.0f), std::pair("yarn_attn_factor", 1.0f),
        std::pair("yarn_ext_factor", 1.0f), std::pair("yarn_log_multiplier", 0.0f)}) {
    const std::string key = absl::StrCat("rope.scaling.", name);
    const float value = reader.Float(key, -kMaxScale, kMaxScale, plain);
    if (value != plain) {
      reader.all().Unimplemented(absl::StrCat(reader.Key(key), " ", value, ", this build runs ",
                                              plain,
                                              " of GGUF files; a directory says what it means"));
    }
  }
}

// Older converters wrote only rope.scale_linear. Scaling extends the context.
void ReadScaling(ArchitectureReader& reader, ModelConfig* config) {
  const std::string key = reader.Key("rope.scaling.type");
  const std::string_view type = reader.all().String(key, "linear");
  const float factor = reader.Float("rope.scaling.factor", kMinScale, kMaxScale,
                                    reader.Float("rope.scale_linear", kMinScale, kMaxScale, 1.0f));
  if (type != "none" && type != "linear" && type != "yarn") {
    reader.all().Unimplemented(
        absl::StrCat(key, " ", Quoted(type), ", this build runs linear and yarn of GGUF files"));
  }
  if (type == "none" || factor == 1.0f) return;
  RopeScaling& scaling = config->rope_scaling;
  scaling = {.kind = RopeScalingKind::kLinear, .factor = factor};
  scaling.trained_context =
      reader.Int("rope.scaling.original_context_length", 1, kMaxContext, config->max_context);
  const float scaled = factor * static_cast<float>(scaling.trained_context);
  config->max_context =
      std::max(config->max_context, static_cast<int32_t>(std::min(scaled, float{kMaxContext})));
  if (type != "yarn") return;
  scaling.kind = RopeScalingKind::kYarn;
  ReadYarn(reader, &scaling);
  if (config->rope_theta <= 1) {
    reader.all().Fail(absl::StrCat("key ", Quoted(reader.Key("rope.freq_base")), " is ",
                                   config->rope_theta,
                                   ", with which yarn has no frequencies to choose from"));
  }
}

// 0 if it is no shorter than the context.
int32_t ReadWindow(ArchitectureReader& reader, int32_t max_context) {
  const int32_t window =
      reader.Int("attention.sliding_window", 0, std::numeric_limits<int32_t>::max(), 0);
  return window < max_context ? window : 0;
}

void ReadActivation(ArchitectureReader& reader, bool powerinfer, ModelConfig* config) {
  // As in a directory, whatever else the file says.
  config->activation = {ActivationKind::kDRelu};
  if (config->architecture == "bamboo") return;
  const std::string key = reader.Key("hidden_activation");
  const std::string_view name = reader.all().String(key, powerinfer ? "relu" : "silu");
  config->activation = {name == "relu" ? ActivationKind::kRelu : ActivationKind::kSilu};
  if (name != "relu" && name != "silu" && name != "swish") {
    reader.all().Unimplemented(absl::StrCat(key, " ", Quoted(name),
                                            ", this build runs relu and silu of GGUF files; "
                                            "--activation=relu|fatrelu:T|drelu|silu replaces it"));
  }
  if (reader.all().Has(key)) return;
  config->activation_note =
      powerinfer
          ? "the file does not say which activation the model has: relu, as PowerInfer "
            "computes; --activation=fatrelu:T shifts the threshold, as ProSparse's own files "
            "do"
          : "the file does not say which activation the model has: silu is assumed; "
            "--activation=relu|fatrelu:T|drelu says that it is another";
}

// Files of older converters leave the scales of MiniCPM-2B and -1B to the program.
void ReadScales(ArchitectureReader& reader, ModelConfig* config) {
  const float depth = 1.4f / std::sqrt(static_cast<float>(config->num_layers));
  config->embedding_scale = reader.Float("embedding_scale", kMinScale, kMaxScale, 12.0f);
  config->residual_scale = reader.Float("residual_scale", kMinScale, kMaxScale, depth);
  // What logits are divided by.
  config->logits_scale = 1.0f / reader.Float("logit_scale", kMinScale, kMaxScale,
                                             static_cast<float>(config->hidden_size) / 256.0f);
}

void AddEos(int32_t id, std::vector<int32_t>* ids) {
  if (id >= 0 && std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
}

// The size of the vocabulary and the tokens that begin and end texts.
void ReadVocabulary(GgufReader& reader, ModelConfig* config) {
  constexpr int32_t kControl = 3;  // of tokenizer.ggml.token_type
  const std::vector<std::string_view> tokens = reader.Strings("tokenizer.ggml.tokens");
  const std::vector<int32_t> types = reader.Ints("tokenizer.ggml.token_type");
  if (!reader.status().ok()) return;
  if (tokens.empty() || tokens.size() > 1 << 20) {
    return reader.Fail(absl::StrCat("key \"tokenizer.ggml.tokens\" lists ", tokens.size(),
                                    " tokens, expected 1 to ", 1 << 20));
  }
  config->vocab_size = static_cast<int32_t>(tokens.size());
  const int64_t last = config->vocab_size - 1;
  const auto read_id = [&](absl::string_view name) {
    return reader.Int(absl::StrCat("tokenizer.ggml.", name, "_token_id"), 0, last, -1);
  };
  config->bos_id = read_id("bos");
  for (const absl::string_view name : {"eos", "eot", "eom"}) {
    AddEos(read_id(name), &config->eos_ids);
  }
  if (reader.Has("tokenizer.ggml.eot_token_id")) return;
  for (size_t id = 0; id < std::min(tokens.size(), types.size()); ++id) {
    const bool ends_turn =
        std::find(std::begin(kTurnEnds), std::end(kTurnEnds), tokens[id]) != std::end(kTurnEnds);
    if (ends_turn && types[id] == kControl) AddEos(static_cast<int32_t>(id), &config->eos_ids);
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufHeader& header, std::string_view activation) {
  GgufReader general(header);
  const std::string architecture(general.String("general.architecture", ""));
  const std::string_view type = general.String("general.type", "model");
  if (type != "model") general.Unimplemented(absl::StrCat("general.type ", Quoted(type)));
  if (architecture != "llama" && architecture != "minicpm" && architecture != "bamboo") {
    general.Unimplemented(
        absl::StrCat("the architecture ", Quoted(architecture),
                     ", this build runs llama, minicpm and bamboo from GGUF files"));
  }
  if (!general.status().ok()) return general.status();

  ArchitectureReader reader(architecture, header);
  ModelConfig config;
  config.architecture = architecture;
  config.hidden_size = reader.Int("embedding_length", 1, 65536);
  config.ffn_size = reader.Int("feed_forward_length", 1, 262144);
  config.num_layers = reader.Int("block_count", 1, 1024);
  config.max_context = reader.Int("context_length", 1, kMaxContext);
  ReadAttention(reader, &config);
  if (activation.empty()) {
    ReadActivation(reader, header.powerinfer, &config);
  } else {
    reader.all().Update(ReplaceActivation(activation, &config));
  }
  config.norm_eps = reader.Float("attention.layer_norm_rms_epsilon", 1e-12, 1);
  config.rope_theta = reader.Float("rope.freq_base", 1, 1e12, 10000.0f);
  ReadScaling(reader, &config);
  config.sliding_window = ReadWindow(reader, config.max_context);
  config.tie_embeddings = !header.tensors.contains("output.weight");
  if (!reader.all().status().ok()) return reader.all().status();
  if (architecture == "minicpm") ReadScales(reader, &config);
  CheckFeatures(reader, config);
  ReadVocabulary(reader.all(), &config);
  if (!reader.all().status().ok()) return reader.all().status();
  return config;
}

absl::Status ReadGgufRopeFactors(const GgufFile& file, ModelConfig* config) {
  const auto it = file.header().tensors.find("rope_freqs.weight");
  if (it == file.header().tensors.end()) return absl::OkStatus();
  const GgufTensor& tensor = it->second;
  if (tensor.shape != std::vector<int64_t>{config->head_dim / 2}) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor rope_freqs.weight has shape [", absl::StrJoin(tensor.shape, ", "), "], heads of ",
        config->head_dim, " elements call for [", config->head_dim / 2, "]"));
  }
  if (config->rope_scaling.kind != RopeScalingKind::kNone) {
    return absl::UnimplementedError("rope_freqs.weight together with another scaled rotation");
  }
  std::vector<std::byte> bytes(tensor.bytes);
  absl::Status status = file.Read(tensor, 0, tensor.bytes, bytes.data());
  if (!status.ok()) return status;
  std::vector<float> factors(tensor.cols());
  tensor.type->dequantize(bytes.data(), tensor.cols() / tensor.type->block_elements,
                          factors.data());
  for (const float factor : factors) {
    if (!(factor >= kMinScale && factor <= kMaxScale)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor rope_freqs.weight holds ", factor));
    }
  }
  config->rope_scaling = {.kind = RopeScalingKind::kFactors, .factors = std::move(factors)};
  return absl::OkStatus();
}

}  // namespace lacuna
