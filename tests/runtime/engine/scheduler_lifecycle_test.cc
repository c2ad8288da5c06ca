// How requests enter and leave: admission, order, cancellation, time, failures, shutdown.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/engine/scheduler.h"
#include "tests/runtime/engine/engine_harness.h"

namespace lacuna {
namespace {

SchedulerOptions Options(int32_t max_concurrent, int32_t max_queue, int32_t max_step_tokens = 512) {
  SchedulerOptions options;
  options.max_concurrent = max_concurrent;
  options.max_queue = max_queue;
  options.max_step_tokens = max_step_tokens;
  return options;
}

TEST(SchedulerLifecycleTest, RefusesMoreSequencesThanItHasPlacesFor) {
  EngineHarness h(Options(2, 1));
  auto two = h.scheduler->Reserve(2);
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(h.scheduler->Reserve(2).status().code(), absl::StatusCode::kResourceExhausted);
  { auto last = h.scheduler->Reserve(1).value(); }  // given back unused
  auto last = h.scheduler->Reserve(1);
  ASSERT_TRUE(last.ok());
  EXPECT_EQ(h.scheduler->Reserve(1).status().message(),
            "the queue is full: 3 of 3 places (max_concurrent 2 + max_queue 1) are taken, "
            "1 more asked for");
  Scheduler::Ticket moved = *std::move(last);
  EXPECT_FALSE(h.scheduler->Reserve(1).ok());
  moved = Scheduler::Ticket();
  EXPECT_FALSE(h.scheduler->Reserve(2).ok());
  EXPECT_TRUE(h.scheduler->Reserve(1).ok());
  EXPECT_EQ(h.scheduler->Reserve(0).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SchedulerLifecycleTest, TheWaitBeforeTheSubmissionCounts) {
  EngineHarness h;
  GenerationRequest request = GreedyRequest("abc", 3);
  request.arrived = h.clock.Now() - absl::Seconds(5);
  const auto early = h.Submit(request);
  const auto now = h.Submit(GreedyRequest("abc", 3));
  request.stopping.time_limit = absl::Seconds(5);
  const auto late = h.Submit(request);
  h.RunAll();
  EXPECT_EQ(early->results().at(0).timings.queue, absl::Seconds(5));
  EXPECT_EQ(early->results().at(0).timings.ttft, absl::Seconds(5));
  EXPECT_EQ(early->results().at(0).timings.total, absl::Seconds(5));
  EXPECT_EQ(now->results().at(0).timings.queue, absl::ZeroDuration());
  EXPECT_EQ(late->results().at(0).reason, FinishReason::kTimeLimit);
  EXPECT_EQ(h.metrics.queue_times.at(0), absl::Seconds(5));
}

TEST(SchedulerLifecycleTest, PlacesAreFreeAgainWhenOnDoneIsCalled) {
  struct Sink : RecordingSink {
    void OnDone(const absl::Status& status) override {
      RecordingSink::OnDone(status);
      load = scheduler->GetLoad();
      reserved = scheduler->Reserve(1).ok();
      idle = scheduler->WaitIdle(absl::ZeroDuration());
    }
    Scheduler* scheduler = nullptr;
    EngineLoad load;
    bool reserved = false;
    bool idle = true;
  };
  EngineHarness h(Options(1, 0));
  auto sink = std::make_shared<Sink>();
  sink->scheduler = h.scheduler.get();
  GenerationRequest request = GreedyRequest("abc", 3);
  request.sink = sink;
  ASSERT_TRUE(h.TrySubmit(request).ok());
  EXPECT_FALSE(h.scheduler->Reserve(1).ok());
  h.RunAll();
  EXPECT_TRUE(sink->reserved);
  EXPECT_FALSE(sink->idle);  // not before OnDone has returned
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::ZeroDuration()));
  EXPECT_EQ(sink->load.running, 0);
  EXPECT_EQ(sink->load.waiting, 0);
  EXPECT_EQ(sink->load.kv_blocks_used, 0);
}

TEST(SchedulerLifecycleTest, RefusesWhatItCannotRun) {
  EngineHarness h({}, 4, 100);  // 64 positions in the cache
  struct Case {
    const char* message;
    std::function<void(GenerationRequest*)> change;
    absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  };
  const std::vector<Case> cases = {
      {"the prompt is empty", [](auto* r) { r->prompt.clear(); }},
      {"prompt token 258 is not in the vocabulary of 258 tokens",
       [](auto* r) { r->prompt[1] = 258; }},
      {"prompt token -1 is not in the vocabulary of 258 tokens",
       [](auto* r) { r->prompt[1] = -1; }},
      {"stop token 9999 is not in the vocabulary of 258 tokens",
       [](auto* r) {
         r->stopping.stop_token_ids = {3, 9999};
       }},
      {"biased token 258 is not in the vocabulary of 258 tokens",
       [](auto* r) {
         r->sampling.logit_bias = {{258, 1.0f}};
       }},
      {"prompt has 100 tokens, the limit is 99", [](auto* r) { r->prompt.assign(100, 5); }},
      {"prompt has 65 tokens, the KV cache has room for 64",
       [](auto* r) { r->prompt.assign(65, 5); }, absl::StatusCode::kResourceExhausted},
      {"max_tokens is 0, it must be at least 1", [](auto* r) { r->stopping.max_tokens = 0; }},
      {"a stop string is empty",
       [](auto* r) {
         r->stopping.stop_strings = {"a", ""};
       }},
      {"the request has no sink", [](auto* r) { r->sink = nullptr; }},
  };
  for (const Case& c : cases) {
    GenerationRequest request = GreedyRequest("abc", 3);
    auto sink = std::make_shared<RecordingSink>();
    request.sink = sink;
    c.change(&request);
    const absl::Status status = h.TrySubmit(request).status();
    EXPECT_EQ(status.code(), c.code) << c.message;
    EXPECT_EQ(status.message(), c.message);
    EXPECT_FALSE(sink->done());
  }
  GenerationRequest request = GreedyRequest("abc", 3);
  request.n = 2;
  EXPECT_EQ(h.scheduler->Submit(h.scheduler->Reserve(1).value(), request).status().message(),
            "the request has 2 choices, its ticket is for 1");
  EXPECT_FALSE(h.scheduler->RunStep());
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::ZeroDuration()));  // all places were given back
}

