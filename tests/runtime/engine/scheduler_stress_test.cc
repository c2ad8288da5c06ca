// The scheduler with its own thread and many clients. Meant to run under ThreadSanitizer as well.

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/mutex.h"
#include "runtime/engine/scheduler.h"
#include "tests/runtime/engine/engine_harness.h"

namespace lacuna {
namespace {

// Lets the engine thread into Forward one step at a time.
class Gate {
 public:
  void Pass() {
    MutexLock lock(&mu_);
    ++arrived_;
    changed_.NotifyAll();
    while (open_ == 0) changed_.Wait(&mu_);
    --open_;
  }
  // Waits until the engine is at the gate for the `count`th time.
  void WaitArrived(int count) {
    MutexLock lock(&mu_);
    while (arrived_ < count) changed_.Wait(&mu_);
  }
  void Open(int steps) {
    MutexLock lock(&mu_);
    open_ += steps;
    changed_.NotifyAll();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int arrived_ ABSL_GUARDED_BY(mu_) = 0;
  int open_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST(SchedulerThreadTest, ServesRequestsOnItsOwnThread) {
  EngineHarness h;
  h.scheduler->Start();
  const auto sink = h.Submit(GreedyRequest("abc", 20));
  sink->WaitDone();
  EXPECT_TRUE(sink->status().ok());
  EXPECT_EQ(sink->tokens().size(), 20u);
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::InfiniteDuration()));
  // It went to sleep and wakes up again.
  const auto again = h.Submit(GreedyRequest("abc", 20));
  again->WaitDone();
  EXPECT_EQ(again->tokens(), sink->tokens());
}

TEST(SchedulerThreadTest, ReturnsAtOnceWhileAStepRuns) {
  SchedulerOptions options;
  options.max_concurrent = 1;
  options.max_queue = 1;
  EngineHarness h(options);
  Gate gate;
  h.model.on_forward = [&gate](absl::Span<const SequenceChunk>, FfnMode) {
    gate.Pass();
    return absl::OkStatus();
  };
  h.scheduler->Start();
  RequestId running_id, waiting_id;
  const auto running = h.Submit(GreedyRequest("abc", 100), &running_id);
  gate.WaitArrived(1);
  const auto waiting = h.Submit(GreedyRequest("abc", 100), &waiting_id);
  EXPECT_EQ(h.scheduler->Reserve(1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(h.scheduler->GetLoad().waiting, 2);  // the first step has not ended
  EXPECT_FALSE(h.scheduler->WaitIdle(absl::Milliseconds(1)));
  h.scheduler->Cancel(waiting_id, absl::CancelledError("gone"));
  EXPECT_FALSE(waiting->done());
  gate.Open(1);
  gate.WaitArrived(2);  // so the first step has ended, and the second one has begun
  gate.Open(1);
  waiting->WaitDone();
  EXPECT_EQ(waiting->status().code(), absl::StatusCode::kCancelled);
  h.scheduler->Cancel(running_id, absl::CancelledError("gone"));
  gate.Open(2);
  running->WaitDone();
  EXPECT_LE(running->tokens().size(), 4u);
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::InfiniteDuration()));
}

TEST(SchedulerThreadTest, DestructionDuringWorkEndsEverything) {
  for (int round = 0; round < 20; ++round) {
    EngineHarness h;
    h.scheduler->Start();
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 8; ++i) sinks.push_back(h.Submit(GreedyRequest("abc", 400)));
    h.scheduler.reset();
    for (const auto& sink : sinks) {
      EXPECT_TRUE(sink->done());
      EXPECT_EQ(sink->violations(), 0);
    }
  }
}

// A client that cannot keep up cancels its request from within OnDelta.
TEST(SchedulerThreadTest, ASinkMayCallTheScheduler) {
  struct Sink : RecordingSink {
    void OnDelta(TokenDelta delta) override {
      RecordingSink::OnDelta(std::move(delta));
      if (deltas() == 3) scheduler->Cancel(id, absl::ResourceExhaustedError("slow consumer"));
    }
    Scheduler* scheduler = nullptr;
    std::atomic<RequestId> id{1};  // the first one
  };
  EngineHarness h;
  auto sink = std::make_shared<Sink>();
  sink->scheduler = h.scheduler.get();
  GenerationRequest request = GreedyRequest("abc", 400);
  request.sink = sink;
  const absl::StatusOr<RequestId> id = h.TrySubmit(request);
  ASSERT_TRUE(id.ok());
  sink->id = *id;
  h.scheduler->Start();
  sink->WaitDone();
  EXPECT_EQ(sink->status(), absl::ResourceExhaustedError("slow consumer"));
  EXPECT_EQ(sink->deltas(), 3);
}

TEST(SchedulerThreadTest, ManyClientsSubmitCancelAndWatch) {
  SchedulerOptions options;
  options.max_concurrent = 6;
  options.max_queue = 6;
  options.max_step_tokens = 24;
  ThreadPool pool(2);
  options.pool = &pool;
  EngineHarness h(options, 12, 100, Clock::Real());
  h.scheduler->Start();
  constexpr int kClients = 8;
  std::atomic<int> submitted = 0, ended = 0, refused = 0;
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      std::mt19937 random(c);
      for (int i = 0; i < 60; ++i) {
        GenerationRequest request = GreedyRequest(std::string(1 + random() % 40, 'a' + c % 3),
                                                  1 + static_cast<int32_t>(random() % 50));
        request.n = 1 + static_cast<int32_t>(random() % 3);
        request.priority = static_cast<int32_t>(random() % 3);
        if (random() % 8 == 0) request.deadline = Clock::Real()->Now() + absl::Milliseconds(1);
        auto sink = std::make_shared<RecordingSink>();
        request.sink = sink;
        const absl::StatusOr<RequestId> id = h.TrySubmit(std::move(request));
        if (!id.ok()) {
          ++refused;
          continue;
        }
        ++submitted;
        if (random() % 3 == 0) h.scheduler->Cancel(*id, absl::CancelledError("random"));
        if (random() % 2 == 0) h.scheduler->GetLoad();
        sink->WaitDone();
        ended += sink->done() && sink->violations() == 0;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(ended, submitted);
  EXPECT_GT(submitted, 50);
  h.scheduler->Drain();
  EXPECT_TRUE(h.scheduler->WaitIdle(absl::InfiniteDuration()));
  const EngineLoad load = h.scheduler->GetLoad();
  EXPECT_EQ(load.running, 0);
  EXPECT_EQ(load.waiting, 0);
  EXPECT_EQ(load.kv_blocks_used, 0);
}

}  // namespace
}  // namespace lacuna
