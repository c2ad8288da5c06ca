#include "runtime/model/model_config.h"

#include <nlohmann/json.hpp>

#include "runtime/model/activation_name.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/model_config_json.h"

namespace lacuna {
namespace {

using nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(ModelConfig, ReadsLlama) {
  const auto config = Parse(Llama());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(config->vocab_size, 32000);
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->ffn_size, 11008);
  EXPECT_EQ(config->num_layers, 32);
  EXPECT_EQ(config->num_heads, 32);
  EXPECT_EQ(config->num_kv_heads, 8);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->max_context, 2048);
  EXPECT_EQ(config->activation.kind, ActivationKind::kRelu);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_EQ(config->rope_theta, 10000.0f);
  EXPECT_FALSE(config->tie_embeddings);
  EXPECT_EQ(config->embedding_scale, 1.0f);
  EXPECT_EQ(config->residual_scale, 1.0f);
  EXPECT_EQ(config->logits_scale, 1.0f);
  EXPECT_EQ(config->bos_id, 1);
  EXPECT_EQ(config->eos_ids, std::vector<int32_t>{2});
}

TEST(ModelConfig, ReadsActivations) {
  for (const char* const name : {"silu", "swish"}) {
    EXPECT_EQ(Parse(With({{"hidden_act", name}}))->activation.kind, ActivationKind::kSilu);
  }
  EXPECT_EQ(Parse(Without("hidden_act"))->activation.kind, ActivationKind::kSilu);
  const auto fat = Parse(With({{"hidden_act", "fatrelu"}, {"hidden_act_param", 0.01}}));
  ASSERT_TRUE(fat.ok()) << fat.status();
  EXPECT_EQ(fat->activation.kind, ActivationKind::kFatRelu);
  EXPECT_EQ(fat->activation.threshold, 0.01f);
}

TEST(ModelConfig, AnActivationMayReplaceWhatTheFileDeclares) {
  const auto parse = [](const json& config, std::string_view activation) {
    return ParseModelConfig(config.dump(), "", activation);
  };
  for (const json& declared : {json("silu"), json("gelu"), json(nullptr)}) {
    const auto config = parse(With({{"hidden_act", declared}}), "fatrelu:0.01");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->activation.kind, ActivationKind::kFatRelu);
    EXPECT_EQ(config->activation.threshold, 0.01f);
    EXPECT_EQ(ActivationName(config->activation), "fatrelu:0.01");
  }
  for (const char* const name : {"relu", "drelu", "silu"}) {
    EXPECT_EQ(ActivationName(parse(Llama(), name)->activation), name);
    // What a family always does gives way, too.
    EXPECT_EQ(ActivationName(parse(With({{"model_type", "llama_sparse_relu"}}), name)->activation),
              name);
  }
  for (const char* const bad :
       {"gelu", "fatrelu", "fatrelu:", "fatrelu:0", "fatrelu:-1", "fatrelu:nan", "fatrelu:inf",
        "fatrelu:1e9", "fatrelu:0.01x", "Relu", "relu ", "relu\n"}) {
    EXPECT_TRUE(IsError(parse(Llama(), bad).status(), kInvalid, "want relu, fatrelu:T")) << bad;
  }
}

TEST(ModelConfig, HeadDimMayDifferFromHiddenOverHeads) {
  EXPECT_EQ(Parse(With({{"head_dim", 64}}))->head_dim, 64);
  EXPECT_EQ(Parse(With({{"head_dim", nullptr}}))->head_dim, 128);
  // 4096 is no multiple of 24, which does not matter then.
  const auto config =
      Parse(With({{"head_dim", 128}, {"num_attention_heads", 24}, {"num_key_value_heads", 8}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->q_dim(), 24 * 128);
}

TEST(ModelConfig, MissingKeyValueHeadsMeanOnePerHead) {
  EXPECT_EQ(Parse(Without("num_key_value_heads"))->num_kv_heads, 32);
}

TEST(ModelConfig, ReadsTheSpellingsOfNewerLibraries) {
  json config = With({{"dtype", "bfloat16"},
                      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 500000.0}}}});
  EXPECT_EQ(Parse(config)->rope_theta, 500000.0f);
  config = With({{"rope_theta", 1e6}, {"rope_scaling", {{"type", "default"}}}});
  EXPECT_EQ(Parse(config)->rope_theta, 1e6f);
}

