// The promises of the engine and of the model together: what a request gets, its log-probabilities
// to the last bit, does not depend on batch mates, chunks, the prefix cache or preemptions.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_kernels.h"
#include "tests/runtime/engine/engine_harness.h"
#include "tests/runtime/model/test_model.h"

namespace lacuna {
namespace {

constexpr int kVocab = 101;  // of TestModel::Random
constexpr int32_t kEnough = 160;

using Sinks = std::vector<std::shared_ptr<RecordingSink>>;

class RealModelTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  void SetUp() override {
    model_ = TestModel::Random(GetParam(), DType::kF32, 2);
    const std::vector<int32_t> shared = RandomTokens(35, kVocab, 1);  // two full blocks
    for (int i = 0; i < 6; ++i) {
      GenerationRequest request = GreedyRequest("", 30 + i);
      const std::vector<int32_t> own = RandomTokens(3 + 9 * i, kVocab, 2 + i);
      if (i % 3 != 0) request.prompt = shared;
      request.prompt.insert(request.prompt.end(), own.begin(), own.end());
      if (i % 2 == 1) {
        request.sampling.temperature = 1;
        request.sampling.seed = 77;
      }
      request.logprobs = 5;
      if (i == 2) request.prompt_logprobs = 5;
      requests_.push_back(request);
    }
    for (const GenerationRequest& request : requests_) {
      SchedulerOptions options;
      options.prefix_cache = false;
      SchedulerHarness h(options, model_->model(), kEnough);
      alone_.push_back(h.Submit(request));
      h.RunAll();
      ASSERT_TRUE(alone_.back()->status().ok()) << alone_.back()->status();
      ASSERT_EQ(alone_.back()->tokens().size(), size_t(request.stopping.max_tokens));
    }
  }

  // Runs all requests at once and compares what they get.
  Sinks RunBatch(SchedulerHarness* h) {
    Sinks sinks;
    for (const GenerationRequest& request : requests_) sinks.push_back(h->Submit(request));
    h->RunAll();
    for (size_t i = 0; i < sinks.size(); ++i) {
      EXPECT_TRUE(sinks[i]->status().ok()) << sinks[i]->status();
      EXPECT_EQ(sinks[i]->tokens(), alone_[i]->tokens()) << "request " << i;
      EXPECT_TRUE(sinks[i]->infos() == alone_[i]->infos()) << "request " << i;
      EXPECT_TRUE(sinks[i]->prompt_infos() == alone_[i]->prompt_infos()) << "request " << i;
    }
    return sinks;
  }

  std::unique_ptr<TestModel> model_;
  std::vector<GenerationRequest> requests_;
  Sinks alone_;
};

TEST_P(RealModelTest, TheTestTellsRequestsApart) {
  for (size_t i = 0; i < alone_.size(); ++i) {
    EXPECT_EQ(alone_[i]->infos().front().top.size(), 5u);
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(alone_[i]->infos() == alone_[j]->infos());
  }
  EXPECT_EQ(alone_[2]->prompt_infos().size(), requests_[2].prompt.size());
}

TEST_P(RealModelTest, BatchMatesChunksAndThreadsThatDrawDoNotMatter) {
  for (const int32_t max_step_tokens : {7, 64, 512}) {
    SchedulerOptions options;
    options.max_step_tokens = max_step_tokens;
    options.prefix_cache = false;
    options.pool = model_->pool();
    SchedulerHarness h(options, model_->model(), kEnough);
    RunBatch(&h);
    EXPECT_EQ(h.metrics.preemptions, 0);
  }
}

TEST_P(RealModelTest, ThePrefixCacheDoesNotMatter) {
  SchedulerHarness h({}, model_->model(), kEnough);
  RunBatch(&h);
  const Sinks again = RunBatch(&h);
  for (size_t i = 0; i < again.size(); ++i) {
    // A prompt of less than a block has nothing to be found; logits of a prompt are never cached.
    const bool may_hit =
        requests_[i].prompt.size() > KvCache::kBlockSize && requests_[i].prompt_logprobs < 0;
    EXPECT_EQ(again[i]->results().at(0).cached_tokens > 0, may_hit) << "request " << i;
  }
}

TEST_P(RealModelTest, PreemptionDoesNotMatter) {
  for (const bool prefix_cache : {false, true}) {
    SchedulerOptions options;
    options.prefix_cache = prefix_cache;
    SchedulerHarness h(options, model_->model(), 14);  // six sequences of up to 8 blocks
    RunBatch(&h);
    EXPECT_GT(h.metrics.preemptions, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, RealModelTest, testing::ValuesIn(SupportedCpuKernels()),
                         [](const auto& info) { return std::string(info.param->isa); });

}  // namespace
}  // namespace lacuna
