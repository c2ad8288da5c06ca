// What takes a real GPU: the default model against the CPU, and many requests.

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/model/load_model.h"
#include "tests/runtime/engine/engine_harness.h"
#include "tests/runtime/model/test_model.h"

namespace lacuna {
namespace {

LoadedModel Load(const char* device) {
  LoadOptions options;
  options.path = LACUNA_SOURCE_DIR "/models/lacuna-stories-3m";
  options.weights = "bf16";
  options.device = device;
  return LoadModel(options).value();
}

// Decodes greedily, one sequence at a time.
class Greedy {
 public:
  explicit Greedy(Model* model) : model_(model), cache_(model->CreateKvCache(kBlocks).value()) {
    for (int32_t b = 0; b < kBlocks; ++b) blocks_.push_back(b);
  }

  // Logits after `tokens`, of which the first `done` have been computed.
  absl::Span<const float> Next(const std::vector<int32_t>& tokens, int32_t done) {
    SequenceChunk chunk;
    chunk.tokens = absl::MakeConstSpan(tokens).subspan(done);
    chunk.first_position = done;
    chunk.block_table = blocks_;
    chunk.logits = 1;
    chunk.phase = done == 0 ? Phase::kPrefill : Phase::kDecode;
    return model_->Forward({chunk}, FfnMode::kAuto, cache_.get()).value().logits;
  }

 private:
  static constexpr int32_t kBlocks = 8;
  Model* const model_;
  const std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> blocks_;
};

int32_t Best(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(ModelOnGpu, GreedyTokensAreTheCpusUnlessTwoAreAboutAsGood) {
  constexpr int kPrompts = 100, kTokens = 64;
  constexpr float kGap = 1e-2f;
  const LoadedModel cpu = Load("cpu"), gpu = Load("cuda");
  const int32_t vocab = cpu.tokenizer->vocab_size();
  Greedy on_cpu(cpu.model.get()), on_gpu(gpu.model.get());
  int differing = 0;
  for (int p = 0; p < kPrompts; ++p) {
    std::vector<int32_t> tokens = RandomTokens(8 + p % 48, vocab, p);
    tokens[0] = cpu.model->config().bos_id;
    for (int32_t i = 0, done = 0; i < kTokens; ++i) {
      const absl::Span<const float> want = on_cpu.Next(tokens, done);
      const absl::Span<const float> got = on_gpu.Next(tokens, done);
      done = static_cast<int32_t>(tokens.size());
      const int32_t best = Best(want), other = Best(got);
      if (best != other) {
        EXPECT_LT(want[best] - want[other], kGap) << "prompt " << p << ", token " << i;
        ++differing;
        break;
      }
      tokens.push_back(best);
    }
  }
  RecordProperty("differing_prompts", differing);
}

TEST(ModelOnGpu, AThousandRequestsLeakNothing) {
  constexpr int kRequests = 1000;
  const LoadedModel gpu = Load("cuda");
  std::vector<int64_t> free_bytes;
  for (const int count : {50, kRequests}) {  // the first ones capture graphs
    SchedulerOptions options;
    options.max_queue = count;
    options.max_concurrent = 48;
    SchedulerHarness h(options, gpu.model.get(), 512);
    std::mt19937 random(count);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < count; ++i) {
      GenerationRequest request = GreedyRequest("", static_cast<int32_t>(1 + random() % 32));
      request.prompt =
          RandomTokens(static_cast<int>(1 + random() % 200), FakeTokenizer::kFirstPiece, i);
      sinks.push_back(h.Submit(request));
    }
    h.RunAll();
    for (const auto& sink : sinks) EXPECT_TRUE(sink->status().ok()) << sink->status();
    EXPECT_EQ(h.scheduler->GetLoad().running, 0);
    free_bytes.push_back(gpu.model->AvailableBytes());
  }
  // Graphs of batches that the first requests did not make take some.
  EXPECT_GT(free_bytes[1], free_bytes[0] - (int64_t{64} << 20));
}

}  // namespace
}  // namespace lacuna
