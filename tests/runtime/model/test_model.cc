#include "tests/runtime/model/test_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <utility>

#include "kernels/cpu/cpu_kernels.h"
#include "runtime/base/file.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/checkpoint_source.h"

namespace lacuna {
namespace {

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << value.status() << "\n";
    std::abort();
  }
  return *std::move(value);
}

}  // namespace

std::unique_ptr<TestModel> TestModel::Make(const ModelConfig& config, const WeightSource& source,
                                           DType dtype, int threads, const KernelTable* kernels,
                                           bool sketch) {
  std::unique_ptr<TestModel> test(new TestModel);
  test->pool_ = std::make_unique<ThreadPool>(threads);
  ModelWeights weights = ValueOrDie(
      ModelWeights::Load(config, source, dtype, sketch, *kernels, test->pool_->threads(), nullptr));
  test->model_ =
      std::make_unique<TransformerModel>(config, std::move(weights), kernels, test->pool_.get());
  test->cache_ = ValueOrDie(KvCache::Create(config, kBlocks, test->model_->facts().kv_type));
  return test;
}

ModelConfig RandomConfig(Activation activation) {
  ModelConfig config;
  config.architecture = "test";
  config.hidden_size = 72;
  config.ffn_size = 203;
  config.num_layers = 3;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 14;  // 6 heads of 14 make 84
  config.vocab_size = 101;
  config.max_context = 512;
  config.activation = activation;
  return config;
}

ModelConfig OptConfig(bool norm_after) {
  ModelConfig config = RandomConfig({ActivationKind::kRelu, 0});
  config.num_kv_heads = config.num_heads;
  config.gated = false;
  config.ffn_bias = config.attention_bias = true;
  config.norm = NormKind::kLayer;
  config.norm_after = norm_after;
  config.final_norm = !norm_after;
  config.positions = PositionKind::kLearned;
  config.projected_embedding_size = norm_after ? 37 : 0;
  config.tie_embeddings = true;
  return config;
}

ModelConfig WindowConfig() {
  ModelConfig config = RandomConfig({ActivationKind::kDRelu, 0});
  config.sliding_window = 21;
  config.attention_bias = true;
  config.rope_scaling = {.kind = RopeScalingKind::kDynamic, .factor = 2, .trained_context = 30};
  return config;
}

RandomSource& RandomSource::Scale(Tensor tensor, float factor) {
  factors_[tensor] = factor;
  return *this;
}