TEST(SchedulerLifecycleTest, GoesByPriorityThenByArrival) {
  EngineHarness h(Options(1, 10));
  std::vector<std::string> order;
  h.model.on_forward = [&order](absl::Span<const SequenceChunk> chunks, FfnMode) {
    if (chunks[0].first_position == 0) {
      order.push_back(std::string(1, static_cast<char>(chunks[0].tokens[0] - 2)));
    }
    return absl::OkStatus();
  };
  const auto submit = [&h](const char* prompt, int32_t priority) {
    GenerationRequest request = GreedyRequest(prompt, 2);
    request.priority = priority;
    h.Submit(request);
  };
  submit("a", 0);
  submit("b", 0);
  submit("c", 5);
  submit("d", -1);
  submit("e", 5);
  h.RunAll();
  EXPECT_EQ(order, (std::vector<std::string>{"c", "e", "a", "b", "d"}));
}

TEST(SchedulerLifecycleTest, PreemptsTheLatestOfTheLowestPriority) {
  EngineHarness h(Options(3, 10), 6);  // 96 positions for three sequences that grow to 60
  GenerationRequest request = GreedyRequest("first", 55);
  const auto first = h.Submit(request);
  request = GreedyRequest("urgent", 54);
  request.priority = 1;
  const auto urgent = h.Submit(request);
  const auto last = h.Submit(GreedyRequest("last", 56));
  while (!urgent->done()) ASSERT_TRUE(h.scheduler->RunStep());
  EXPECT_GE(h.metrics.preemptions, 2);
  EXPECT_FALSE(first->done());
  h.RunAll();
  EXPECT_TRUE(first->status().ok());
  EXPECT_TRUE(last->status().ok());
  EXPECT_EQ(h.metrics.queue_times.size(), 3u);                    // once each
  EXPECT_EQ(h.metrics.prompt_computed + h.metrics.prompt_cached,  // once each
            5 + 6 + 4);
}

