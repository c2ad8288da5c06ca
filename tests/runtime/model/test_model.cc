#include "tests/runtime/model/test_model.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>
#include <utility>

#include "kernels/cpu/cpu_kernels.h"
#include "runtime/base/file.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/checkpoint_source.h"
#include "runtime/model/synthetic.h"

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
                                           DType dtype, int threads, const KernelTable* kernels) {
  std::unique_ptr<TestModel> test(new TestModel);
  test->pool_ = std::make_unique<ThreadPool>(threads);
  ModelWeights weights =
      ValueOrDie(ModelWeights::Load(config, source, dtype, test->pool_.get(), nullptr));
  test->model_ =
      std::make_unique<TransformerModel>(config, std::move(weights), kernels, test->pool_.get());
  test->cache_ = ValueOrDie(KvCache::Create(config, kBlocks));
  return test;
}

std::unique_ptr<TestModel> TestModel::Random(const KernelTable* kernels, DType dtype, int threads,
                                             Activation activation) {
  ModelConfig config = SyntheticConfig({"test", 72, 203, 3, 6, 2, 101, 0.8});
  config.activation = activation;
  const std::unique_ptr<WeightSource> source = MakeSyntheticSource(config, 0.8, 7);
  return Make(config, *source, dtype, threads, kernels);
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

std::vector<float> TestModel::Logits(const std::vector<int32_t>& tokens, int chunk, FfnMode mode) {
  const int count = static_cast<int>(tokens.size());
  const std::vector<int32_t> blocks = BlockTables(1, KvCache::BlocksFor(count))[0];
  std::vector<float> logits;
  for (int first = 0; first < count; first += chunk) {
    SequenceChunk part;
    part.tokens = absl::MakeConstSpan(tokens).subspan(first, chunk);
    part.first_position = first;
    part.block_table = blocks;
    part.logits = static_cast<int32_t>(part.tokens.size());
    const ForwardOutput out = ValueOrDie(model_->Forward({part}, mode, cache_.get()));
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
