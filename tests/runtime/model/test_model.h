#ifndef LACUNA_TESTS_RUNTIME_MODEL_TEST_MODEL_H_
#define LACUNA_TESTS_RUNTIME_MODEL_TEST_MODEL_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/thread_pool.h"
#include "runtime/model/transformer_model.h"

namespace lacuna {

// Logits of every position of `tokens` [tokens, vocab], computed alone in chunks of `chunk`.
std::vector<float> LogitsOf(Model* model, KvCache* cache, const std::vector<int32_t>& tokens,
                            int chunk, FfnMode mode = FfnMode::kAuto);

// A model with its threads and a KV cache, without a tokenizer. Test failures abort.
class TestModel {
 public:
  // Seeded random weights with blocks as strong as the residual stream, so that an error anywhere
  // shows in the logits; sizes that are no multiples of a vector, grouped-query attention, heads
  // wider than the hidden size.
  static std::unique_ptr<TestModel> Random(const KernelTable* kernels, DType dtype, int threads,
                                           Activation activation = {ActivationKind::kFatRelu,
                                                                    1.0f});
  // Any configuration and weights.
  static std::unique_ptr<TestModel> Make(const ModelConfig& config, const WeightSource& source,
                                         DType dtype, int threads, const KernelTable* kernels,
                                         bool sketch = false);
  // A Hugging Face directory, on the fastest kernels of this machine unless given.
  static std::unique_ptr<TestModel> FromDirectory(const std::string& directory, DType dtype,
                                                  int threads,
                                                  const KernelTable* kernels = nullptr);

  ThreadPool* pool() const { return pool_.get(); }
  TransformerModel* model() { return model_.get(); }
  KvCache* cache() { return cache_.get(); }
  // `count` block tables of `blocks` blocks each, disjoint and in no particular order.
  static std::vector<std::vector<int32_t>> BlockTables(int count, int blocks);
  // Blocks that every TestModel has.
  static constexpr int kBlocks = 160;

  std::vector<float> Logits(const std::vector<int32_t>& tokens, int chunk,
                            FfnMode mode = FfnMode::kAuto) {
    return LogitsOf(model(), cache(), tokens, chunk, mode);
  }

 private:
  TestModel() = default;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<TransformerModel> model_;
  std::unique_ptr<KvCache> cache_;
};

// The configuration of TestModel::Random.
ModelConfig RandomConfig(Activation activation);
// What is not LLaMA: the 350m kind of OPT (norm_after) has every part that another lacks but the
// final norm.
ModelConfig OptConfig(bool norm_after);
// dReLU, a sliding window, biases of the attention, dynamic NTK scaling.
ModelConfig WindowConfig();

// Its weights: N(0, 1/fan-in) matrices, norms around 1. A tensor may be multiplied by a factor.
class RandomSource : public WeightSource {
 public:
  explicit RandomSource(const ModelConfig& config) : config_(config) {}
  RandomSource& Scale(Tensor tensor, float factor);
  DType stored_dtype() const override { return DType::kF32; }
  absl::Status Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                    int64_t row_stride) const override;

 private:
  const ModelConfig config_;
  std::map<Tensor, float> factors_;
};

// Seeded token ids in [0, vocab).
std::vector<int32_t> RandomTokens(int count, int vocab, uint64_t seed);

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_MODEL_TEST_MODEL_H_