TEST(SchedulerLifecycleTest, ALongPromptNeitherStopsDecodesNorWaitsForThem) {
  EngineHarness h(Options(4, 4, 16), 64);
  const auto decoding = h.Submit(GreedyRequest("abc", 100));
  EXPECT_TRUE(h.scheduler->RunStep());
  const auto prompt = h.Submit(GreedyRequest(std::string(150, 'p'), 2));
  for (int step = 0; step < 10; ++step) {
    const size_t before = decoding->tokens().size();
    EXPECT_TRUE(h.scheduler->RunStep());
    EXPECT_EQ(decoding->tokens().size(), before + 1);
  }
  EXPECT_EQ(prompt->tokens().size(), 1u);  // 150 tokens in steps of 15 or more
}

TEST(SchedulerLifecycleTest, CancelEndsARequestWithinOneStepWhereverItIs) {
  EngineHarness h(Options(1, 4));
  RequestId running_id, waiting_id, new_id;
  const auto running = h.Submit(GreedyRequest("abc", 100), &running_id);
  const auto waiting = h.Submit(GreedyRequest("abc", 100), &waiting_id);
  EXPECT_TRUE(h.scheduler->RunStep());
  const auto fresh = h.Submit(GreedyRequest("abc", 100), &new_id);
  const auto other = h.Submit(GreedyRequest("abc", 3));
  h.scheduler->Cancel(running_id, absl::CancelledError("gone"));
  h.scheduler->Cancel(running_id, absl::ResourceExhaustedError("too late"));
  h.scheduler->Cancel(waiting_id, absl::ResourceExhaustedError("slow"));
  h.scheduler->Cancel(new_id, absl::CancelledError("gone"));
  EXPECT_TRUE(h.scheduler->RunStep());
  EXPECT_EQ(running->status(), absl::CancelledError("gone"));
  EXPECT_EQ(waiting->status(), absl::ResourceExhaustedError("slow"));
  EXPECT_EQ(fresh->status(), absl::CancelledError("gone"));
  EXPECT_EQ(running->tokens().size(), 1u);
  EXPECT_EQ(other->tokens().size(), 1u);                           // took the slot in the same step
  h.scheduler->Cancel(running_id, absl::CancelledError("ended"));  // no-op
  h.scheduler->Cancel(12345, absl::CancelledError("unknown"));
  h.RunAll();
  EXPECT_TRUE(other->status().ok());
  EXPECT_EQ(running->violations(), 0);
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::ZeroDuration()));
}

TEST(SchedulerLifecycleTest, CancelEndsAllChoicesButTakesNoFinishedOneBack) {
  EngineHarness h;
  h.model.logits_after = [](absl::Span<const int32_t> history, absl::Span<float> logits) {
    // Choices part at the first token: 'x' ends the next token, 'y' goes on.
    if (history.back() == FakeTokenizer::Byte('x')) {
      logits[FakeTokenizer::kEos] = 1000;
    } else if (history.back() == FakeTokenizer::Byte('y')) {
      logits[FakeTokenizer::Byte('y')] = 1000;
    } else {
      logits[FakeTokenizer::Byte('x')] = logits[FakeTokenizer::Byte('y')] = 1000;
    }
  };
  GenerationRequest request = GreedyRequest("abc", 100);
  request.sampling.temperature = 1;
  request.stopping.ignore_eos = false;
  request.n = 8;
  RequestId id;
  const auto sink = h.Submit(request, &id);
  for (int i = 0; i < 5; ++i) h.scheduler->RunStep();
  const size_t finished = sink->results().size();
  EXPECT_GT(finished, 0u);
  EXPECT_LT(finished, 8u);
  EXPECT_EQ(h.scheduler->GetLoad().running, 8 - static_cast<int32_t>(finished));
  h.scheduler->Cancel(id, absl::CancelledError("gone"));
  h.RunAll();
  EXPECT_EQ(sink->results().size(), finished);
  EXPECT_EQ(sink->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sink->violations(), 0);
}

