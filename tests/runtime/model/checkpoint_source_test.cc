#include "runtime/model/checkpoint_source.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/safetensors_writer.h"

namespace lacuna {
namespace {

constexpr int kHidden = 4, kFfn = 70, kVocab = 5;  // more neurons than one strip of rows

ModelConfig Config() {
  ModelConfig config;
  config.hidden_size = kHidden;
  config.ffn_size = kFfn;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 2;
  config.vocab_size = kVocab;
  config.max_context = 16;
  config.tie_embeddings = true;
  return config;
}

std::vector<float> Counting(int n) {
  std::vector<float> values(n);
  for (int i = 0; i < n; ++i) values[i] = static_cast<float>(i);
  return values;
}

constexpr char kDown[] = "model.layers.0.mlp.down_proj.weight";

// A whole checkpoint; `change` may replace the entry of a tensor or add others.
using Change = std::function<bool(const std::string& name, SafetensorsWriter* writer)>;
absl::StatusOr<std::unique_ptr<CheckpointSource>> Open(const TempDir& dir,
                                                       const Change& change = nullptr) {
  SafetensorsWriter writer;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    if (change && change(name, &writer)) return;
    const int64_t n = shape.size() == 2 ? shape[0] * shape[1] : shape[0];
    writer.Add<float>(name, "F32", shape, Counting(static_cast<int>(n)));
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  add("model.norm.weight", {kHidden});
  const std::string layer = "model.layers.0.";
  add(layer + "input_layernorm.weight", {kHidden});
  add(layer + "post_attention_layernorm.weight", {kHidden});
  add(layer + "self_attn.q_proj.weight", {4, kHidden});
  add(layer + "self_attn.k_proj.weight", {2, kHidden});
  add(layer + "self_attn.v_proj.weight", {2, kHidden});
  add(layer + "self_attn.o_proj.weight", {kHidden, 4});
  add(layer + "mlp.gate_proj.weight", {kFfn, kHidden});
  add(layer + "mlp.up_proj.weight", {kFfn, kHidden});
  add(kDown, {kHidden, kFfn});
  if (change) change("", &writer);
  dir.Write("model.safetensors", writer.Bytes());
  auto checkpoint = Checkpoint::Open(dir.path());
  if (!checkpoint.ok()) return checkpoint.status();
  return CheckpointSource::Create(Config(), *std::move(checkpoint));
}

TEST(CheckpointSource, DeliversDownProjNeuronByNeuron) {
  const TempDir dir;
  const auto source = Open(dir);
  ASSERT_TRUE(source.ok()) << source.status();
  std::vector<float> down(kFfn * kHidden);
  ASSERT_TRUE((*source)
                  ->Read(Tensor::kDown, 0, DType::kF32, reinterpret_cast<std::byte*>(down.data()),
                         kHidden * sizeof(float))
                  .ok());
  for (int j = 0; j < kFfn; ++j) {
    for (int c = 0; c < kHidden; ++c) EXPECT_EQ(down[j * kHidden + c], c * kFfn + j);
  }
}

TEST(CheckpointSource, RefusesWeightsThatAreNotFinite) {
  const TempDir dir;
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const auto source = Open(dir, [bad](const std::string& name, SafetensorsWriter* writer) {
      if (name != kDown) return false;
      std::vector<float> values = Counting(kHidden * kFfn);
      values.back() = bad;
      writer->Add<float>(kDown, "F32", {kHidden, kFfn}, values);
      return true;
    });
    ASSERT_TRUE(source.ok()) << source.status();
    std::vector<std::byte> out(kFfn * kHidden * sizeof(float));
    EXPECT_TRUE(IsError((*source)->Read(Tensor::kDown, 0, DType::kF32, out.data(), 16),
                        absl::StatusCode::kInvalidArgument, "holds an infinity or a NaN as f32"));
  }
}

TEST(CheckpointSource, RefusesAValueThatOverflowsTheTypeItIsKeptIn) {
  const TempDir dir;
  const auto source = Open(dir, [](const std::string& name, SafetensorsWriter* writer) {
    if (name != "model.norm.weight") return false;
    writer->Add<float>(name, "F32", {kHidden}, {1, 1, 1, std::numeric_limits<float>::max()});
    return true;
  });
  ASSERT_TRUE(source.ok()) << source.status();
  std::vector<std::byte> out(kHidden * sizeof(float));
  EXPECT_TRUE((*source)->Read(Tensor::kFinalNorm, 0, DType::kF32, out.data(), 0).ok());
  EXPECT_TRUE(IsError((*source)->Read(Tensor::kFinalNorm, 0, DType::kBf16, out.data(), 0),
                      absl::StatusCode::kInvalidArgument, "as bf16"));
}

TEST(CheckpointSource, RefusesATypeThatCannotBeReadBeforeAnyWeightIs) {
  const TempDir dir;
  const auto source = Open(dir, [](const std::string& name, SafetensorsWriter* writer) {
    if (name != kDown) return false;
    writer->Add(name, "F8_E4M3", {kHidden, kFfn}, std::string(kHidden * kFfn, '\0'));
    return true;
  });
  EXPECT_TRUE(IsError(source.status(), absl::StatusCode::kUnimplemented, "is stored as F8_E4M3"));
}

TEST(CheckpointSource, RefusesWeightsThatTheModelWouldIgnore) {
  const TempDir dir;
  const auto with = [](const char* extra) {
    return [extra](const std::string& name, SafetensorsWriter* writer) {
      if (name.empty()) writer->Add<float>(extra, "F32", {1}, {0.0f});
      return false;
    };
  };
  EXPECT_TRUE(IsError(Open(dir, with("model.layers.0.self_attn.q_proj.bias")).status(),
                      absl::StatusCode::kUnimplemented, "self_attn.q_proj.bias"));
  EXPECT_TRUE(IsError(Open(dir, with("model.layers.1.mlp.up_proj.weight")).status(),
                      absl::StatusCode::kUnimplemented, "model.layers.1"));
  EXPECT_TRUE(Open(dir, with("model.layers.0.self_attn.rotary_emb.inv_freq")).ok());
}

// The names that a checkpoint of the bare decoder has, and those of a whole model.
TEST(CheckpointSource, FindsOptUnderBothPrefixesAndNamesWhatIsMissing) {
  ModelConfig config = Config();
  config.num_kv_heads = 2;
  config.gated = false;
  config.ffn_bias = config.attention_bias = true;
  config.norm = NormKind::kLayer;
  config.norm_after = true;
  config.final_norm = false;
  config.positions = PositionKind::kLearned;
  config.projected_embedding_size = 3;
  const auto open = [&config](const std::string& prefix, const std::string& left_out) {
    const TempDir dir;
    SafetensorsWriter writer;
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
      if (name == left_out) return;
      const int64_t n = shape.size() == 2 ? shape[0] * shape[1] : shape[0];
      writer.Add<float>(prefix + name, "F32", shape, Counting(static_cast<int>(n)));
    };
    add("embed_tokens.weight", {kVocab, 3});
    add("embed_positions.weight", {16 + 2, kHidden});
    add("project_in.weight", {kHidden, 3});
    add("project_out.weight", {3, kHidden});
    for (const std::string name : {"self_attn_layer_norm", "final_layer_norm"}) {
      add("layers.0." + name + ".weight", {kHidden});
      add("layers.0." + name + ".bias", {kHidden});
    }
    for (const std::string name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      add("layers.0.self_attn." + name + ".weight", {kHidden, 4});
      add("layers.0.self_attn." + name + ".bias", {4});
    }
    add("layers.0.fc1.weight", {kFfn, kHidden});
    add("layers.0.fc1.bias", {kFfn});
    add("layers.0.fc2.weight", {kHidden, kFfn});
    add("layers.0.fc2.bias", {kHidden});
    dir.Write("model.safetensors", writer.Bytes());
    auto checkpoint = Checkpoint::Open(dir.path());
    if (!checkpoint.ok()) return checkpoint.status();
    return CheckpointSource::Create(config, *std::move(checkpoint)).status();
  };
  for (const std::string prefix : {"model.decoder.", "decoder."}) {
    EXPECT_TRUE(open(prefix, "").ok()) << open(prefix, "");
    for (const std::string name : {"layers.0.fc1.bias", "layers.0.self_attn.out_proj.bias",
                                   "embed_positions.weight", "project_out.weight"}) {
      EXPECT_TRUE(IsError(open(prefix, name), absl::StatusCode::kInvalidArgument,
                          "no tensor " + prefix + name));
    }
  }
  config.ffn_bias = false;
  EXPECT_TRUE(IsError(open("decoder.", ""), absl::StatusCode::kUnimplemented,
                      "which this build does not use"));
}

}  // namespace
}  // namespace lacuna
