// GGUF files against those of the package `gguf` (tests/oracle/make_gguf.py) and their keys.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/model/checkpoint_source.h"
#include "runtime/model/gguf_checkpoint.h"
#include "runtime/model/gguf_config.h"
#include "runtime/model/gguf_file.h"
#include "runtime/model/gguf_types.h"
#include "runtime/model/load_model.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/gguf_writer.h"

namespace lacuna {
namespace {

const std::string kGolden = LACUNA_SOURCE_DIR "/tests/data/golden/";

TEST(GgufTypes, EveryTypeIsReadAsByThePackage) {
  const auto file = GgufFile::Open(kGolden + "gguf/types.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  int types = 0;
  for (const auto& [name, tensor] : (*file)->header().tensors) {
    if (name.ends_with(".expected")) continue;
    ++types;
    EXPECT_EQ(name, tensor.type->name);
    ASSERT_EQ(tensor.shape, (std::vector<int64_t>{3, 512}));
    std::vector<std::byte> blocks(tensor.bytes);
    std::vector<float> floats(3 * 512), expected(3 * 512);
    ASSERT_TRUE((*file)->Read(tensor, 0, tensor.bytes, blocks.data()).ok());
    const GgufTensor& golden = (*file)->header().tensors.at(name + ".expected");
    ASSERT_EQ(golden.bytes, 3 * 512 * 4);
    ASSERT_TRUE(
        (*file)->Read(golden, 0, golden.bytes, reinterpret_cast<std::byte*>(expected.data())).ok());
    tensor.type->dequantize(blocks.data(), 3 * 512 / tensor.type->block_elements, floats.data());
    for (size_t i = 0; i < floats.size(); ++i) {
      ASSERT_EQ(floats[i], expected[i]) << name << ", element " << i;
    }
  }
  EXPECT_EQ(types, 15);
}

absl::StatusOr<ModelConfig> Config(const GgufWriter& file, std::string_view activation = "") {
  const std::string bytes = file.Bytes();
  const absl::StatusOr<GgufHeader> header =
      ParseGgufHeader(bytes, static_cast<int64_t>(bytes.size()));
  if (!header.ok()) return header.status();
  return ParseGgufConfig(*header, activation);
}

TEST(GgufConfig, KeysBecomeTheSameConfigurationAsConfigJson) {
  const auto file = GgufFile::Open(kGolden + "gguf/tiny.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto json = ReadFile(kGolden + "silu_gqa_tied/config.json", 1 << 20);
  const ModelConfig want = ParseModelConfig(*json, "").value();
  const ModelConfig got = ParseGgufConfig((*file)->header()).value();
  EXPECT_EQ(got.vocab_size, want.vocab_size);
  EXPECT_EQ(got.hidden_size, want.hidden_size);
  EXPECT_EQ(got.ffn_size, want.ffn_size);
  EXPECT_EQ(got.num_layers, want.num_layers);
  EXPECT_EQ(got.num_heads, want.num_heads);
  EXPECT_EQ(got.num_kv_heads, want.num_kv_heads);
  EXPECT_EQ(got.head_dim, want.head_dim);
  EXPECT_EQ(got.max_context, want.max_context);
  EXPECT_EQ(got.norm_eps, want.norm_eps);
  EXPECT_EQ(got.rope_theta, want.rope_theta);
  EXPECT_EQ(got.activation.kind, want.activation.kind);
  EXPECT_EQ(got.tie_embeddings, want.tie_embeddings);
  EXPECT_EQ(got.bos_id, want.bos_id);
  EXPECT_EQ(got.eos_ids, want.eos_ids);
  EXPECT_EQ(got.embedding_scale, 1.0f);
}

TEST(GgufConfig, ReluIsTakenWhereTheFileSaysSo) {
  GgufWriter file = SmallGguf();
  EXPECT_EQ(Config(file)->activation.kind, ActivationKind::kSilu);
  file.Set("llama.hidden_activation", "relu");
  EXPECT_EQ(Config(file)->activation.kind, ActivationKind::kRelu);
}

TEST(GgufConfig, AnActivationMayReplaceWhatTheFileDeclares) {
  GgufWriter file = SmallGguf();
  file.Set("llama.hidden_activation", "gelu");
  EXPECT_TRUE(IsError(Config(file).status(), absl::StatusCode::kUnimplemented,
                      "llama.hidden_activation \"gelu\", this build runs relu and silu of GGUF "
                      "files; --activation=relu|fatrelu:T|drelu|silu replaces it"));
  const absl::StatusOr<ModelConfig> config = Config(file, "fatrelu:0.5");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->activation.kind, ActivationKind::kFatRelu);
  EXPECT_EQ(config->activation.threshold, 0.5f);
  file.Remove("llama.hidden_activation");
  EXPECT_EQ(Config(file, "silu")->activation_note, "");
  EXPECT_TRUE(IsError(Config(file, "gelu").status(), absl::StatusCode::kInvalidArgument,
                      "want relu, fatrelu:T"));
}

TEST(GgufConfig, MiniCpmHasTheScalesOfItsKeys) {
  GgufWriter file = SmallGguf("minicpm");
  file.Set("minicpm.embedding_scale", 7.0f);
  file.Set("minicpm.residual_scale", 0.25f);
  file.Set("minicpm.logit_scale", 8.0f);
  const ModelConfig config = Config(file).value();
  EXPECT_EQ(config.embedding_scale, 7.0f);
  EXPECT_EQ(config.residual_scale, 0.25f);
  EXPECT_EQ(config.logits_scale, 0.125f);
}

TEST(GgufConfig, MiniCpmOfOlderConvertersHasTheScalesOfItsFirstModels) {
  const ModelConfig config = Config(SmallGguf("minicpm")).value();
  EXPECT_EQ(config.embedding_scale, 12.0f);
  EXPECT_FLOAT_EQ(config.residual_scale, 1.4f / std::sqrt(2.0f));
  EXPECT_FLOAT_EQ(config.logits_scale, 256.0f / 32.0f);
}

TEST(GgufConfig, ScalesOfOtherArchitecturesAreInTheWeights) {
  GgufWriter file = SmallGguf();
  file.Set("llama.embedding_scale", 7.0f);
  EXPECT_EQ(Config(file)->embedding_scale, 1.0f);
}

TEST(GgufConfig, TurnsEndAtTheTokensOfTheKeysAndAtKnownNames) {
  GgufWriter file = SmallGguf();
  file.Set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "</s>", "<|im_end|>", "b"});
  file.Set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 3, 3, 1});
  file.Set("tokenizer.ggml.eos_token_id", 1u);
  EXPECT_EQ(Config(file)->eos_ids, (std::vector<int32_t>{1, 2}));
  file.Set("tokenizer.ggml.eot_token_id", 3u);
  EXPECT_EQ(Config(file)->eos_ids, (std::vector<int32_t>{1, 3}));
}