TEST(ModelConfig, EndIdsAreThoseOfBothFiles) {
  const auto config =
      Parse(With({{"eos_token_id", {2, 7}}}), R"({"eos_token_id": [7, 9], "temperature": 0.6})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->eos_ids, (std::vector<int32_t>{2, 7, 9}));
  EXPECT_EQ(Parse(Llama(), R"({"eos_token_id": 9})")->eos_ids, (std::vector<int32_t>{2, 9}));
}

TEST(ModelConfig, SilenceAboutSpecialIdsMeansOneAndTwoAndNullMeansNone) {
  json config = Llama();
  config.erase("bos_token_id");
  config.erase("eos_token_id");
  EXPECT_EQ(Parse(config)->bos_id, 1);
  EXPECT_EQ(Parse(config)->eos_ids, std::vector<int32_t>{2});
  config["bos_token_id"] = nullptr;
  config["eos_token_id"] = nullptr;
  EXPECT_EQ(Parse(config)->bos_id, -1);
  EXPECT_TRUE(Parse(config)->eos_ids.empty());
}

TEST(ModelConfig, RefusesWhatItCannotRun) {
  const auto error = [](const json& changes) { return Parse(With(changes)).status(); };
  for (const auto& [architecture, type] : {std::pair{"MixtralForCausalLM", "mixtral"},
                                           {"TurboSparseMixtralForCausalLM", "turbosparsemixtral"},
                                           {"Qwen2ForCausalLM", "qwen2"},
                                           {"MiniCPM3ForCausalLM", "minicpm3"}}) {
    EXPECT_TRUE(IsError(error({{"architectures", {architecture}}, {"model_type", type}}),
                        kUnimplemented, std::string("the architecture \"") + architecture));
  }
  EXPECT_TRUE(IsError(error({{"hidden_act", "gelu"}}), kUnimplemented, "hidden_act \"gelu\""));
  EXPECT_TRUE(IsError(error({{"mlp_bias", true}}), kUnimplemented, "mlp_bias = true"));
  EXPECT_TRUE(IsError(error({{"quantization_config", {{"quant_method", "gptq"}}}}), kUnimplemented,
                      "quantization_config"));
  EXPECT_TRUE(IsError(error({{"num_experts", 8}}), kUnimplemented, "num_experts"));
  EXPECT_TRUE(
      IsError(error({{"partial_rotary_factor", 0.5}}), kUnimplemented, "partial_rotary_factor"));
}

TEST(ModelConfig, RefusesNumbersOutOfBounds) {
  struct Case {
    const char* key;
    json value;
  };
  for (const Case& c : {Case{"vocab_size", 0},
                        {"vocab_size", 1048577},
                        {"vocab_size", -1},
                        {"vocab_size", 32000.5},
                        {"vocab_size", "32000"},
                        {"vocab_size", nullptr},
                        {"hidden_size", 0},
                        {"hidden_size", 65537},
                        {"hidden_size", json::array()},
                        {"intermediate_size", 0},
                        {"intermediate_size", 262145},
                        {"num_hidden_layers", 0},
                        {"num_hidden_layers", 1025},
                        {"num_hidden_layers", 1000000},
                        {"num_attention_heads", 0},
                        {"num_attention_heads", true},
                        {"num_key_value_heads", 0},
                        {"num_key_value_heads", 5},
                        {"num_attention_heads", 24},
                        {"max_position_embeddings", 0},
                        {"max_position_embeddings", 2147483648u},
                        {"max_position_embeddings", 18446744073709551615u},
                        {"head_dim", 0},
                        {"head_dim", 127},
                        {"head_dim", 514},
                        {"rms_norm_eps", 0},
                        {"rms_norm_eps", -1e-5},
                        {"rms_norm_eps", "1e-5"},
                        {"rope_theta", 0},
                        {"rope_theta", 0.5},
                        {"rope_theta", 1e300},
                        {"bos_token_id", 32000},
                        {"bos_token_id", -1},
                        {"eos_token_id", 32000},
                        {"eos_token_id", "2"},
                        {"eos_token_id", {2, -1}},
                        {"tie_word_embeddings", 1},
                        {"hidden_act", 3},
                        {"model_type", "opt"},
                        {"architectures", "LlamaForCausalLM"},
                        {"architectures", json::array()},
                        {"architectures", {1}},
                        {"rope_scaling", "linear"},
                        {"attention_bias", "no"}}) {
    const absl::Status status = Parse(With({{c.key, c.value}})).status();
    EXPECT_EQ(status.code(), kInvalid) << c.key << " = " << c.value << ": " << status;
    EXPECT_NE(std::string(status.message()).find(c.key), std::string::npos) << status;
    EXPECT_NE(std::string(status.message()).find("config.json"), std::string::npos) << status;
  }
}

TEST(ModelConfig, MessagesNameKeyAndValue) {
  EXPECT_TRUE(
      IsError(Parse(With({{"num_hidden_layers", 2000}})).status(), kInvalid,
              "config.json has num_hidden_layers = 2000, expected an integer in [1, 1024]"));
  EXPECT_TRUE(IsError(Parse(With({{"num_key_value_heads", 5}})).status(), kInvalid,
                      "num_key_value_heads = 5, which does not divide num_attention_heads = 32"));
  EXPECT_TRUE(IsError(Parse(With({{"num_attention_heads", 24}})).status(), kInvalid,
                      "num_attention_heads = 24, which does not divide hidden_size = 4096"));
  EXPECT_TRUE(IsError(Parse(Without("vocab_size")).status(), kInvalid, "has no vocab_size"));
  EXPECT_TRUE(IsError(Parse(With({{"hidden_act", "fatrelu"}})).status(), kInvalid,
                      "has no hidden_act_param"));
  for (const json& threshold : {json(0), json(-0.01), json(1e-60), json("0.01")}) {
    EXPECT_TRUE(
        IsError(Parse(With({{"hidden_act", "fatrelu"}, {"hidden_act_param", threshold}})).status(),
                kInvalid, "has hidden_act_param = "));
  }
  json lists = json::array();
  for (int i = 0; i < 65; ++i) lists.push_back(i);
  EXPECT_TRUE(IsError(Parse(With({{"eos_token_id", lists}})).status(), kInvalid,
                      "lists 65 ids under eos_token_id, the limit is 64"));
}

TEST(ModelConfig, RefusesMalformedDocuments) {
  const auto error = [](const std::string& text) { return ParseModelConfig(text, "").status(); };
  EXPECT_TRUE(IsError(error(""), kInvalid, "config.json is not valid JSON"));
  EXPECT_TRUE(IsError(error("[]"), kInvalid, "config.json is not a JSON object"));
  EXPECT_TRUE(IsError(error("{}"), kInvalid, "config.json has neither"));
  EXPECT_TRUE(IsError(error(R"({"vocab_size": 1, "vocab_size": 2})"), kInvalid, "twice"));
  EXPECT_TRUE(IsError(error(std::string(1 << 20, ' ') + "{}"), kInvalid, "the limit is 1048576"));
  EXPECT_TRUE(IsError(Parse(Llama(), "{").status(), kInvalid, "generation_config.json is not"));
  EXPECT_TRUE(IsError(Parse(Llama(), R"({"eos_token_id": 32000})").status(), kInvalid,
                      "generation_config.json has eos_token_id = 32000"));
}

TEST(ModelConfig, TruncationAndFlippedBitsAreNeverMoreThanAnError) {
  const std::string good = Llama().dump();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ParseModelConfig(good.substr(0, size), "").ok()) << size;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string text = good;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
    const auto config = ParseModelConfig(text, "");
    if (!config.ok()) continue;
    EXPECT_GT(config->head_dim, 0);
    EXPECT_LE(config->num_layers, 1024);
  }
}

}  // namespace
}  // namespace lacuna
