// What takes a real GPU: the default model against the CPU, and many requests.

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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

// Decodes greedily, one sequence at a time, in a cache of kBlocks blocks.
class Greedy {
 public:
  static constexpr int32_t kBlocks = 8;

  Greedy(Model* model, std::unique_ptr<KvCache> cache) : model_(model), cache_(std::move(cache)) {
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
  Model* const model_;
  const std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> blocks_;
};

// 100 texts as the model has learnt to go on with.
std::vector<std::string> StoryOpenings() {
  std::vector<std::string> openings;
  for (const char* place : {"a garden", "the forest", "a small town", "the castle", "a boat"}) {
    for (const char* animal : {"cat", "dog", "bear", "little bird", "shy mouse"}) {
      for (const char* name : {"Lily", "Tom"}) {
        openings.push_back(absl::StrCat("Once upon a time, in ", place, ", there lived a ", animal,
                                        " named ", name, "."));
        openings.push_back(absl::StrCat("One day, ", name, " found a ", animal, " in ", place,
                                        ". \"What are you doing here?\" said ", name));
      }
    }
  }
  return openings;
}

int32_t Best(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(ModelOnGpu, GreedyTokensAreTheCpusUnlessTwoAreAboutAsGood) {
  constexpr int kTokens = 64;
  constexpr float kGap = 1e-2f;
  const LoadedModel cpu = Load("cpu"), gpu = Load("cuda");
  // By itself the CPU keeps float32 keys and values beside bf16 weights. Their rounding alone moves
  // logits by more than kGap, where a neuron crosses FATReLU's threshold.
  const DType kv_type = gpu.model->facts().kv_type;
  Greedy on_cpu(cpu.model.get(),
                KvCache::Create(cpu.model->config(), Greedy::kBlocks, kv_type).value());
  Greedy on_gpu(gpu.model.get(), gpu.model->CreateKvCache(Greedy::kBlocks).value());
  int differing = 0;
  for (const std::string& prompt : StoryOpenings()) {
    std::vector<int32_t> tokens = cpu.tokenizer->Encode(prompt, true).value();
    for (int32_t i = 0, done = 0; i < kTokens; ++i) {
      const absl::Span<const float> want = on_cpu.Next(tokens, done);
      const absl::Span<const float> got = on_gpu.Next(tokens, done);
      done = static_cast<int32_t>(tokens.size());
      const int32_t best = Best(want), other = Best(got);
      if (best != other) {
        EXPECT_LT(want[best] - want[other], kGap) << prompt << ": token " << i;
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