TEST(GgufConfig, AWindowAsLongAsTheContextIsNone) {
  GgufWriter file = SmallGguf();
  file.Set("llama.attention.sliding_window", 64u);
  EXPECT_EQ(Config(file)->sliding_window, 0);
  file.Set("llama.attention.sliding_window", 63u);
  EXPECT_EQ(Config(file)->sliding_window, 63);
}

TEST(GgufConfig, LinearScalingOfTheRotationHasTwoSpellings) {
  GgufWriter file = SmallGguf();
  EXPECT_EQ(Config(file)->rope_scaling.kind, RopeScalingKind::kNone);
  file.Set("llama.rope.scale_linear", 2.0f);
  EXPECT_EQ(Config(file)->rope_scaling.kind, RopeScalingKind::kLinear);
  EXPECT_EQ(Config(file)->rope_scaling.factor, 2.0f);
  file.Set("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(Config(file)->rope_scaling.factor, 4.0f);
  file.Set("llama.rope.scaling.type", "linear");
  EXPECT_EQ(Config(file)->rope_scaling.factor, 4.0f);
  file.Set("llama.rope.scaling.type", "none");
  EXPECT_EQ(Config(file)->rope_scaling.kind, RopeScalingKind::kNone);
}

TEST(GgufConfig, LinearScalingExtendsTheContextAsThatOfConfigJson) {
  GgufWriter file = SmallGguf();
  file.Set("llama.rope.scaling.type", "linear");
  file.Set("llama.rope.scaling.factor", 4.0f);
  file.Set("llama.attention.sliding_window", 100u);
  EXPECT_EQ(Config(file)->max_context, 4 * 64);
  EXPECT_EQ(Config(file)->sliding_window, 100);
  // Where the file has the context before scaling, too, the other may be the one after it.
  file.Set("llama.rope.scaling.original_context_length", 16u);
  EXPECT_EQ(Config(file)->max_context, 64);
  file.Set("llama.rope.scaling.factor", 8.0f);
  EXPECT_EQ(Config(file)->max_context, 8 * 16);
  file.Set("llama.rope.scaling.factor", 1e6f);
  EXPECT_EQ(Config(file)->max_context, 1 << 20);
  file.Set("llama.rope.scaling.type", "none");
  EXPECT_EQ(Config(file)->max_context, 64);
}

TEST(GgufConfig, YarnIsThatOfTheConfigJson) {
  const auto json = ReadFile(kGolden + "rope_yarn/config.json", 1 << 20);
  const ModelConfig want = ParseModelConfig(*json, "").value();
  GgufWriter file = SmallGguf();
  file.Set("llama.context_length", 26u);
  file.Set("llama.rope.freq_base", 500.0f);
  file.Set("llama.rope.scaling.type", "yarn");
  file.Set("llama.rope.scaling.factor", 4.0f);
  file.Set("llama.rope.scaling.original_context_length", 26u);
  file.Set("llama.rope.scaling.yarn_beta_fast", 4.0f);
  file.Set("llama.rope.scaling.yarn_beta_slow", 0.5f);
  const ModelConfig got = Config(file).value();
  EXPECT_EQ(got.rope_scaling.kind, RopeScalingKind::kYarn);
  EXPECT_EQ(got.max_context, want.max_context);
  EXPECT_EQ(got.rope_scaling.attention_factor, want.rope_scaling.attention_factor);
  EXPECT_EQ(InverseFrequencies(got.rope_theta, got.rope_scaling, 8, 1),
            InverseFrequencies(want.rope_theta, want.rope_scaling, 8, 1));
  EXPECT_NE(InverseFrequencies(got.rope_theta, got.rope_scaling, 8, 1),
            InverseFrequencies(got.rope_theta, {}, 8, 1));
}

TEST(GgufConfig, RotationFactorsAreATensor) {
  // As Llama 3.1 scales a head of 8 elements: all frequencies are stretched but the first.
  const RopeScaling llama3 = {.kind = RopeScalingKind::kLlama3, .factor = 8, .trained_context = 64};
  const std::vector<float> plain = InverseFrequencies(10000, {}, 8, 1);
  const std::vector<float> want = InverseFrequencies(10000, llama3, 8, 1);
  std::vector<float> factors;
  for (size_t i = 0; i < plain.size(); ++i) factors.push_back(plain[i] / want[i]);
  ASSERT_EQ(factors.front(), 1.0f);
  ASSERT_EQ(factors.back(), 8.0f);

  GgufWriter writer = SmallGguf();
  writer.Add("rope_freqs.weight", {4}, factors);
  const std::string path = testing::TempDir() + "lacuna_gguf_factors.gguf";
  std::ofstream(path, std::ios::binary) << writer.Bytes();
  const auto file = GgufFile::Open(path);
  ModelConfig config = ParseGgufConfig((*file)->header()).value();
  ASSERT_TRUE(ReadGgufRopeFactors(**file, &config).ok());
  const std::vector<float> got = InverseFrequencies(10000, config.rope_scaling, 8, 1);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_FLOAT_EQ(got[i], want[i]);
  LoadOptions options;
  options.path = path;
  options.threads = 1;
  const absl::StatusOr<LoadedModel> loaded = LoadModel(options);
  std::remove(path.c_str());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->config().rope_scaling.factors, factors);
}

