// Parity with Hugging Face transformers, from golden files (tests/data/golden/README.md).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/cpu/cpu_kernels.h"
#include "runtime/base/file.h"
#include "tests/runtime/model/test_model.h"
#include "tests/same_bits.h"

namespace lacuna {
namespace {

const std::filesystem::path kGolden =
    std::filesystem::path(LACUNA_SOURCE_DIR) / "tests/data/golden";

// Of the logit range, as the golden files' README defines parity.
constexpr double kTolerance = 1e-3;

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::filesystem::path directory = kGolden / GetParam();
    golden_ = nlohmann::json::parse(std::ifstream(directory / "golden.json"));
    auto bytes =
        ReadFile((directory / golden_["logits_file"].get<std::string>()).string(), 1 << 26);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    logits_.resize(bytes->size() / sizeof(float));
    std::memcpy(logits_.data(), bytes->data(), bytes->size());
    // The golden files of the default model lie apart from its weights.
    const std::filesystem::path weights = std::string(GetParam()) == "default"
                                              ? std::filesystem::path(LACUNA_SOURCE_DIR) /
                                                    "models" / golden_["model"].get<std::string>()
                                              : directory;
    test_ = TestModel::FromDirectory(weights.string(), DType::kF32, 1);
  }

  // Greedy tokens after `prompt`, one step at a time after a whole prefill; logits of every
  // position go to *all, and what was active in each layer is added to *active.
  std::vector<int32_t> Greedy(const std::vector<int32_t>& prompt, int count,
                              std::vector<float>* all, std::vector<int64_t>* active) {
    const size_t vocab = test_->model()->config().vocab_size;
    const auto blocks =
        TestModel::BlockTables(1, KvCache::BlocksFor(static_cast<int64_t>(prompt.size()) + count));
    std::vector<int32_t> tokens = prompt;
    size_t done = 0;
    for (int i = 0; i < count; ++i) {
      SequenceChunk chunk;
      chunk.tokens = absl::MakeConstSpan(tokens).subspan(done);
      chunk.first_position = static_cast<int32_t>(done);
      chunk.block_table = blocks[0];
      chunk.logits = static_cast<int32_t>(chunk.tokens.size());
      done = tokens.size();
      const auto out = test_->model()->Forward({chunk}, FfnMode::kAuto, test_->cache());
      active->resize(out->ffn.layers.size());
      for (size_t layer = 0; layer < active->size(); ++layer) {
        (*active)[layer] += out->ffn.layers[layer].active[0];
      }
      all->insert(all->end(), out->logits.begin(), out->logits.end());
      const float* last = all->data() + all->size() - vocab;
      tokens.push_back(static_cast<int32_t>(std::max_element(last, last + vocab) - last));
    }
    return {tokens.begin() + static_cast<int64_t>(prompt.size()), tokens.end()};
  }

  nlohmann::json golden_;
  std::vector<float> logits_;
  std::unique_ptr<TestModel> test_;
};

TEST_P(GoldenTest, GreedyTokensAndLogitsAgreeWithTransformers) {
  const size_t vocab = golden_["vocab_size"];
  const double range = golden_["logit_max"].get<double>() - golden_["logit_min"].get<double>();
  ASSERT_GT(range, 0.5);
  ASSERT_GE(golden_["prompts"].size(), 10u);
  double worst = 0;
  int64_t positions = 0;
  std::vector<int64_t> active;
  for (const auto& prompt : golden_["prompts"]) {
    std::vector<float> all;
    const std::vector<int32_t> want = prompt["greedy"];
    ASSERT_EQ(want.size(), 64u);
    EXPECT_EQ(Greedy(prompt["prompt"], static_cast<int>(want.size()), &all, &active), want);
    positions += static_cast<int64_t>(all.size() / vocab);
    for (const auto& entry : prompt["logits"]) {
      const float* got = &all[entry["position"].get<size_t>() * vocab];
      const float* expected = &logits_[entry["row"].get<size_t>() * vocab];
      for (size_t i = 0; i < vocab; ++i) {
        worst = std::max(worst, std::abs(double{got[i]} - expected[i]) / range);
      }
    }
  }
  EXPECT_LE(worst, kTolerance);
  // Rounding may decide otherwise where a gate is next to nothing, and a product may underflow.
  const std::vector<double> zeros = golden_["ffn_zero_share"];
  ASSERT_EQ(zeros.size(), active.size());
  for (size_t layer = 0; layer < zeros.size(); ++layer) {
    const double pairs = static_cast<double>(positions * test_->model()->config().ffn_size);
    EXPECT_NEAR(1.0 - static_cast<double>(active[layer]) / pairs, zeros[layer], 1e-5) << layer;
  }
  RecordProperty("max_relative_logit_delta", std::to_string(worst));
  std::printf("%s: largest |delta logit| is %.2e of the range\n", GetParam(), worst);
}

TEST_P(GoldenTest, SparseEqualsDense) {
  for (const auto& prompt : golden_["prompts"]) {
    std::vector<int32_t> tokens = prompt["prompt"];
    tokens.insert(tokens.end(), prompt["greedy"].begin(), prompt["greedy"].end());
    const int count = static_cast<int>(tokens.size());
    EXPECT_TRUE(SameBits(test_->Logits(tokens, count, FfnMode::kSparse),
                         test_->Logits(tokens, count, FfnMode::kDense)));
  }
}

// Every golden folder, by name, so that one that goes missing is a failure.
constexpr const char* kVariants[] = {"default",
                                     "bamboo_drelu",
                                     "fatrelu_gqa_tied",
                                     "llama_attention_bias",
                                     "llama_sparse_relu",
                                     "minicpm_llama_format",
                                     "minicpm_mup",
                                     "mistral_window",
                                     "opt",
                                     "opt_350m",
                                     "relu_gqa_untied_bf16",
                                     "relu_gqa_untied_sharded",
                                     "relu_mha_untied",
                                     "rope_dynamic",
                                     "rope_linear",
                                     "rope_llama3",
                                     "rope_yarn",
                                     "rope_yarn_mscale",
                                     "silu_gqa_tied"};

INSTANTIATE_TEST_SUITE_P(Checkpoints, GoldenTest, ::testing::ValuesIn(kVariants),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lacuna
