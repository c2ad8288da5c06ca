// A seeded simulation of an engine that is short of everything: random arrivals, cancels,
// deadlines, priorities and failures on a KV cache that forces preemption. Every request must end
// exactly once, everything must be given back, and what a request got must be what it gets alone.

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/scheduler.h"
#include "tests/runtime/engine/engine_harness.h"

namespace lacuna {
namespace {

constexpr int32_t kMaxContext = 100;  // 7 blocks
constexpr int32_t kBlocks = 9;

template <typename T>
bool IsPrefix(const T& part, const T& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

class Simulation {
 public:
  explicit Simulation(uint32_t seed) : random_(seed) {}

  void Run(int requests) {
    SchedulerOptions options;
    options.max_concurrent = 5;
    options.max_queue = 8;
    options.max_step_tokens = 4 + Upto(40);
    options.prefix_cache = Upto(4) > 0;
    EngineHarness h(options, kBlocks, kMaxContext);
    h.model.on_forward = [&](absl::Span<const SequenceChunk> chunks, FfnMode) {
      size_t rows = 0;
      for (const SequenceChunk& chunk : chunks) rows += chunk.logits;
      EXPECT_LE(rows, kMaxPromptLogitRows + chunks.size());
      h.clock.Advance(absl::Milliseconds(1 + Upto(20)));
      return Upto(299) == 0 ? absl::UnavailableError("injected") : absl::OkStatus();
    };
    const int64_t places = options.max_concurrent + options.max_queue;
    int64_t iterations = 0, idle_steps = 0;
    while (requests > 0 || idle_steps == 0) {
      while (requests > 0 && Upto(3) == 0) {
        GenerationRequest request = RandomRequest(h.clock.Now());
        auto sink = std::make_shared<RecordingSink>();
        request.sink = sink;
        const absl::StatusOr<RequestId> id = h.TrySubmit(request);
        if (!id.ok()) {
          ASSERT_EQ(id.status().code(), absl::StatusCode::kResourceExhausted) << id.status();
          ++refused_;
          break;
        }
        --requests;
        request.sink = nullptr;
        live_.push_back({*id, std::move(request), std::move(sink)});
      }
      if (!live_.empty() && Upto(30) == 0) {
        h.scheduler->Cancel(live_[Upto(live_.size() - 1)].id, absl::CancelledError("random"));
      }
      idle_steps = h.scheduler->RunStep() ? 0 : idle_steps + 1;
      ASSERT_LT(++iterations, 200000) << "no progress";
      const EngineLoad load = h.scheduler->GetLoad();
      ASSERT_LE(load.running, options.max_concurrent);
      ASSERT_LE(load.running + load.waiting, places);
      ASSERT_LE(load.kv_blocks_used, kBlocks);
      std::erase_if(live_, [this](Live& live) {
        if (!live.sink->done()) return false;
        Check(live);
        return true;
      });
    }
    EXPECT_TRUE(live_.empty());
    const EngineLoad load = h.scheduler->GetLoad();
    EXPECT_EQ(load.running, 0);
    EXPECT_EQ(load.waiting, 0);
    EXPECT_EQ(load.kv_blocks_used, 0);
    EXPECT_TRUE(h.scheduler->Reserve(places).ok());
    EXPECT_TRUE(h.scheduler->WaitIdle(absl::ZeroDuration()));
    // The run was as hard as it was meant to be.
    EXPECT_GT(h.metrics.preemptions, 20);
    EXPECT_GT(h.metrics.steps, 1000);
    EXPECT_GT(refused_, 0);
    EXPECT_GT(completed_, 100);
    EXPECT_GT(cancelled_, 5);
    EXPECT_GT(deadlines_, 5);
    EXPECT_GT(time_limits_, 5);
    EXPECT_GT(failures_, 0);
  }

 private:
  struct Live {
    RequestId id;
    GenerationRequest request;
    std::shared_ptr<RecordingSink> sink;
  };

  int Upto(int n) { return static_cast<int>(random_() % (n + 1)); }

  GenerationRequest RandomRequest(absl::Time now) {
    static constexpr const char* kBeginnings[] = {
        "", "a common beginning that fills blocks",
        "a common beginning that fills blocks, two kinds of it"};
    GenerationRequest request = GreedyRequest(kBeginnings[Upto(2)], 1 + Upto(60));
    for (int i = 1 + Upto(20); i > 0; --i)
      request.prompt.push_back(FakeTokenizer::Byte('a' + Upto(3)));
    if (Upto(1)) {
      request.sampling.temperature = 0.2f + 0.2f * Upto(5);
      request.sampling.top_k = Upto(20);
      request.sampling.top_p = 1.0f - 0.1f * Upto(5);
      request.sampling.seed = Upto(1000);
      request.sampling.repetition_penalty = 1.0f + 0.1f * Upto(3);
      request.sampling.frequency_penalty = 0.1f * Upto(2);
      request.n = 1 + Upto(2);
    }
    request.stopping.ignore_eos = Upto(3) > 0;
    if (Upto(2) == 0) request.stopping.stop_strings = {"ab", "q"};
    request.stopping.min_tokens = Upto(1) ? 0 : std::min(Upto(10), request.stopping.max_tokens);
    request.stream_interval = 1 + Upto(3);
    request.logprobs = Upto(3) - 1;
    request.prompt_logprobs = Upto(5) == 0 ? 1 : -1;
    request.priority = Upto(2) - 1;
    request.tenant = std::string(1, static_cast<char>('a' + Upto(1)));
    if (Upto(9) == 0) request.deadline = now + absl::Milliseconds(Upto(800));
    if (Upto(9) == 0) request.queue_deadline = now + absl::Milliseconds(Upto(80));
    if (Upto(9) == 0) request.stopping.time_limit = absl::Milliseconds(Upto(800));
    return request;
  }

  void Check(const Live& live) {
    EXPECT_EQ(live.sink->violations(), 0);
    const absl::Status status = live.sink->status();
    switch (status.code()) {
      case absl::StatusCode::kOk:
        ++completed_;
        EXPECT_EQ(live.sink->results().size(), static_cast<size_t>(live.request.n));
        break;
      case absl::StatusCode::kCancelled:
        ++cancelled_;
        break;
      case absl::StatusCode::kDeadlineExceeded:
        ++deadlines_;
        break;
      default:
        ++failures_;
        EXPECT_EQ(status, absl::InternalError("model step failed: injected"));
    }

    EngineHarness alone({}, 64, kMaxContext);
    GenerationRequest request = live.request;
    request.deadline = request.queue_deadline = absl::InfiniteFuture();
    request.stopping.time_limit = absl::InfiniteDuration();
    const auto reference = alone.Submit(request);
    alone.RunAll();
    ASSERT_TRUE(reference->status().ok()) << reference->status();
    const auto results = live.sink->results();
    for (int32_t i = 0; i < request.n; ++i) {
      const std::vector<int32_t> tokens = live.sink->tokens(i);
      const auto result = results.find(i);
      if (result != results.end() && result->second.reason != FinishReason::kTimeLimit) {
        EXPECT_EQ(tokens, reference->tokens(i));
        EXPECT_EQ(live.sink->text(i), reference->text(i));
        EXPECT_EQ(result->second.reason, reference->results().at(i).reason);
        EXPECT_EQ(result->second.completion_tokens, static_cast<int32_t>(tokens.size()));
      } else {
        time_limits_ += result != results.end();
        EXPECT_TRUE(IsPrefix(tokens, reference->tokens(i)));
      }
      const auto infos = live.sink->infos(i), expected = reference->infos(i);
      for (size_t t = 0; t < std::min(infos.size(), expected.size()); ++t) {
        ASSERT_EQ(infos[t].logprob, expected[t].logprob);
      }
    }
    const auto infos = live.sink->prompt_infos(), expected = reference->prompt_infos();
    if (!infos.empty()) {
      ASSERT_EQ(infos.size(), expected.size());
      for (size_t t = 0; t < infos.size(); ++t) ASSERT_EQ(infos[t].logprob, expected[t].logprob);
    }
  }

  std::mt19937 random_;
  std::vector<Live> live_;
  int refused_ = 0, completed_ = 0, cancelled_ = 0, deadlines_ = 0, time_limits_ = 0, failures_ = 0;
};

class SchedulerSimulationTest : public testing::TestWithParam<uint32_t> {};

TEST_P(SchedulerSimulationTest, EveryRequestEndsOnceAsItWouldAlone) {
  Simulation(GetParam()).Run(500);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerSimulationTest, testing::Range(1u, 7u));

}  // namespace
}  // namespace lacuna