absl::Status RandomSource::Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                                int64_t row_stride) const {
  const ModelConfig& c = config_;
  int64_t rows = c.vocab_size, cols = c.hidden_size;
  float mean = 0, deviation = 1.0f / std::sqrt(static_cast<float>(c.hidden_size));
  switch (tensor) {
    case Tensor::kEmbedding:
      cols = c.embedding_size();
      deviation = 1;
      break;
    case Tensor::kLmHead:
      cols = c.embedding_size();
      break;
    case Tensor::kFinalNorm:
    case Tensor::kAttentionNorm:
    case Tensor::kFfnNorm:
      rows = 1;
      mean = 1;
      deviation = 0.1f;
      break;
    case Tensor::kQ:
      rows = c.q_dim();
      deviation *= 2;  // attention that prefers some positions
      break;
    case Tensor::kK:
    case Tensor::kV:
      rows = c.kv_dim();
      break;
    case Tensor::kO:
      rows = c.hidden_size;
      cols = c.q_dim();
      break;
    case Tensor::kGate:
    case Tensor::kUp:
    case Tensor::kDown:
      rows = c.ffn_size;
      break;
    case Tensor::kPositions:
      rows = c.max_context + kLearnedPositionOffset;
      deviation = 1;
      break;
    case Tensor::kProjectIn:
      rows = c.hidden_size;
      cols = c.embedding_size();
      deviation = 1.0f / std::sqrt(static_cast<float>(cols));
      break;
    case Tensor::kProjectOut:
      rows = c.embedding_size();
      break;
    case Tensor::kQBias:
      rows = 1;
      cols = c.q_dim();
      deviation = 0.3f;
      break;
    case Tensor::kKBias:
    case Tensor::kVBias:
      rows = 1;
      cols = c.kv_dim();
      deviation = 0.3f;
      break;
    case Tensor::kGateBias:
      rows = 1;
      cols = c.ffn_size;
      deviation = 0.3f;
      break;
    case Tensor::kFinalNormBias:
    case Tensor::kAttentionNormBias:
    case Tensor::kFfnNormBias:
    case Tensor::kOBias:
    case Tensor::kDownBias:
      rows = 1;
      deviation = 0.3f;
      break;
  }
  const auto factor = factors_.find(tensor);
  const float scale = factor == factors_.end() ? 1.0f : factor->second;
  std::mt19937 random(1000 * layer + static_cast<int>(tensor));
  std::normal_distribution<float> normal(mean, deviation);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      // Rounded to bf16 first: with factors that are powers of two, both types hold the same.
      float value = normal(random);
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      bits &= 0xFFFF0000u;
      std::memcpy(&value, &bits, 4);
      value *= scale;
      std::memcpy(&bits, &value, 4);
      const uint16_t top = static_cast<uint16_t>(bits >> 16);
      std::byte* at = out + r * row_stride + i * RowBytes(as, 1);
      if (as == DType::kBf16) {
        std::memcpy(at, &top, 2);
      } else {
        std::memcpy(at, &bits, 4);
      }
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<TestModel> TestModel::Random(const KernelTable* kernels, DType dtype, int threads,
                                             Activation activation) {
  const ModelConfig config = RandomConfig(activation);
  return Make(config, RandomSource(config), dtype, threads, kernels);
}

std::unique_ptr<TestModel> TestModel::FromDirectory(const std::string& directory, DType dtype,
                                                    int threads, const KernelTable* kernels) {
  const std::string json = ValueOrDie(ReadFile(directory + "/config.json", 1 << 20));
  const ModelConfig config = ValueOrDie(ParseModelConfig(json, ""));
  const std::unique_ptr<CheckpointSource> source =
      ValueOrDie(CheckpointSource::Create(config, ValueOrDie(Checkpoint::Open(directory))));
  if (kernels == nullptr) kernels = ValueOrDie(SelectCpuKernels(""));
  return Make(config, *source, dtype, threads, kernels);
}

std::vector<std::vector<int32_t>> TestModel::BlockTables(int count, int blocks) {
  std::vector<int32_t> ids(kBlocks);
  for (int i = 0; i < kBlocks; ++i) ids[i] = i;
  std::shuffle(ids.begin(), ids.end(), std::mt19937(count));
  std::vector<std::vector<int32_t>> tables(count);
  for (int i = 0; i < count * blocks; ++i) tables[i % count].push_back(ids.at(i));
  return tables;
}

std::vector<float> LogitsOf(Model* model, KvCache* cache, const std::vector<int32_t>& tokens,
                            int chunk, FfnMode mode) {
  const int count = static_cast<int>(tokens.size());
  const std::vector<int32_t> blocks = TestModel::BlockTables(1, KvCache::BlocksFor(count))[0];
  std::vector<float> logits;
  for (int first = 0; first < count; first += chunk) {
    SequenceChunk part;
    part.tokens = absl::MakeConstSpan(tokens).subspan(first, chunk);
    part.first_position = first;
    part.block_table = blocks;
    part.logits = static_cast<int32_t>(part.tokens.size());
    const ForwardOutput out = ValueOrDie(model->Forward({part}, mode, cache));
    logits.insert(logits.end(), out.logits.begin(), out.logits.end());
  }
  return logits;
}

std::vector<int32_t> RandomTokens(int count, int vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

}  // namespace lacuna