// The GGUF file and the directory that it was made from.
struct Pair {
  ModelConfig config;
  std::unique_ptr<CheckpointSource> gguf;
  std::unique_ptr<CheckpointSource> directory;
};

Pair OpenPair() {
  Pair pair;
  auto file = GgufFile::Open(kGolden + "gguf/tiny.gguf");
  pair.config = ParseGgufConfig((*file)->header()).value();
  auto checkpoint = GgufCheckpoint::Create(pair.config, *std::move(file));
  pair.gguf = CheckpointSource::Create(pair.config, *std::move(checkpoint)).value();
  pair.directory =
      CheckpointSource::Create(pair.config, *Checkpoint::Open(kGolden + "silu_gqa_tied")).value();
  return pair;
}

TEST(GgufCheckpoint, GivesEveryTensorOfTheDirectoryThatItWasMadeFrom) {
  const Pair pair = OpenPair();
  const ModelConfig& c = pair.config;
  const int64_t width = std::max<int64_t>(c.hidden_size, c.q_dim());
  for (const DType type : {DType::kF32, DType::kBf16}) {
    for (int t = 0; t <= static_cast<int>(Tensor::kDown); ++t) {
      const auto tensor = static_cast<Tensor>(t);
      if (tensor == Tensor::kLmHead) continue;  // tied
      for (int32_t layer = 0; layer < c.num_layers; ++layer) {
        // Room for the largest, with a stride that leaves a gap between rows.
        const int64_t stride = RowBytes(type, width) + 64;
        std::vector<std::byte> a(stride * std::max(c.vocab_size, c.ffn_size)), b = a;
        ASSERT_TRUE(pair.gguf->Read(tensor, layer, type, a.data(), stride).ok());
        ASSERT_TRUE(pair.directory->Read(tensor, layer, type, b.data(), stride).ok());
        EXPECT_EQ(a, b) << "tensor " << t << " of layer " << layer;
      }
    }
  }
}