TEST(SchedulerLifecycleTest, EndsAtTheDeadlineRunningOrWaiting) {
  EngineHarness h(Options(1, 4));
  GenerationRequest request = GreedyRequest("abc", 100);
  request.deadline = h.clock.Now() + absl::Seconds(2);
  const auto running = h.Submit(request);
  const auto waiting = h.Submit(request);
  EXPECT_TRUE(h.scheduler->RunStep());
  h.clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(h.scheduler->RunStep());
  EXPECT_FALSE(running->done());
  h.clock.Advance(absl::Seconds(1));
  EXPECT_TRUE(h.scheduler->RunStep());
  EXPECT_EQ(running->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(running->tokens().size(), 2u);
  EXPECT_EQ(h.metrics.steps, 2);
  EXPECT_EQ(h.scheduler->GetLoad().kv_blocks_used, 0);
}

TEST(SchedulerLifecycleTest, TheQueueTimeoutCountsUntilTheRequestIsScheduled) {
  EngineHarness h(Options(1, 4));
  GenerationRequest request = GreedyRequest("abc", 100);
  request.queue_deadline = h.clock.Now() + absl::Seconds(2);
  const auto running = h.Submit(request);
  const auto waiting = h.Submit(request);
  EXPECT_TRUE(h.scheduler->RunStep());
  h.clock.Advance(absl::Seconds(5));
  h.RunAll();
  EXPECT_TRUE(running->status().ok());
  EXPECT_EQ(waiting->status(),
            absl::DeadlineExceededError("not scheduled within the queue timeout of 2s"));
}

TEST(SchedulerLifecycleTest, TheTimeLimitFinishesChoicesAndKeepsTheirText) {
  EngineHarness h(Options(2, 4));
  SayAfter(&h.model, 3, Ids("hello world, hello world"));
  GenerationRequest request = GreedyRequest("abc", 100);
  request.stopping.time_limit = absl::Seconds(3);
  request.stopping.stop_strings = {"o world!"};
  request.stream_interval = 50;
  request.n = 2;
  const auto sink = h.Submit(request);
  for (int i = 0; i < 6; ++i) h.scheduler->RunStep();
  request.n = 1;
  const auto waiting = h.Submit(request);
  h.clock.Advance(absl::Seconds(3));
  h.RunAll();
  EXPECT_TRUE(sink->status().ok());
  EXPECT_EQ(sink->text(0), "hello ");  // what was held back is released
  EXPECT_EQ(sink->text(1), "hello");
  EXPECT_EQ(sink->results().at(0).reason, FinishReason::kTimeLimit);
  EXPECT_EQ(sink->results().at(0).completion_tokens, 6);
  EXPECT_EQ(sink->results().at(1).reason, FinishReason::kTimeLimit);
  EXPECT_TRUE(waiting->status().ok());
  EXPECT_EQ(waiting->results().at(0).completion_tokens, 0);
  EXPECT_EQ(waiting->results().at(0).timings.queue, absl::Seconds(3));
}

TEST(SchedulerLifecycleTest, TimesEachPartOfARequest) {
  EngineHarness h(Options(1, 4));
  h.model.on_forward = [&h](absl::Span<const SequenceChunk> chunks, FfnMode) {
    h.clock.Advance(absl::Seconds(chunks[0].phase == Phase::kPrefill ? 10 : 1));
    return absl::OkStatus();
  };
  const auto sink = h.Submit(GreedyRequest("abc", 5));
  h.clock.Advance(absl::Seconds(100));
  h.RunAll();
  const RequestTimings t = sink->results().at(0).timings;
  EXPECT_EQ(t.queue, absl::Seconds(100));
  EXPECT_EQ(t.prefill, absl::Seconds(10));
  EXPECT_EQ(t.ttft, absl::Seconds(110));
  EXPECT_EQ(t.decode, absl::Seconds(4));
  EXPECT_EQ(t.total, absl::Seconds(114));
  EXPECT_EQ(h.metrics.queue_times, std::vector<absl::Duration>{absl::Seconds(100)});
  EXPECT_EQ(h.metrics.steps, 5);
  EXPECT_EQ(h.metrics.prefill_tokens, 3);
  EXPECT_EQ(h.metrics.decode_tokens, 4);
  EXPECT_EQ(h.metrics.first_tokens, 1);
  EXPECT_EQ(h.metrics.next_tokens, 4);
  EXPECT_EQ(h.metrics.choices, 1);
  EXPECT_EQ(h.metrics.choice_tokens, 5);
}

TEST(SchedulerLifecycleTest, AFailedStepEndsItsRequestsAndTheEngineGoesOn) {
  EngineHarness h(Options(2, 4));
  int forwards = 0;
  h.model.on_forward = [&forwards](absl::Span<const SequenceChunk>, FfnMode) {
    return ++forwards == 3 ? absl::UnknownError("device lost") : absl::OkStatus();
  };
  const auto a = h.Submit(GreedyRequest("abc", 10));
  const auto b = h.Submit(GreedyRequest("abd", 10));
  const auto waiting = h.Submit(GreedyRequest("abe", 10));
  h.RunAll();
  EXPECT_EQ(a->status(), absl::InternalError("model step failed: device lost"));
  EXPECT_EQ(b->status(), absl::InternalError("model step failed: device lost"));
  EXPECT_EQ(a->tokens().size(), 2u);
  EXPECT_TRUE(waiting->status().ok());
  EXPECT_EQ(waiting->tokens().size(), 10u);
  EXPECT_EQ(h.scheduler->GetLoad().kv_blocks_used, 0);
}

TEST(SchedulerLifecycleTest, DrainRefusesNewWorkAndFinishesTheOld) {
  EngineHarness h;
  const auto sink = h.Submit(GreedyRequest("abc", 5));
  auto ticket = h.scheduler->Reserve(1).value();
  h.scheduler->Drain();
  EXPECT_EQ(h.scheduler->Reserve(1).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(h.scheduler->GetLoad().draining);
  EXPECT_FALSE(h.scheduler->WaitIdle(absl::ZeroDuration()));
  h.RunAll();
  EXPECT_TRUE(sink->status().ok());
  EXPECT_FALSE(h.scheduler->WaitIdle(absl::ZeroDuration()));  // the ticket may still be used
  GenerationRequest request = GreedyRequest("abc", 5);
  const auto late = std::make_shared<RecordingSink>();
  request.sink = late;
  EXPECT_TRUE(h.scheduler->Submit(std::move(ticket), request).ok());
  h.RunAll();
  EXPECT_TRUE(late->status().ok());
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::ZeroDuration()));
}

