// What ARCHITECTURE.md promises: what a sequence computes depends on its tokens alone.

#include "runtime/model/transformer_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <tuple>

#include "kernels/cpu/cpu_kernels.h"
#include "tests/runtime/model/test_model.h"
#include "tests/same_bits.h"

namespace lacuna {
namespace {

constexpr int kVocab = 101;  // of TestModel::Random

class ModelInvariance : public ::testing::TestWithParam<std::tuple<const KernelTable*, DType>> {
 protected:
  std::unique_ptr<TestModel> Make(int threads) {
    return TestModel::Random(std::get<0>(GetParam()), std::get<1>(GetParam()), threads);
  }
};

TEST_P(ModelInvariance, SparseEqualsDense) {
  const std::vector<int32_t> tokens = RandomTokens(90, kVocab, 1);
  auto test = Make(2);
  for (const int chunk : {1, 90}) {
    EXPECT_TRUE(SameBits(test->Logits(tokens, chunk, FfnMode::kSparse),
                         test->Logits(tokens, chunk, FfnMode::kDense)))
        << "chunk " << chunk;
  }
}

TEST_P(ModelInvariance, PrefillChunkSizeDoesNotMatter) {
  const std::vector<int32_t> tokens = RandomTokens(150, kVocab, 2);
  auto test = Make(2);
  const std::vector<float> whole = test->Logits(tokens, 150);
  for (const int chunk : {1, 7, 64}) {
    EXPECT_TRUE(SameBits(test->Logits(tokens, chunk), whole)) << "chunk " << chunk;
  }
}

TEST_P(ModelInvariance, ThreadCountDoesNotMatter) {
  const std::vector<int32_t> tokens = RandomTokens(40, kVocab, 3);
  const std::vector<float> one = Make(1)->Logits(tokens, 40);
  const std::vector<float> one_by_one = Make(1)->Logits(tokens, 1);
  for (const int threads : {2, 3}) {
    EXPECT_TRUE(SameBits(Make(threads)->Logits(tokens, 40), one)) << threads << " threads";
    EXPECT_TRUE(SameBits(Make(threads)->Logits(tokens, 1), one_by_one)) << threads;
  }
}

// Sequence i has 3 + 5*i prompt tokens, so a step mixes prefill chunks with decoding tokens.
TEST_P(ModelInvariance, BatchMatesDoNotMatter) {
  constexpr int kLength = 96;
  for (const int batch : {2, 5, 16}) {
    auto test = Make(2);
    const auto tables = TestModel::BlockTables(batch, KvCache::BlocksFor(kLength));
    std::vector<std::vector<int32_t>> tokens(batch);
    std::vector<std::vector<float>> logits(batch);
    std::vector<int> done(batch, 0);
    for (int s = 0; s < batch; ++s) tokens[s] = RandomTokens(3 + 5 * s + 6, kVocab, 100 + s);
    for (bool more = true; more;) {
      std::vector<SequenceChunk> chunks;
      std::vector<int> owners;
      for (int s = 0; s < batch; ++s) {
        const int total = static_cast<int>(tokens[s].size());
        if (done[s] == total) continue;
        const int prompt = total - 6;
        SequenceChunk chunk;
        const int count = done[s] < prompt ? std::min(16, prompt - done[s]) : 1;
        chunk.tokens = absl::MakeConstSpan(tokens[s]).subspan(done[s], count);
        chunk.first_position = done[s];
        chunk.block_table = tables[s];
        chunk.logits = count;
        chunk.phase = done[s] < prompt ? Phase::kPrefill : Phase::kDecode;
        chunks.push_back(chunk);
        owners.push_back(s);
        done[s] += count;
      }
      more = !chunks.empty();
      if (!more) break;
      const auto out = test->model()->Forward(chunks, FfnMode::kAuto, test->cache());
      ASSERT_TRUE(out.ok()) << out.status();
      const float* row = out->logits.data();
      for (size_t c = 0; c < chunks.size(); ++c) {
        logits[owners[c]].insert(logits[owners[c]].end(), row, row + chunks[c].logits * kVocab);
        row += chunks[c].logits * kVocab;
      }
    }
    auto alone = Make(1);
    for (int s = 0; s < batch; ++s) {
      EXPECT_TRUE(SameBits(logits[s], alone->Logits(tokens[s], 1000)))
          << "sequence " << s << " of " << batch;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, ModelInvariance,
                         ::testing::Combine(::testing::ValuesIn(SupportedCpuKernels()),
                                            ::testing::Values(DType::kF32, DType::kBf16,
                                                              DType::kInt8, DType::kInt4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)->isa) + "_" +
                                  DTypeName(std::get<1>(info.param));
                         });

TEST(TransformerModel, ReportsWhatTheFfnDid) {
  const KernelTable* kernels = SupportedCpuKernels().back();
  auto test = TestModel::Random(kernels, DType::kF32, 1);
  const ModelConfig& config = test->model()->config();
  const std::vector<int32_t> prompt = RandomTokens(70, kVocab, 5);
  const auto tables = TestModel::BlockTables(2, 8);
  SequenceChunk prefill;
  prefill.tokens = prompt;
  prefill.block_table = tables[0];
  SequenceChunk decode;
  decode.tokens = absl::MakeConstSpan(prompt).subspan(0, 1);
  decode.block_table = tables[1];
  decode.logits = 1;
  decode.phase = Phase::kDecode;
  const auto out = test->model()->Forward({prefill, decode}, FfnMode::kSparse, test->cache());
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(out->logits.size(), kVocab);
  EXPECT_EQ(out->ffn.neurons, config.ffn_size);
  EXPECT_EQ(out->ffn.tokens[0], 70);
  EXPECT_EQ(out->ffn.tokens[1], 1);
  int64_t active = 0, read = 0, dense = 0;
  for (int l = 0; l < config.num_layers; ++l) {
    const FfnLayerStats& layer = out->ffn.layers[l];
    EXPECT_EQ(layer.groups, 2) << "71 tokens are a group of 64 and one of 7";
    EXPECT_EQ(
        layer.dispatched[static_cast<int>(FfnPath::kSparse)][static_cast<int>(FfnReason::kForced)],
        2);
    EXPECT_GT(layer.union_active, 0);
    EXPECT_LE(layer.union_active, 2 * config.ffn_size);
    EXPECT_LE(layer.active[1], config.ffn_size);
    active += layer.active[0] + layer.active[1];
    const int64_t row = config.hidden_size * 4;
    dense += 2 * 3 * config.ffn_size * row;
    read += 2 * config.ffn_size * row + layer.union_active * 2 * row;
  }
  EXPECT_EQ(
      std::accumulate(out->ffn.active_by_chunk.begin(), out->ffn.active_by_chunk.end(), int64_t{0}),
      active);
  EXPECT_EQ(out->ffn.weight_bytes_read, read);
  EXPECT_EQ(out->ffn.weight_bytes_read + out->ffn.weight_bytes_skipped, dense);
}

TEST(TransformerModel, OtherArchitecturesKeepTheSamePromises) {
  const std::vector<int32_t> tokens = RandomTokens(70, kVocab, 12);
  for (const ModelConfig& config : {OptConfig(false), OptConfig(true), WindowConfig()}) {
    for (const KernelTable* kernels : SupportedCpuKernels()) {
      for (const DType dtype : {DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4}) {
        SCOPED_TRACE(std::string(kernels->isa) + " " + DTypeName(dtype));
        const RandomSource source(config);
        auto test = TestModel::Make(config, source, dtype, 1, kernels);
        auto threads = TestModel::Make(config, source, dtype, 3, kernels);
        const std::vector<float> whole = test->Logits(tokens, 70, FfnMode::kSparse);
        EXPECT_TRUE(SameBits(test->Logits(tokens, 70, FfnMode::kDense), whole));
        EXPECT_TRUE(SameBits(threads->Logits(tokens, 70), whole));
        EXPECT_TRUE(SameBits(threads->Logits(tokens, 9), whole));
        EXPECT_TRUE(SameBits(test->Logits(tokens, 1), whole));
      }
    }
  }
}

// With a window of W a token sees itself and the W - 1 before it, as transformers' mask has it
// (kv > q - W); so in L layers it hears of L * (W - 1) before it.
TEST(TransformerModel, AWindowOfWReachesBackWMinusOnePositions) {
  const KernelTable* kernels = SupportedCpuKernels().back();
  ModelConfig config = RandomConfig({ActivationKind::kRelu, 0});
  config.num_layers = 1;
  config.sliding_window = 5;
  auto test = TestModel::Make(config, RandomSource(config), DType::kF32, 1, kernels);
  std::vector<int32_t> tokens = RandomTokens(40, kVocab, 13);
  const std::vector<float> before = test->Logits(tokens, 40);
  constexpr int kChanged = 20;
  tokens[kChanged] = (tokens[kChanged] + 1) % kVocab;
  const std::vector<float> after = test->Logits(tokens, 40);
  for (int p = 0; p < 40; ++p) {
    const auto row = [&](const std::vector<float>& logits) {
      return std::vector<float>(&logits[p * kVocab], &logits[p * kVocab] + kVocab);
    };
    const bool sees = p >= kChanged && p < kChanged + config.sliding_window;
    EXPECT_EQ(!SameBits(row(before), row(after)), sees) << "position " << p;
  }
}

// MiniCPM's muP scales do what its converted checkpoints have in their weights. Factors are powers
// of two, so that both ways round alike.
TEST(TransformerModel, MupScalesEqualScaledWeights) {
  const KernelTable* kernels = SupportedCpuKernels().back();
  const ModelConfig plain = RandomConfig({ActivationKind::kRelu, 0});
  ModelConfig scaled = plain;
  scaled.embedding_scale = 8.0f;
  scaled.residual_scale = 0.25f;
  scaled.logits_scale = 0.5f;
  RandomSource absorbed(plain);
  absorbed.Scale(Tensor::kEmbedding, 8.0f)
      .Scale(Tensor::kO, 0.25f)
      .Scale(Tensor::kDown, 0.25f)
      .Scale(Tensor::kFinalNorm, 0.5f);
  auto a = TestModel::Make(scaled, RandomSource(plain), DType::kF32, 1, kernels);
  auto b = TestModel::Make(plain, absorbed, DType::kF32, 1, kernels);
  auto unscaled = TestModel::Make(plain, RandomSource(plain), DType::kF32, 1, kernels);
  const std::vector<int32_t> tokens = RandomTokens(20, kVocab, 8);
  EXPECT_TRUE(SameBits(a->Logits(tokens, 20), b->Logits(tokens, 20)));
  EXPECT_FALSE(SameBits(a->Logits(tokens, 20), unscaled->Logits(tokens, 20)));
}

TEST(TransformerModel, CalibrationChangesNoResult) {
  auto test = TestModel::Random(SupportedCpuKernels().back(), DType::kF32, 1);
  const std::vector<int32_t> tokens = RandomTokens(70, kVocab, 9);
  const std::vector<float> before = test->Logits(tokens, 70);
  test->model()->Calibrate();
  EXPECT_TRUE(SameBits(test->Logits(tokens, 70), before));
}

// Decodes one token after a prompt of one; `mates` other sequences do the same in the same step.
ForwardOutput DecodeStep(TestModel* test, FfnMode mode, int mates, Phase phase = Phase::kDecode,
                         bool exact = false) {
  static const std::vector<int32_t> tokens = RandomTokens(8, kVocab, 4);
  const auto tables = TestModel::BlockTables(1 + mates, 1);
  std::vector<SequenceChunk> chunks(1 + mates);
  for (int s = 0; s <= mates; ++s) {
    chunks[s].tokens = absl::MakeConstSpan(&tokens[s], 1);
    chunks[s].block_table = tables[s];
    chunks[s].logits = 1;
    chunks[s].phase = phase;
    chunks[s].exact = exact && s == mates;
  }
  return *test->model()->Forward(chunks, mode, test->cache());
}

std::vector<float> LogitsOf(const ForwardOutput& out) {
  return {out.logits.begin(), out.logits.end()};
}

class PredictedModel : public ::testing::Test {
 protected:
  PredictedModel() { test_->model()->UsePredictor(0.5); }  // loses much, so that it shows
  static std::unique_ptr<TestModel> Make(bool sketch) {
    const ModelConfig config = RandomConfig({ActivationKind::kFatRelu, 1.0f});
    return TestModel::Make(config, RandomSource(config), DType::kInt8, 2,
                           SupportedCpuKernels().back(), sketch);
  }
  const std::unique_ptr<TestModel> exact_ = Make(false);
  const std::unique_ptr<TestModel> test_ = Make(true);
};

TEST_F(PredictedModel, AuditedStepsGiveTheExactResult) {
  const std::vector<float> exact = LogitsOf(DecodeStep(exact_.get(), FfnMode::kAuto, 0));
  int64_t lost = 0;
  for (int64_t step = 0; step < TransformerModel::kFirstAudits; ++step) {
    const ForwardOutput out = DecodeStep(test_.get(), FfnMode::kAuto, 0);
    EXPECT_TRUE(SameBits(LogitsOf(out), exact)) << step;
    EXPECT_EQ(out.ffn.audits, 1);
    for (const FfnLayerStats& layer : out.ffn.layers) lost += layer.prediction.false_negative;
  }
  EXPECT_GT(lost, 0);
}

TEST_F(PredictedModel, StepsBetweenAuditsReadLessAndAreApproximate) {
  const ForwardOutput exact = DecodeStep(exact_.get(), FfnMode::kSparse, 0);
  const std::vector<float> exact_logits = LogitsOf(exact);
  int64_t audits = 0;
  for (int64_t step = 0; step < 2 * TransformerModel::kAuditPeriod; ++step) {
    const ForwardOutput out = DecodeStep(test_.get(), FfnMode::kAuto, 0);
    audits += out.ffn.audits;
    if (out.ffn.audits > 0) continue;
    EXPECT_FALSE(SameBits(LogitsOf(out), exact_logits)) << step;
    EXPECT_LT(out.ffn.weight_bytes_read, exact.ffn.weight_bytes_read);
    EXPECT_EQ(out.ffn.weight_bytes_read + out.ffn.weight_bytes_skipped,
              exact.ffn.weight_bytes_read + exact.ffn.weight_bytes_skipped);
  }
  EXPECT_EQ(audits, TransformerModel::kFirstAudits + 1) << "the first ones, and one a period";
}

TEST_F(PredictedModel, PrefillForcedPathsAndLargerBatchesAreExact) {
  for (int64_t i = 0; i < TransformerModel::kFirstAudits; ++i) {
    DecodeStep(test_.get(), FfnMode::kAuto, 0);
  }
  const int many = TransformerModel::kMaxPredictedTokens;
  const auto same = [&](FfnMode mode, int mates, Phase phase, bool exact = false) {
    const std::vector<float> want = LogitsOf(DecodeStep(exact_.get(), mode, mates, phase));
    return SameBits(LogitsOf(DecodeStep(test_.get(), mode, mates, phase, exact)), want);
  };
  EXPECT_TRUE(same(FfnMode::kSparse, 0, Phase::kDecode));
  EXPECT_TRUE(same(FfnMode::kDense, 0, Phase::kDecode));
  EXPECT_TRUE(same(FfnMode::kAuto, 0, Phase::kPrefill));
  EXPECT_TRUE(same(FfnMode::kAuto, many, Phase::kDecode));
  EXPECT_TRUE(same(FfnMode::kAuto, 1, Phase::kDecode, /*exact=*/true)) << "one of two asks for it";
  EXPECT_FALSE(same(FfnMode::kAuto, 0, Phase::kDecode));
}

TEST(TransformerModel, ServesActivationsWithoutZerosDense) {
  auto test =
      TestModel::Random(SupportedCpuKernels().back(), DType::kF32, 1, {ActivationKind::kSilu, 0});
  const std::vector<int32_t> tokens = RandomTokens(3, kVocab, 6);
  const auto tables = TestModel::BlockTables(1, 1);
  SequenceChunk chunk;
  chunk.tokens = tokens;
  chunk.block_table = tables[0];
  const auto out = test->model()->Forward({chunk}, FfnMode::kAuto, test->cache());
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(out->ffn.layers[0].dispatched[static_cast<int>(FfnPath::kDense)]
                                         [static_cast<int>(FfnReason::kNoZeros)],
            1);
  EXPECT_EQ(out->ffn.weight_bytes_skipped, 0);
}

}  // namespace
}  // namespace lacuna
