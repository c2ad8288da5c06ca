#ifndef LACUNA_TESTS_RUNTIME_ENGINE_ENGINE_HARNESS_H_
#define LACUNA_TESTS_RUNTIME_ENGINE_ENGINE_HARNESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine/scheduler.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/fake_tokenizer.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/recording_sink.h"

namespace lacuna {

// Adds up what the engine reports. Read it when the engine stands still.
class CountingMetrics : public EngineMetrics {
 public:
  void OnStep(const StepReport& report) override {
    ++steps;
    prefill_tokens += report.prefill_tokens;
    decode_tokens += report.decode_tokens;
  }
  void OnScheduled(absl::Duration queue_time) override { queue_times.push_back(queue_time); }
  void OnFirstToken(absl::Duration, absl::Duration) override { ++first_tokens; }
  void OnNextToken(absl::Duration) override { ++next_tokens; }
  void OnChoiceFinished(absl::Duration, int32_t completion_tokens) override {
    ++choices;
    choice_tokens += completion_tokens;
  }
  void OnPrompt(int32_t computed_tokens, int32_t cached_tokens, bool looked_up) override {
    prompt_computed += computed_tokens;
    if (looked_up) prompt_looked_up += computed_tokens + cached_tokens;
    prompt_cached += cached_tokens;
  }
  void OnPreemption() override { ++preemptions; }
  void OnLoad(const EngineLoad& load) override { last_load = load; }

  int64_t steps = 0, prefill_tokens = 0, decode_tokens = 0;
  int64_t first_tokens = 0, next_tokens = 0, choices = 0, choice_tokens = 0;
  int64_t prompt_computed = 0, prompt_cached = 0, prompt_looked_up = 0, preemptions = 0;
  std::vector<absl::Duration> queue_times;
  EngineLoad last_load;
};

// A scheduler of a model, with a KV cache and counters of its own.
struct SchedulerHarness {
  // `model` must outlive the harness; without `clock`, time stands still.
  SchedulerHarness(const SchedulerOptions& options, Model* model, int32_t num_blocks,
                   Clock* clock = nullptr)
      : cache(model->CreateKvCache(num_blocks).value()),
        scheduler(std::make_unique<Scheduler>(options, model, cache.get(), &tokenizer, &metrics,
                                              clock != nullptr ? clock : &this->clock)) {}

  absl::StatusOr<RequestId> TrySubmit(GenerationRequest request) {
    absl::StatusOr<Scheduler::Ticket> ticket = scheduler->Reserve(request.n);
    if (!ticket.ok()) return ticket.status();
    return scheduler->Submit(*std::move(ticket), std::move(request));
  }
  // Submits a valid request with a new sink.
  std::shared_ptr<RecordingSink> Submit(GenerationRequest request, RequestId* id = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    request.sink = sink;
    const RequestId submitted = TrySubmit(std::move(request)).value();
    if (id != nullptr) *id = submitted;
    return sink;
  }
  void RunAll() {
    while (scheduler->RunStep()) {
    }
  }

  FakeTokenizer tokenizer;
  ManualClock clock;
  CountingMetrics metrics;
  std::unique_ptr<KvCache> cache;
  std::unique_ptr<Scheduler> scheduler;
};

// A base class, to be there before SchedulerHarness and until after it.
struct FakeModelHolder {
  FakeModel model;
};

// A scheduler of a FakeModel.
struct EngineHarness : FakeModelHolder, SchedulerHarness {
  explicit EngineHarness(const SchedulerOptions& options = {}, int32_t num_blocks = 64,
                         int32_t max_context = 512, Clock* clock = nullptr)
      : FakeModelHolder{FakeModel(258, max_context)},
        SchedulerHarness(options, &model, num_blocks, clock) {}
};

// Tokens of a text, without BOS.
inline std::vector<int32_t> Ids(const std::string& text) {
  return FakeTokenizer().Encode(text, false).value();
}

// A greedy request without logprobs, stops or limits but max_tokens.
inline GenerationRequest GreedyRequest(const std::string& prompt, int32_t max_tokens) {
  GenerationRequest request;
  request.prompt = Ids(prompt);
  request.sampling.temperature = 0;
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_ENGINE_ENGINE_HARNESS_H_
