// What the families of checkpoints mean by their config.json.

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/model/model_config.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/model_config_json.h"

namespace lacuna {
namespace {

using nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(ModelConfig, ReadsProSparseLlama) {
  json config = With({{"architectures", {"SparseLlamaForCausalLM"}},
                      {"model_type", "sparsellama"},
                      {"hidden_act", "fatrelu"},
                      {"hidden_act_param", 0.01},
                      {"rope_scaling", nullptr},
                      {"tie_word_embeddings", false},
                      {"torch_dtype", "bfloat16"},
                      {"auto_map", {{"AutoConfig", "configuration_sparsellama.Config"}}}});
  const auto parsed = Parse(config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->architecture, "SparseLlamaForCausalLM");
  EXPECT_EQ(parsed->activation.kind, ActivationKind::kFatRelu);
  EXPECT_EQ(parsed->rope_theta, 10000.0f);
}

json MiniCpm() {
  json config = {{"architectures", {"MiniCPMForCausalLM"}},
                 {"hidden_act", "fatrelu"},
                 {"hidden_act_param", 0.03},
                 {"vocab_size", 73440},
                 {"hidden_size", 1536},
                 {"intermediate_size", 3840},
                 {"num_hidden_layers", 52},
                 {"num_attention_heads", 24},
                 {"num_key_value_heads", 8},
                 {"max_position_embeddings", 4096},
                 {"scale_emb", 12},
                 {"scale_depth", 1.4},
                 {"dim_model_base", 256}};
  return config;
}

TEST(ModelConfig, MiniCpmHasScalesAndIsTiedByDefault) {
  const auto config = Parse(MiniCpm());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_FLOAT_EQ(config->embedding_scale, 12.0f);
  EXPECT_FLOAT_EQ(config->residual_scale, 1.4f / std::sqrt(52.0f));
  EXPECT_FLOAT_EQ(config->logits_scale, 256.0f / 1536.0f);
  EXPECT_TRUE(config->tie_embeddings);
  json untied = MiniCpm();
  untied["tie_word_embeddings"] = false;
  EXPECT_FALSE(Parse(untied)->tie_embeddings);
  json zero = MiniCpm();
  zero["scale_depth"] = 0;
  EXPECT_TRUE(IsError(Parse(zero).status(), kInvalid, "scale_depth = 0"));
}

TEST(ModelConfig, ScaleKeysMeanNothingInALlama) {
  const auto config =
      Parse(With({{"scale_emb", 12}, {"scale_depth", 1.4}, {"dim_model_base", 256}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->embedding_scale, 1.0f);
  EXPECT_EQ(config->residual_scale, 1.0f);
  EXPECT_EQ(config->logits_scale, 1.0f);
}

TEST(ModelConfig, LlamaSparseReluIsReluWhateverHiddenActSays) {
  const auto config = Parse(With({{"architectures", {"LlamaSparseReluForCausalLM"}},
                                  {"model_type", "llama_sparse_relu"},
                                  {"hidden_act", "silu"}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->activation.kind, ActivationKind::kRelu);
}

TEST(ModelConfig, FamilyComesFromModelTypeIfThereIsNoArchitecture) {
  json config = Without("architectures");
  EXPECT_EQ(Parse(config)->architecture, "LlamaForCausalLM");
  config.erase("model_type");
  EXPECT_TRUE(IsError(Parse(config).status(), kInvalid, "neither architectures nor model_type"));
  // One that is known by its model_type only.
  config["model_type"] = "llama_sparse_relu";
  EXPECT_EQ(Parse(config)->architecture, "llama_sparse_relu");
}

TEST(ModelConfig, ReadsTheWindowsOfMistralAndBamboo) {
  for (const auto& [architecture, type] :
       {std::pair{"MistralForCausalLM", "mistral"}, {"BambooForCausalLM", "bamboo"}}) {
    json config =
        With({{"architectures", {architecture}}, {"model_type", type}, {"sliding_window", 1024}});
    EXPECT_EQ(Parse(config)->sliding_window, 1024);
    // None, and none that counts within the context of 2048.
    for (const json& window : {json(nullptr), json(2048), json(4096)}) {
      config["sliding_window"] = window;
      EXPECT_EQ(Parse(config)->sliding_window, 0) << window;
    }
    config.erase("sliding_window");
    EXPECT_EQ(Parse(config)->sliding_window, 0);
    config["max_position_embeddings"] = 8192;
    EXPECT_EQ(Parse(config)->sliding_window, 4096) << "the library's default";
    config["sliding_window"] = 0;
    EXPECT_TRUE(IsError(Parse(config).status(), kInvalid, "sliding_window = 0"));
  }
  EXPECT_EQ(Parse(With({{"sliding_window", 2048}}))->sliding_window, 0);
  EXPECT_TRUE(IsError(Parse(With({{"sliding_window", 1024}})).status(), kUnimplemented,
                      "a sliding_window in a LlamaForCausalLM"));
}

TEST(ModelConfig, BambooIsDReluWhateverHiddenActSays) {
  const json bamboo = {{"architectures", {"BambooForCausalLM"}}, {"model_type", "bamboo"}};
  for (const char* const name : {"relu", "silu"}) {
    json config = With(bamboo);
    config["hidden_act"] = name;
    EXPECT_EQ(Parse(config)->activation.kind, ActivationKind::kDRelu) << name;
  }
}

json Opt() {
  return {{"architectures", {"OPTForCausalLM"}},
          {"model_type", "opt"},
          {"activation_function", "relu"},
          {"vocab_size", 50272},
          {"hidden_size", 1024},
          {"ffn_dim", 4096},
          {"num_hidden_layers", 24},
          {"num_attention_heads", 16},
          {"max_position_embeddings", 2048},
          {"word_embed_proj_dim", 512},
          {"do_layer_norm_before", false},
          {"_remove_final_layer_norm", false},
          {"bos_token_id", 2},
          {"eos_token_id", 2},
          {"pad_token_id", 1}};
}

TEST(ModelConfig, ReadsOpt350m) {
  const auto config = Parse(Opt());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->ffn_size, 4096);
  EXPECT_EQ(config->num_kv_heads, 16);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->activation.kind, ActivationKind::kRelu);
  EXPECT_FALSE(config->gated);
  EXPECT_TRUE(config->ffn_bias);
  EXPECT_TRUE(config->attention_bias);
  EXPECT_EQ(config->norm, NormKind::kLayer);
  EXPECT_EQ(config->norm_eps, 1e-5f);
  EXPECT_TRUE(config->norm_after);
  EXPECT_FALSE(config->final_norm);
  EXPECT_EQ(config->positions, PositionKind::kLearned);
  EXPECT_EQ(config->embedding_size(), 512);
  EXPECT_TRUE(config->tie_embeddings);
  EXPECT_EQ(config->bos_id, 2);
  EXPECT_EQ(config->eos_ids, std::vector<int32_t>{2});
}

TEST(ModelConfig, OptsDefaultsAreThoseOfTheLargerModels) {
  json config = Opt();
  for (const char* const key : {"word_embed_proj_dim", "do_layer_norm_before", "bos_token_id",
                                "eos_token_id", "activation_function"}) {
    config.erase(key);
  }
  const auto parsed = Parse(config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_FALSE(parsed->norm_after);
  EXPECT_TRUE(parsed->final_norm);
  EXPECT_EQ(parsed->projected_embedding_size, 0);
  EXPECT_EQ(parsed->embedding_size(), 1024);
  EXPECT_EQ(parsed->bos_id, 2);
  EXPECT_EQ(parsed->eos_ids, std::vector<int32_t>{2});
  config["_remove_final_layer_norm"] = true;
  EXPECT_FALSE(Parse(config)->final_norm);
  config["enable_bias"] = false;
  EXPECT_FALSE(Parse(config)->ffn_bias);
  EXPECT_FALSE(Parse(config)->attention_bias);
}

TEST(ModelConfig, RefusesOptVariantsThatItCannotRun) {
  const auto error = [](const json& changes) {
    json config = Opt();
    config.update(changes);
    return Parse(config).status();
  };
  EXPECT_TRUE(IsError(error({{"activation_function", "gelu"}}), kUnimplemented,
                      "activation_function \"gelu\""));
  EXPECT_TRUE(IsError(error({{"activation_function", "gelu"}}), kUnimplemented, "--activation="));
  EXPECT_TRUE(IsError(ParseModelConfig(Opt().dump(), "", "drelu").status(), kInvalid,
                      "activation drelu: the FFN of OPTForCausalLM has no gate"));
  EXPECT_TRUE(ParseModelConfig(Opt().dump(), "", "silu").ok());
  EXPECT_TRUE(IsError(error({{"layer_norm_elementwise_affine", false}}), kUnimplemented,
                      "layer_norm_elementwise_affine = false"));
  EXPECT_TRUE(IsError(error({{"ffn_dim", 0}}), kInvalid, "ffn_dim = 0"));
  EXPECT_TRUE(IsError(error({{"word_embed_proj_dim", 0}}), kInvalid, "word_embed_proj_dim = 0"));
  EXPECT_TRUE(
      IsError(error({{"max_position_embeddings", 0}}), kInvalid, "max_position_embeddings"));
}

}  // namespace
}  // namespace lacuna
