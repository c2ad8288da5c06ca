#include "runtime/model/synthetic.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/cpu/cpu_kernels.h"
#include "runtime/model/transformer_model.h"
#include "tests/runtime/model/test_model.h"

namespace lacuna {
namespace {

// Share of neurons active, and of neurons active for at least one of `batch` tokens, over many
// decode steps of random tokens.
struct Density {
  double mean, united;
};

Density Measure(double sparsity, int batch) {
  const SyntheticShape shape{"test", 256, 1024, 2, 4, 2, 1024, sparsity};
  const ModelConfig config = SyntheticConfig(shape);
  ThreadPool pool(1);
  auto weights = ModelWeights::Load(config, *MakeSyntheticSource(config, sparsity, 1), DType::kBf16,
                                    false, *SupportedCpuKernels().back(), pool.threads(), nullptr);
  TransformerModel model(config, *std::move(weights), SupportedCpuKernels().back(), &pool);
  auto cache = KvCache::Create(config, batch, DType::kF32);
  std::vector<int32_t> blocks(batch);
  std::iota(blocks.begin(), blocks.end(), 0);
  int64_t active = 0, united = 0, steps = 0;
  for (; steps < 12; ++steps) {
    const std::vector<int32_t> tokens = RandomTokens(batch, config.vocab_size, steps);
    std::vector<SequenceChunk> chunks(batch);
    for (int s = 0; s < batch; ++s) {
      chunks[s].tokens = absl::MakeConstSpan(&tokens[s], 1);
      chunks[s].block_table = absl::MakeConstSpan(&blocks[s], 1);
    }
    const auto out = model.Forward(chunks, FfnMode::kAuto, cache->get());
    for (const FfnLayerStats& layer : out->ffn.layers) {
      active += layer.active[0];
      united += layer.union_active;
    }
  }
  const double neurons = static_cast<double>(steps) * config.num_layers * config.ffn_size;
  return {static_cast<double>(active) / neurons / batch, static_cast<double>(united) / neurons};
}

TEST(Synthetic, ReachesTheSparsityAskedFor) {
  for (const double sparsity : {0.6698, 0.8788, 0.8932, 0.95}) {
    EXPECT_NEAR(Measure(sparsity, 16).mean, 1 - sparsity, 0.012) << sparsity;
  }
}

// The union density of a real ProSparse-LLaMA2-7B layer over B tokens, percent.
TEST(Synthetic, UnionGrowsWithTheBatchAsInARealModel) {
  const std::pair<int, double> measured[] = {{1, 10.8},  {2, 17.8},  {4, 28.3}, {8, 42.9},
                                             {16, 59.4}, {32, 76.7}, {64, 90.7}};
  for (const auto& [batch, percent] : measured) {
    EXPECT_NEAR(100 * Measure(0.892, batch).united, percent, 0.08 * percent) << "batch " << batch;
  }
}

TEST(Synthetic, SameSeedGivesTheSameWeights) {
  const ModelConfig config = SyntheticConfig(*FindSyntheticShape("tiny"));
  std::vector<std::byte> a(config.ffn_size * 1024), b(a.size()), c(a.size());
  const auto fill = [&](uint64_t seed, std::vector<std::byte>* out) {
    const auto source = MakeSyntheticSource(config, 0.9, seed);
    ASSERT_TRUE(source->Read(Tensor::kGate, 1, DType::kF32, out->data(), 1024).ok());
  };
  fill(1, &a);
  fill(1, &b);
  fill(2, &c);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
}

TEST(Synthetic, UnknownNamesListTheKnownOnes) {
  const auto shape = FindSyntheticShape("gpt-5");
  ASSERT_FALSE(shape.ok());
  EXPECT_NE(std::string(shape.status().message()).find("minicpm-s-1b"), std::string::npos);
}

}  // namespace
}  // namespace lacuna