TEST(GgufCheckpoint, HasTheLogitsOfTheDirectory) {
  const Pair pair = OpenPair();
  LoadOptions options;
  options.threads = 2;
  std::vector<std::vector<float>> logits;
  for (const CheckpointSource* source : {pair.gguf.get(), pair.directory.get()}) {
    const LoadedModel loaded = BuildModel(pair.config, *source, options).value();
    EXPECT_EQ(loaded.model->facts().weights, "f32");
    const std::vector<int32_t> tokens = {1, 17, 40, 263, 5, 99, 260, 3};
    const std::vector<int32_t> blocks = {0};
    const auto cache = KvCache::Create(pair.config, 1, loaded.model->facts().kv_type).value();
    SequenceChunk chunk;
    chunk.tokens = tokens;
    chunk.block_table = blocks;
    chunk.logits = static_cast<int32_t>(tokens.size());
    const auto out = loaded.model->Forward({chunk}, FfnMode::kAuto, cache.get());
    logits.emplace_back(out->logits.begin(), out->logits.end());
  }
  ASSERT_EQ(logits[0].size(), 8u * 300u);
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(LoadModel, TakesAGgufFile) {
  LoadOptions options;
  options.path = kGolden + "gguf/tiny.gguf";
  options.threads = 1;
  const absl::StatusOr<LoadedModel> loaded = LoadModel(options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->facts().weights, "f32");
  EXPECT_EQ(loaded->tokenizer->Encode("w299", true).value().front(), 1);
  EXPECT_EQ(loaded->chat_template.status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace lacuna
