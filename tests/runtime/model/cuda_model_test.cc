// A model on a GPU against the same model on the CPU. In a build without CUDA, the GPU is emulated.

#include "runtime/model/cuda_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <tuple>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cuda/cuda_device.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/checkpoint_source.h"
#include "runtime/model/load_model.h"
#include "runtime/model/make_cuda_model.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/engine/engine_harness.h"
#include "tests/runtime/model/test_model.h"
#include "tests/same_bits.h"

namespace lacuna {
namespace {

constexpr int kVocab = 101;  // of RandomConfig

// Kernels want heads of multiples of 8 and rows of multiples of 4 elements. Small, since an
// emulated GPU is slow.
ModelConfig Fit(ModelConfig config) {
  config.num_layers = 2;
  config.ffn_size = 99;
  config.head_dim = 16;
  if (config.projected_embedding_size > 0) config.projected_embedding_size = 36;
  config.max_context = 1024;
  return config;
}

ModelConfig Relu() { return Fit(RandomConfig({ActivationKind::kRelu, 0})); }

struct GpuModel {
  std::unique_ptr<CudaModel> model;
  std::unique_ptr<KvCache> cache;
  std::vector<float> Logits(const std::vector<int32_t>& tokens, int chunk,
                            FfnMode mode = FfnMode::kAuto) {
    return LogitsOf(model.get(), cache.get(), tokens, chunk, mode);
  }
};

ModelWeights LoadWeights(const ModelConfig& config, DType dtype) {
  return ModelWeights::Load(config, RandomSource(config), dtype, false,
                            *SupportedCpuKernels().back(), 1, nullptr)
      .value();
}

GpuModel OnGpu(const ModelConfig& config, DType dtype) {
  GpuModel gpu;
  gpu.model = CudaModel::Create(config, LoadWeights(config, dtype), 0).value();
  gpu.cache = gpu.model->CreateKvCache(TestModel::kBlocks).value();
  return gpu;
}

std::unique_ptr<TestModel> OnCpu(const ModelConfig& config, DType dtype) {
  return TestModel::Make(config, RandomSource(config), dtype, 1, SupportedCpuKernels().back());
}

// The largest difference, by the root mean square of `b`.
double Difference(absl::Span<const float> a, absl::Span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0, squares = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
    squares += double{b[i]} * b[i];
  }
  return largest / std::sqrt(squares / static_cast<double>(b.size()));
}

// Sums in another order; beside bf16 weights the CPU has float32 keys and values and the GPU bf16
// ones; codes of activations round either way.
double Tolerance(DType dtype) {
  if (dtype == DType::kF32) return 1e-4;
  return dtype == DType::kBf16 ? 0.05 : 0.1;
}

struct Architecture {
  const char* name;
  ModelConfig config;
};

std::vector<Architecture> Architectures() {
  ModelConfig mup = Relu();
  mup.embedding_scale = 8.0f;
  mup.residual_scale = 0.25f;
  mup.logits_scale = 0.5f;
  ModelConfig yarn = Relu();
  yarn.rope_scaling = {.kind = RopeScalingKind::kYarn,
                       .factor = 4,
                       .trained_context = 16,
                       .attention_factor = YarnAttentionFactor(4)};
  return {{"Relu", Relu()},
          {"FatRelu", Fit(RandomConfig({ActivationKind::kFatRelu, 0.5f}))},
          {"Silu", Fit(RandomConfig({ActivationKind::kSilu, 0}))},
          {"Mup", mup},
          {"Yarn", yarn},
          {"Opt", Fit(OptConfig(false))},
          {"OptNormAfter", Fit(OptConfig(true))},
          {"WindowDRelu", Fit(WindowConfig())}};
}

class CudaModelParity : public ::testing::TestWithParam<std::tuple<Architecture, DType>> {};

TEST_P(CudaModelParity, AgreesWithTheCpuInPrefillAndDecode) {
  const auto& [architecture, dtype] = GetParam();
  // A value that crosses FATReLU's threshold jumps by the threshold.
  const bool jumps = architecture.config.activation.kind == ActivationKind::kFatRelu;
  const double tolerance = Tolerance(dtype) * (jumps && dtype != DType::kF32 ? 5 : 1);
  const std::vector<int32_t> tokens = RandomTokens(18, kVocab, 1);
  const std::vector<float> cpu = OnCpu(architecture.config, dtype)->Logits(tokens, 18);
  GpuModel gpu = OnGpu(architecture.config, dtype);
  for (const FfnMode mode : {FfnMode::kDense, FfnMode::kSparse}) {
    EXPECT_LT(Difference(gpu.Logits(tokens, 18, mode), cpu), tolerance) << FfnModeName(mode);
  }
  EXPECT_EQ(gpu.model->captures(), 0);
  const std::vector<int32_t> first(tokens.begin(), tokens.begin() + 6);
  EXPECT_LT(Difference(gpu.Logits(first, 1), absl::MakeConstSpan(cpu).first(6 * kVocab)), tolerance)
      << "token by token";
  EXPECT_EQ(gpu.model->captures(), 1) << "one graph for all steps of one token";
}

INSTANTIATE_TEST_SUITE_P(All, CudaModelParity,
                         ::testing::Combine(::testing::ValuesIn(Architectures()),
                                            ::testing::Values(DType::kF32, DType::kBf16,
                                                              DType::kInt8, DType::kInt4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" +
                                  DTypeName(std::get<1>(info.param));
                         });

TEST(CudaModel, ParityTestsCanFail) {
  ModelConfig other = Relu();
  other.rope_theta = 5000;
  const std::vector<int32_t> tokens = RandomTokens(40, kVocab, 1);
  const std::vector<float> cpu = OnCpu(Relu(), DType::kF32)->Logits(tokens, 40);
  EXPECT_GT(Difference(OnGpu(other, DType::kF32).Logits(tokens, 40), cpu), 0.2);
}

TEST(CudaModel, SparseAgreesWithDenseAndTheSameStepsGiveTheSameBits) {
  const std::vector<int32_t> tokens = RandomTokens(20, kVocab, 2);
  for (const DType dtype : {DType::kF32, DType::kInt8}) {
    GpuModel gpu = OnGpu(Relu(), dtype);
    for (const int chunk : {5, 20}) {
      const std::vector<float> sparse = gpu.Logits(tokens, chunk, FfnMode::kSparse);
      const std::vector<float> dense = gpu.Logits(tokens, chunk, FfnMode::kDense);
      EXPECT_LT(Difference(sparse, dense), dtype == DType::kF32 ? 1e-4 : 0.1);
      EXPECT_TRUE(SameBits(gpu.Logits(tokens, chunk, FfnMode::kSparse), sparse));
      EXPECT_TRUE(SameBits(gpu.Logits(tokens, chunk, FfnMode::kDense), dense));
    }
  }
}

// Sequence s has 2 + 9 * s prompt tokens, so that steps mix chunks of prompts with decoding tokens,
// and then only decode, fewer and fewer of them.
TEST(CudaModel, BatchMatesMatterToRoundingOnly) {
  constexpr int kBatch = 5;
  GpuModel gpu = OnGpu(Relu(), DType::kF32);
  const auto tables = TestModel::BlockTables(kBatch, KvCache::BlocksFor(96));
  std::vector<std::vector<int32_t>> tokens(kBatch);
  std::vector<std::vector<float>> logits(kBatch);
  std::vector<int> done(kBatch, 0);
  for (int s = 0; s < kBatch; ++s) tokens[s] = RandomTokens(2 + 9 * s + 4 * s, kVocab, 100 + s);
  while (true) {
    std::vector<SequenceChunk> chunks;
    std::vector<int> owners;
    for (int s = 0; s < kBatch; ++s) {
      const int total = static_cast<int>(tokens[s].size());
      if (done[s] == total) continue;
      const int prompt = 2 + 9 * s;
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
    if (chunks.empty()) break;
    const auto out = gpu.model->Forward(chunks, FfnMode::kAuto, gpu.cache.get());
    ASSERT_TRUE(out.ok()) << out.status();
    const float* row = out->logits.data();
    for (size_t c = 0; c < chunks.size(); ++c) {
      logits[owners[c]].insert(logits[owners[c]].end(), row, row + chunks[c].logits * kVocab);
      row += chunks[c].logits * kVocab;
    }
  }
  const auto cpu = OnCpu(Relu(), DType::kF32);
  for (int s = 0; s < kBatch; ++s) {
    EXPECT_LT(Difference(logits[s], cpu->Logits(tokens[s], 1000)), 1e-4) << "sequence " << s;
  }
}

TEST(CudaModel, CountsWhatTheCpuCounts) {
  const std::vector<int32_t> prompt = RandomTokens(40, kVocab, 5);
  const auto tables = TestModel::BlockTables(3, 8);
  SequenceChunk prefill;
  prefill.tokens = prompt;
  prefill.block_table = tables[0];
  prefill.logits = 2;
  std::vector<SequenceChunk> decode(3);
  for (int s = 0; s < 3; ++s) {
    decode[s].tokens = absl::MakeConstSpan(prompt).subspan(s, 1);
    decode[s].block_table = tables[s];
    decode[s].logits = 1;
    decode[s].phase = Phase::kDecode;
  }
  decode[0].first_position = 40;
  for (const ActivationKind kind :
       {ActivationKind::kRelu, ActivationKind::kDRelu, ActivationKind::kSilu}) {
    const ModelConfig config = Fit(RandomConfig({kind, 0}));
    const auto cpu = OnCpu(config, DType::kF32);
    GpuModel gpu = OnGpu(config, DType::kF32);
    const auto compare = [&](const std::vector<SequenceChunk>& chunks, FfnMode mode) {
      const auto want = cpu->model()->Forward(chunks, mode, cpu->cache());
      const auto got = gpu.model->Forward(chunks, mode, gpu.cache.get());
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_LT(Difference(got->logits, want->logits), 1e-4);
      EXPECT_EQ(got->ffn.neurons, want->ffn.neurons);
      EXPECT_EQ(got->ffn.tokens, want->ffn.tokens);
      EXPECT_EQ(got->ffn.active_by_chunk, want->ffn.active_by_chunk);
      EXPECT_EQ(got->ffn.negative_gates, want->ffn.negative_gates);
      EXPECT_EQ(got->ffn.weight_bytes_read, want->ffn.weight_bytes_read);
      EXPECT_EQ(got->ffn.weight_bytes_skipped, want->ffn.weight_bytes_skipped);
      for (int32_t layer = 0; layer < config.num_layers; ++layer) {
        const FfnLayerStats &a = got->ffn.layers[layer], &b = want->ffn.layers[layer];
        EXPECT_EQ(a.active, b.active);
        EXPECT_EQ(a.union_active, b.union_active);
        EXPECT_EQ(a.groups, b.groups);
        EXPECT_EQ(a.dispatched, b.dispatched);
      }
    };
    for (const FfnMode mode : {FfnMode::kSparse, FfnMode::kDense}) {
      compare({prefill}, mode);
      compare(decode, mode);  // padded to 4
    }
  }
}

TEST(CudaModel, CalibrationChangesNoResult) {
  GpuModel gpu = OnGpu(Relu(), DType::kF32);
  const std::vector<int32_t> tokens = RandomTokens(6, kVocab, 7);
  const std::vector<float> before = gpu.Logits(tokens, 1, FfnMode::kSparse);
  const absl::Status status = gpu.model->Calibrate();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(SameBits(gpu.Logits(tokens, 1, FfnMode::kSparse), before));
  EXPECT_LT(Difference(gpu.Logits(tokens, 1), before), 1e-4);
}

TEST(CudaModel, GraphsAreReplayedUntilTheCacheIsAnother) {
  GpuModel gpu = OnGpu(Relu(), DType::kF32);
  const std::vector<int32_t> tokens = RandomTokens(20, kVocab, 3);
  const std::vector<float> sparse = gpu.Logits(tokens, 1, FfnMode::kSparse);
  EXPECT_EQ(gpu.model->captures(), 1);
  gpu.Logits(tokens, 1, FfnMode::kDense);
  EXPECT_EQ(gpu.model->captures(), 2);
  gpu.Logits(tokens, 1, FfnMode::kSparse);
  EXPECT_EQ(gpu.model->captures(), 2);
  gpu.cache = gpu.model->CreateKvCache(TestModel::kBlocks + 1).value();
  EXPECT_TRUE(SameBits(gpu.Logits(tokens, 1, FfnMode::kSparse), sparse));
  EXPECT_EQ(gpu.model->captures(), 3);
}

TEST(CudaModel, LongStepsTakeSeveralPasses) {
  ModelConfig config = Relu();
  config.num_layers = 1;
  GpuModel gpu = OnGpu(config, DType::kF32);
  const int count = CudaModel::kMaxPassTokens + 40;
  const std::vector<int32_t> tokens = RandomTokens(count, kVocab, 4);
  EXPECT_LT(
      Difference(gpu.Logits(tokens, count), OnCpu(config, DType::kF32)->Logits(tokens, count)),
      1e-4);
}

TEST(CudaModel, RefusesWhatDoesNotFit) {
  ModelConfig config = Relu();
  config.ffn_size = 1 << 24;
  config.num_layers = 1 << 10;
  EXPECT_TRUE(IsError(CheckCudaMemory(config, DType::kBf16, 0),
                      absl::StatusCode::kResourceExhausted, "MiB of weights as bf16"));
  config = Relu();
  EXPECT_TRUE(CheckCudaMemory(config, DType::kBf16, 0).ok());
  config.head_dim = 14;
  EXPECT_TRUE(IsError(CheckCudaMemory(config, DType::kBf16, 0), absl::StatusCode::kUnimplemented,
                      "a head size that is a multiple of 8, not 14"));
  EXPECT_TRUE(IsError(CudaModel::Create(config, LoadWeights(config, DType::kF32), 0).status(),
                      absl::StatusCode::kUnimplemented, "head size"));
  EXPECT_FALSE(CheckCudaMemory(Relu(), DType::kBf16, 99).ok());
}

TEST(CudaModel, SaysWhereItIs) {
  GpuModel gpu = OnGpu(Relu(), DType::kBf16);
  const ModelFacts& facts = gpu.model->facts();
  const auto cpu = OnCpu(Relu(), DType::kBf16);
  EXPECT_EQ(facts.device, "cuda:0");
  EXPECT_EQ(facts.isa.rfind("sm_", 0), 0u) << facts.isa;
  EXPECT_EQ(facts.weights, "bf16");
  EXPECT_EQ(facts.kv_type, DType::kBf16);
  EXPECT_EQ(facts.parameters, cpu->model()->facts().parameters);
  EXPECT_EQ(facts.weight_bytes, cpu->model()->facts().weight_bytes);
  EXPECT_EQ(facts.step_weight_bytes, cpu->model()->facts().step_weight_bytes);
  EXPECT_EQ(facts.ffn_weight_bytes, cpu->model()->facts().ffn_weight_bytes);
}

TEST(CudaModel, ACacheLeavesMemoryForCudaItself) {
  GpuModel gpu = OnGpu(Relu(), DType::kF32);
  const int64_t available = gpu.model->AvailableBytes();
  EXPECT_GT(available, 0);
  EXPECT_LT(available, GetCudaDeviceInfo()->free_bytes - (int64_t{256} << 20));
  const int64_t block = KvCache::BytesPerBlock(Relu(), gpu.model->facts().kv_type);
  const auto cache = gpu.model->CreateKvCache(static_cast<int32_t>(available / block + 1));
  EXPECT_EQ(cache.status().code(), absl::StatusCode::kResourceExhausted) << cache.status();
}

TEST(CudaModel, IsWhatDeviceCudaLoads) {
  const ModelConfig config = Relu();
  LoadOptions options;
  options.weights = "f32";
  options.threads = 1;
  options.device = "cuda";
  const auto loaded = BuildModel(config, RandomSource(config), options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->facts().device, "cuda:0");
  EXPECT_THAT(loaded->warnings, ::testing::IsEmpty());
  const auto cache = loaded->model->CreateKvCache(TestModel::kBlocks);
  ASSERT_TRUE(cache.ok()) << cache.status();
  const std::vector<int32_t> tokens = RandomTokens(3, kVocab, 1);
  EXPECT_LT(Difference(LogitsOf(loaded->model.get(), cache->get(), tokens, 3),
                       OnCpu(config, DType::kF32)->Logits(tokens, 3)),
            1e-4);
  options.predictor = "sketch";
  EXPECT_TRUE(IsError(BuildModel(config, RandomSource(config), options).status(),
                      absl::StatusCode::kUnimplemented, "it needs --device=cpu"));
}

// Of real widths: rows of several vectors and blocks.
TEST(CudaModel, RunsTheDefaultModelAsTheCpuDoes) {
  LoadOptions options;
  options.path = LACUNA_SOURCE_DIR "/models/lacuna-stories-3m";
  options.weights = "f32";
  options.threads = 1;
  options.device = "cpu";
  const auto cpu = LoadModel(options);
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  const auto source =
      CheckpointSource::Create(cpu->model->config(), Checkpoint::Open(options.path).value());
  ASSERT_TRUE(source.ok()) << source.status();
  ModelWeights weights = ModelWeights::Load(cpu->model->config(), **source, DType::kF32, false,
                                            *SupportedCpuKernels().back(), 1, nullptr)
                             .value();
  const auto gpu = CudaModel::Create(cpu->model->config(), std::move(weights), 0);
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  const std::vector<int32_t> tokens = cpu->tokenizer->Encode("It was a dark", true).value();
  const auto cpu_cache = cpu->model->CreateKvCache(TestModel::kBlocks).value();
  const auto gpu_cache = (*gpu)->CreateKvCache(TestModel::kBlocks).value();
  const int count = static_cast<int>(tokens.size());
  EXPECT_LT(Difference(LogitsOf(gpu->get(), gpu_cache.get(), tokens, count),
                       LogitsOf(cpu->model.get(), cpu_cache.get(), tokens, count)),
            1e-4);
}

TEST(CudaModel, GivesItsMemoryBack) {
  ASSERT_TRUE(SetCudaDevice(0).ok());
  const auto run = [] {
    for (const int chunk : {1, 20}) {
      OnGpu(Relu(), DType::kF32).Logits(RandomTokens(20, kVocab, 3), chunk);
    }
  };
  for (int i = 0; i < 2; ++i) run();  // what CUDA keeps for itself: the code of each kernel, say
  const CudaDeviceInfo before = *GetCudaDeviceInfo();
  for (int i = 0; i < 3; ++i) run();
  // A driver takes and gives memory in large pieces.
  const int64_t slack = before.name == "emulated" ? 0 : 32 << 20;
  EXPECT_GE(GetCudaDeviceInfo()->free_bytes, before.free_bytes - slack);
}

TEST(CudaModel, ServesRandomRequestsAsTheCpuDoes) {
  constexpr int kRequests = 100;
  std::mt19937 random(11);
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < kRequests; ++i) {
    GenerationRequest request = GreedyRequest("", 1 + random() % 4);
    request.prompt = RandomTokens(1 + random() % 24, kVocab, 1000 + i);
    requests.push_back(request);
  }
  const auto run = [&](Model* model) {
    SchedulerOptions options;
    options.max_queue = kRequests;
    options.max_concurrent = 12;
    options.max_step_tokens = 48;
    SchedulerHarness h(options, model, 40);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const GenerationRequest& request : requests) sinks.push_back(h.Submit(request));
    h.RunAll();
    return sinks;
  };
  const auto cpu = OnCpu(Relu(), DType::kF32);
  GpuModel gpu = OnGpu(Relu(), DType::kF32);
  const auto want = run(cpu->model());
  const auto got = run(gpu.model.get());
  for (int i = 0; i < kRequests; ++i) {
    ASSERT_TRUE(got[i]->status().ok()) << got[i]->status();
    EXPECT_EQ(got[i]->tokens(), want[i]->tokens()) << "request " << i;
  }
  EXPECT_GT(gpu.model->captures(), 1);
}

}  // namespace
}  // namespace lacuna
