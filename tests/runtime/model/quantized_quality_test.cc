// How far int8 and int4 weights move the default model from its float32 self, on text that the
// float32 model wrote.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"
#include "tests/runtime/model/test_model.h"

namespace lacuna {
namespace {

constexpr int kSequences = 8;
constexpr int kLength = 256;

std::unique_ptr<TestModel> DefaultModel(DType dtype) {
  return TestModel::FromDirectory(LACUNA_SOURCE_DIR "/models/lacuna-stories-3m", dtype, 2);
}

std::vector<double> LogSoftmax(const float* logits, int64_t n) {
  const double max = *std::max_element(logits, logits + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(logits[i] - max);
  std::vector<double> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = logits[i] - max - std::log(sum);
  return out;
}

// Drawn token by token from the model's own distribution.
std::vector<int32_t> Sample(TestModel* test, uint64_t seed) {
  const int64_t vocab = test->model()->config().vocab_size;
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens = {1};
  const auto blocks = TestModel::BlockTables(1, KvCache::BlocksFor(kLength));
  while (tokens.size() < kLength) {
    SequenceChunk chunk;
    chunk.tokens = absl::MakeConstSpan(tokens).subspan(tokens.size() - 1);
    chunk.first_position = static_cast<int32_t>(tokens.size()) - 1;
    chunk.block_table = blocks[0];
    chunk.logits = 1;
    const auto out = test->model()->Forward({chunk}, FfnMode::kAuto, test->cache());
    const std::vector<double> log_p = LogSoftmax(out->logits.data(), vocab);
    double u = static_cast<double>(random() >> 11) * 0x1p-53;
    int32_t id = 0;
    while (id < vocab - 1 && (u -= std::exp(log_p[id])) > 0) ++id;
    tokens.push_back(id);
  }
  return tokens;
}

struct Quality {
  double kl = 0;         // mean KL(float32 || quantized), nats a token
  double same_top1 = 0;  // share of positions
};

Quality Compare(DType dtype) {
  const auto exact = DefaultModel(DType::kF32);
  const auto quantized = DefaultModel(dtype);
  const int64_t vocab = exact->model()->config().vocab_size;
  Quality quality;
  for (int s = 0; s < kSequences; ++s) {
    const std::vector<int32_t> tokens = Sample(exact.get(), s);
    const std::vector<float> a = exact->Logits(tokens, kLength);
    const std::vector<float> b = quantized->Logits(tokens, kLength);
    for (int64_t i = 0; i < kLength; ++i) {
      const std::vector<double> p = LogSoftmax(&a[i * vocab], vocab);
      const std::vector<double> q = LogSoftmax(&b[i * vocab], vocab);
      for (int64_t v = 0; v < vocab; ++v) quality.kl += std::exp(p[v]) * (p[v] - q[v]);
      quality.same_top1 += std::max_element(p.begin(), p.end()) - p.begin() ==
                           std::max_element(q.begin(), q.end()) - q.begin();
    }
  }
  quality.kl /= kSequences * kLength;
  quality.same_top1 /= kSequences * kLength;
  std::printf("%s: mean KL %.5f, same top-1 %.2f %%\n", DTypeName(dtype), quality.kl,
              100 * quality.same_top1);
  return quality;
}

// Measured: mean KL 0.00059, same first choice 98.6 %.
TEST(QuantizedQuality, Int8IsNearlyFloat32) {
  const Quality quality = Compare(DType::kInt8);
  EXPECT_LE(quality.kl, 0.002);
  EXPECT_GE(quality.same_top1, 0.98);
}

// Measured: mean KL 0.025, same first choice 91.7 %: a model of 3.5 million parameters has little
// to spare, and a neuron whose gate crosses the threshold of 0.3 makes a jump.
TEST(QuantizedQuality, Int4KeepsMostFirstChoices) {
  const Quality quality = Compare(DType::kInt4);
  EXPECT_LE(quality.kl, 0.05);
  EXPECT_GE(quality.same_top1, 0.86);
}

}  // namespace
}  // namespace lacuna