TEST(SchedulerLifecycleTest, DestructionEndsWhatIsInFlight) {
  EngineHarness h(Options(1, 4));
  const auto running = h.Submit(GreedyRequest("abc", 5));
  const auto waiting = h.Submit(GreedyRequest("abc", 5));
  h.scheduler->RunStep();
  const auto fresh = h.Submit(GreedyRequest("abc", 5));
  h.scheduler.reset();
  for (const auto& sink : {running, waiting, fresh}) {
    EXPECT_EQ(sink->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(sink->violations(), 0);
  }
}

TEST(SchedulerLifecycleTest, LoadCountsSequencesAndBlocks) {
  EngineHarness h(Options(2, 4, 20), 10);
  EXPECT_EQ(h.scheduler->GetLoad().last_step, absl::InfinitePast());
  h.Submit(GreedyRequest(std::string(18, 'a'), 5));
  h.Submit(GreedyRequest("b", 5));
  GenerationRequest request = GreedyRequest("c", 5);
  request.n = 2;
  h.Submit(request);
  EngineLoad load = h.scheduler->GetLoad();
  EXPECT_EQ(load.running, 0);
  EXPECT_EQ(load.waiting, 4);
  h.scheduler->RunStep();
  load = h.scheduler->GetLoad();
  EXPECT_EQ(load.running, 2);
  EXPECT_EQ(load.waiting, 2);
  EXPECT_EQ(load.max_concurrent, 2);
  EXPECT_EQ(load.max_queue, 4);
  EXPECT_EQ(load.kv_blocks_used, 3);
  EXPECT_EQ(load.kv_blocks_total, 10);
  EXPECT_GT(load.last_step, absl::InfinitePast());
  EXPECT_EQ(h.metrics.last_load.running, 2);
  h.RunAll();
  EXPECT_EQ(h.metrics.last_load.running, 0);
  EXPECT_EQ(h.metrics.last_load.waiting, 0);
  EXPECT_EQ(h.metrics.last_load.kv_blocks_used, 0);
  EXPECT_FALSE(h.scheduler->RunStep());
}

}  // namespace
}  // namespace lacuna
