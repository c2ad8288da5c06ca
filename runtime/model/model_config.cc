#include "runtime/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"
#include "runtime/model/activation_name.h"

namespace lacuna {
namespace {

using nlohmann::json;

// Files are a few kilobytes.
constexpr size_t kMaxConfigBytes = 1 << 20;
constexpr size_t kMaxEosIds = 64;
// Bounds of scales: wide enough for any model, narrow enough that no product of two overflows.
constexpr double kMinScale = 1e-6;
constexpr double kMaxScale = 1e6;
constexpr int32_t kMaxContext = 1 << 20;
constexpr int32_t kMaxHidden = 65536;
constexpr int32_t kMaxFfn = 262144;

enum class FamilyActivation : uint8_t {
  kDeclared,  // hidden_act says it
  kRelu,      // whatever hidden_act says
  kDRelu,     // likewise: Bamboo says "relu" and means dReLU
};

// How a family of checkpoints departs from LLaMA. Scales, windows and activations go by family: the
// keys of one appear in the files of others, where they mean nothing.
struct Family {
  std::string_view architecture;
  std::string_view model_type;  // the key may be missing
  FamilyActivation activation = FamilyActivation::kDeclared;
  bool mup = false;              // has scales that are not in the weights (MiniCPM)
  bool tied_by_default = false;  // tie_word_embeddings, if the key is missing
  bool window = false;           // sliding_window counts; 4096, if the key is missing
  bool opt = false;              // other keys, LayerNorm, biases, learned positions, no gate
  int32_t bos = 1, eos = 2;      // bos_token_id and eos_token_id, if the keys are missing
};

constexpr Family kFamilies[] = {
    {.architecture = "LlamaForCausalLM", .model_type = "llama"},
    {.architecture = "SparseLlamaForCausalLM", .model_type = "sparsellama"},
    {.architecture = "MistralForCausalLM", .model_type = "mistral", .window = true},
    {.architecture = "BambooForCausalLM",
     .model_type = "bamboo",
     .activation = FamilyActivation::kDRelu,
     .window = true},
    {.architecture = "MiniCPMForCausalLM",
     .model_type = "minicpm",
     .mup = true,
     .tied_by_default = true},
    {.architecture = "OPTForCausalLM",
     .model_type = "opt",
     .tied_by_default = true,
     .opt = true,
     .bos = 2},
};

// SakanaAI's sparse models, known by model_type whatever the architecture is called: relu(gate) *
// up although hidden_act says silu.
constexpr Family kLlamaSparseRelu = {.model_type = "llama_sparse_relu",
                                     .activation = FamilyActivation::kRelu};

// `*architecture` becomes what the file says. The errors go to `reader`.
Family ReadFamily(JsonReader& reader, std::string* architecture) {
  const std::string model_type = reader.String("model_type", "");
  if (const json* list = reader.Find("architectures")) {
    const std::string* first =
        list->is_array() && !list->empty() ? (*list)[0].get_ptr<const std::string*>() : nullptr;
    if (first == nullptr) reader.Fail("has architectures that are not a list of strings");
    if (first != nullptr) *architecture = *first;
  }
  if (model_type == kLlamaSparseRelu.model_type) {
    if (architecture->empty()) *architecture = model_type;
    return kLlamaSparseRelu;
  }
  for (const Family& family : kFamilies) {
    if (architecture->empty() && model_type == family.model_type) {
      *architecture = std::string(family.architecture);
    }
    if (*architecture != family.architecture) continue;
    if (!model_type.empty() && model_type != family.model_type) {
      reader.Fail(absl::StrCat("has architecture ", *architecture, " with the model_type ",
                               Quoted(model_type)));
    }
    return family;
  }
  if (architecture->empty() && model_type.empty()) {
    reader.Fail("has neither architectures nor model_type");
  } else {
    std::string known;
    for (const Family& family : kFamilies) {
      absl::StrAppend(&known, std::string(family.architecture), ", ");
    }
    reader.Unimplemented(absl::StrCat(
        "the architecture ", Quoted(architecture->empty() ? model_type : *architecture),
        "; this build runs ", known, "and the model_type llama_sparse_relu"));
  }
  return {};
}

Activation ReadActivation(JsonReader& reader, const Family& family) {
  if (family.activation == FamilyActivation::kRelu) return {ActivationKind::kRelu};
  if (family.activation == FamilyActivation::kDRelu) return {ActivationKind::kDRelu};
  const char* const key = family.opt ? "activation_function" : "hidden_act";
  const std::string name = reader.String(key, family.opt ? "relu" : "silu");
  if (name == "relu") return {ActivationKind::kRelu};
  if (name == "silu" || name == "swish") return {ActivationKind::kSilu};
  if (name == "fatrelu") {
    return {ActivationKind::kFatRelu, reader.Float("hidden_act_param", kMinScale, kMaxScale)};
  }
  reader.Unimplemented(absl::StrCat(key, " ", Quoted(name),
                                    "; this build runs relu, fatrelu and silu; "
                                    "--activation=relu|fatrelu:T|drelu|silu replaces it"));
  return {};
}

// Refuses what would make the forward pass compute something else.
void CheckFeatures(JsonReader& reader) {
  if (reader.Bool("mlp_bias", false)) reader.Unimplemented("mlp_bias = true");
  if (reader.Find("quantization_config") != nullptr) {
    reader.Unimplemented("quantization_config: weights of the types F32, F16 and BF16 are run");
  }
  if (reader.Int("num_experts", 0, 1 << 20, 0) > 0) reader.Unimplemented("num_experts");
}

// As transformers reads them.
void ReadYarn(JsonReader& reader, RopeScaling* scaling) {
  scaling->beta_fast = reader.Float("beta_fast", kMinScale, kMaxScale, scaling->beta_fast);
  scaling->beta_slow = reader.Float("beta_slow", kMinScale, kMaxScale, scaling->beta_slow);
  scaling->truncate = reader.Bool("truncate", true);
  const float scale = reader.Float("mscale", 0, kMaxScale, 0.0f);
  const float scale_all = reader.Float("mscale_all_dim", 0, kMaxScale, 0.0f);
  const float attention = scale != 0 && scale_all != 0
                              ? YarnAttentionFactor(scaling->factor, scale) /
                                    YarnAttentionFactor(scaling->factor, scale_all)
                              : YarnAttentionFactor(scaling->factor);
  scaling->attention_factor = reader.Float("attention_factor", kMinScale, kMaxScale, attention);
}

RopeScaling ReadRopeScaling(JsonReader& reader, int32_t max_context) {
  constexpr double kMaxFactor = 1024;
  RopeScaling scaling;
  const std::string type = reader.String("rope_type", reader.String("type", "default"));
  if (type == "default") return scaling;
  if (type == "linear") {
    scaling.kind = RopeScalingKind::kLinear;
  } else if (type == "dynamic") {
    scaling.kind = RopeScalingKind::kDynamic;
  } else if (type == "yarn") {
    scaling.kind = RopeScalingKind::kYarn;
  } else if (type == "llama3") {
    scaling.kind = RopeScalingKind::kLlama3;
    scaling.low_freq_factor = reader.Float("low_freq_factor", kMinScale, kMaxScale);
    scaling.high_freq_factor = reader.Float("high_freq_factor", kMinScale, kMaxScale);
    if (reader.status().ok() && scaling.high_freq_factor <= scaling.low_freq_factor) {
      reader.Fail(absl::StrCat("has high_freq_factor = ", scaling.high_freq_factor,
                               ", which is not above low_freq_factor = ", scaling.low_freq_factor));
    }
  } else {
    reader.Unimplemented(absl::StrCat("rope_type ", Quoted(type),
                                      "; this build runs linear, dynamic, llama3 and yarn"));
  }
  scaling.factor = reader.Float("factor", 1, kMaxFactor);
  scaling.trained_context = max_context;
  if (scaling.kind == RopeScalingKind::kLlama3 || scaling.kind == RopeScalingKind::kYarn) {
    scaling.trained_context =
        reader.Int("original_max_position_embeddings", 1, kMaxContext, max_context);
  }
  if (scaling.kind == RopeScalingKind::kYarn) ReadYarn(reader, &scaling);
  return scaling;
}

// Partial rotation is UNIMPLEMENTED.
void ReadRope(JsonReader& reader, ModelConfig* config) {
  constexpr double kMaxTheta = 1e12;
  const auto read_theta = [](JsonReader& keys, float missing) {
    if (keys.Float("partial_rotary_factor", 0, 1, 1.0f) != 1.0f) {
      keys.Unimplemented("partial_rotary_factor");
    }
    return keys.Float("rope_theta", 1, kMaxTheta, missing);
  };
  config->rope_theta = read_theta(reader, 10000.0f);
  // transformers 5 writes rope_parameters in place of rope_theta and rope_scaling.
  for (const char* const key : {"rope_scaling", "rope_parameters"}) {
    const json* value = reader.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) {
      reader.Fail(absl::StrCat("has ", key, " that is not an object"));
      continue;
    }
    JsonReader rope(*value, absl::StrCat("config.json, ", key, ","));
    config->rope_scaling = ReadRopeScaling(rope, config->max_context);
    config->rope_theta = read_theta(rope, config->rope_theta);
    reader.Update(rope.status());
  }
  const RopeScaling& scaling = config->rope_scaling;
  if (scaling.kind == RopeScalingKind::kYarn && config->rope_theta <= 1) {
    reader.Fail(absl::StrCat("has rope_theta = ", config->rope_theta,
                             ", with which yarn has no frequencies to choose from"));
  }
  // With these, max_position_embeddings is the context before scaling; with yarn it may be, too.
  if (scaling.kind == RopeScalingKind::kLinear || scaling.kind == RopeScalingKind::kDynamic ||
      scaling.kind == RopeScalingKind::kYarn) {
    const float scaled = scaling.factor * static_cast<float>(scaling.trained_context);
    config->max_context =
        std::max(config->max_context, static_cast<int32_t>(std::min(scaled, float{kMaxContext})));
  }
}

void ReadAttention(JsonReader& reader, ModelConfig* config) {
  config->num_heads = reader.Int("num_attention_heads", 1, 1024);
  config->num_kv_heads = reader.Int("num_key_value_heads", 1, 1024, config->num_heads);
  if (!reader.status().ok()) return;
  if (config->num_heads % config->num_kv_heads != 0) {
    reader.Fail(absl::StrCat("has num_key_value_heads = ", config->num_kv_heads,
                             ", which does not divide num_attention_heads = ", config->num_heads));
  }
  if (reader.Find("head_dim") == nullptr && config->hidden_size % config->num_heads != 0) {
    reader.Fail(absl::StrCat("has num_attention_heads = ", config->num_heads,
                             ", which does not divide hidden_size = ", config->hidden_size));
  }
  config->head_dim = reader.Int("head_dim", 2, 65536, config->hidden_size / config->num_heads);
  if (config->head_dim < 2 || config->head_dim > 512 || config->head_dim % 2 != 0) {
    reader.Fail(
        absl::StrCat("has head_dim = ", config->head_dim, ", expected an even number in [2, 512]"));
  }
}

// Adds the ids of eos_token_id, one number or a list. False if the key is missing.
bool AddEosIds(JsonReader& reader, int32_t vocab_size, std::vector<int32_t>* ids) {
  constexpr const char* kKey = "eos_token_id";
  const json* value = reader.Find(kKey);
  if (value == nullptr) return false;
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > kMaxEosIds) {
    reader.Fail(
        absl::StrCat("lists ", list.size(), " ids under ", kKey, ", the limit is ", kMaxEosIds));
    return true;
  }
  for (const json& item : list) {
    const int32_t id = reader.ToInt(kKey, item, 0, int64_t{vocab_size} - 1);
    if (std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
  }
  return true;
}

void ReadScales(JsonReader& reader, ModelConfig* config) {
  config->embedding_scale = reader.Float("scale_emb", kMinScale, kMaxScale, 1.0f);
  const float depth = reader.Float("scale_depth", kMinScale, kMaxScale, 1.0f);
  config->residual_scale = depth / std::sqrt(static_cast<float>(config->num_layers));
  const int32_t base = reader.Int("dim_model_base", 1, 65536, 1);
  config->logits_scale = static_cast<float>(base) / static_cast<float>(config->hidden_size);
}

// What only LLaMA's relatives have.
void ReadLlama(JsonReader& reader, const Family& family, bool names_window, ModelConfig* config) {
  config->ffn_size = reader.Int("intermediate_size", 1, kMaxFfn);
  config->attention_bias = reader.Bool("attention_bias", false);
  config->norm_eps = reader.Float("rms_norm_eps", 1e-12, 1, 1e-6f);  // the library's default
  ReadRope(reader, config);
  if (family.mup) ReadScales(reader, config);
  // A window that is null is none.
  const int32_t window = reader.Int("sliding_window", 1, std::numeric_limits<int32_t>::max(),
                                    family.window && !names_window ? 4096 : config->max_context);
  if (window >= config->max_context) return;
  config->sliding_window = window;
  if (!family.window) {
    reader.Unimplemented(absl::StrCat("a sliding_window in a ", config->architecture));
  }
}

// What only OPT has.
void ReadOpt(JsonReader& reader, ModelConfig* config) {
  config->ffn_size = reader.Int("ffn_dim", 1, kMaxFfn);
  config->gated = false;
  config->ffn_bias = config->attention_bias = reader.Bool("enable_bias", true);
  config->norm = NormKind::kLayer;
  config->norm_after = !reader.Bool("do_layer_norm_before", true);
  config->final_norm = !config->norm_after && !reader.Bool("_remove_final_layer_norm", false);
  config->positions = PositionKind::kLearned;
  const int32_t width = reader.Int("word_embed_proj_dim", 1, kMaxHidden, config->hidden_size);
  if (width != config->hidden_size) config->projected_embedding_size = width;
  if (!reader.Bool("layer_norm_elementwise_affine", true)) {
    reader.Unimplemented("layer_norm_elementwise_affine = false");
  }
}

// The traps of the families: what a reader of config.json would take for granted.
void AddNotes(JsonReader& reader, const Family& family, ModelConfig* config) {
  const json* const value = reader.Find("hidden_act");
  const auto* declared = value == nullptr ? nullptr : value->get_ptr<const std::string*>();
  if (family.activation == FamilyActivation::kDRelu && declared != nullptr) {
    config->activation_note =
        absl::StrCat("hidden_act is ", Quoted(*declared), ", but a ", config->architecture,
                     " computes dReLU, ReLU of gate and up: run so");
  }
  if (family.activation == FamilyActivation::kRelu && declared != nullptr && *declared != "relu") {
    config->activation_note = absl::StrCat("hidden_act is ", Quoted(*declared),
                                           ", but models of this model_type compute ReLU: run so");
  }
  if (!family.mup && reader.Find("scale_emb") != nullptr) {
    config->notes.push_back(
        "scale_emb, scale_depth and dim_model_base mean nothing in this architecture, whose "
        "weights hold the scales: not applied");
  }
}

absl::StatusOr<json> ParseFile(std::string_view text, absl::string_view name) {
  if (text.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has ", text.size(), " bytes, the limit is ", kMaxConfigBytes));
  }
  return ParseJsonObject(text, name);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json,
                                             std::string_view activation) {
  absl::StatusOr<json> object = ParseFile(config_json, "config.json");
  if (!object.ok()) return object.status();
  JsonReader reader(*object, "config.json");
  ModelConfig config;
  const Family family = ReadFamily(reader, &config.architecture);
  if (!reader.status().ok()) return reader.status();

  config.vocab_size = reader.Int("vocab_size", 1, 1 << 20);
  config.hidden_size = reader.Int("hidden_size", 1, kMaxHidden);
  config.num_layers = reader.Int("num_hidden_layers", 1, 1024);
  config.max_context = reader.Int("max_position_embeddings", 1, kMaxContext);
  ReadAttention(reader, &config);
  if (activation.empty()) config.activation = ReadActivation(reader, family);
  config.tie_embeddings = reader.Bool("tie_word_embeddings", family.tied_by_default);
  if (family.opt) {
    ReadOpt(reader, &config);
  } else {
    ReadLlama(reader, family, object->contains("sliding_window"), &config);
  }
  CheckFeatures(reader);
  AddNotes(reader, family, &config);
  if (!activation.empty()) reader.Update(ReplaceActivation(activation, &config));

  const int64_t last_id = int64_t{config.vocab_size} - 1;
  config.bos_id =
      reader.Int("bos_token_id", 0, last_id, object->contains("bos_token_id") ? -1 : family.bos);
  bool has_eos = AddEosIds(reader, config.vocab_size, &config.eos_ids);
  if (!reader.status().ok()) return reader.status();

  if (!generation_config_json.empty()) {
    absl::StatusOr<json> generation = ParseFile(generation_config_json, "generation_config.json");
    if (!generation.ok()) return generation.status();
    JsonReader generation_reader(*generation, "generation_config.json");
    has_eos |= AddEosIds(generation_reader, config.vocab_size, &config.eos_ids);
    if (!generation_reader.status().ok()) return generation_reader.status();
  }
  if (!has_eos && !object->contains("eos_token_id") && config.vocab_size > family.eos) {
    config.eos_ids.push_back(family.eos);
  }
  if (config.bos_id >= config.vocab_size) config.bos_id = -1;
  return config;
}

absl::Status ReplaceActivation(std::string_view activation, ModelConfig* config) {
  const absl::StatusOr<Activation> parsed = ParseActivation(activation);
  if (!parsed.ok()) return parsed.status();
  if (!config->gated && parsed->kind == ActivationKind::kDRelu) {
    return absl::InvalidArgumentError(
        absl::StrCat("activation drelu: the FFN of ", config->architecture, " has no gate"));
  }
  config->activation = *parsed;
  config->activation_note.clear();
  return absl::OkStatus();
}

}  // namespace lacuna
