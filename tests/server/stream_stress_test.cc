#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "tests/server/test_server.h"

namespace lacuna {
namespace {

constexpr int kStreams = 64;
constexpr int kRounds = 3;

// What a client saw of one call.
struct Tally {
  std::atomic<int> ok = 0, cancelled = 0, deadline = 0, refused = 0;
};

// One client: random length, and a random end of its own.
void RunClient(TestServer* test, uint32_t seed, Tally* tally) {
  std::mt19937 random(seed);
  const auto one_in = [&random](int n) { return random() % n == 0; };
  // A connection of its own half of the time, to be dropped with the call still running.
  const auto stub =
      v1::GenerationService::NewStub(one_in(2) ? test->TcpChannel() : test->InProcessChannel());
  v1::GenerateRequest request =
      MakeRequest(std::string(1 + random() % 200, 'p'), 1 + random() % 60);
  request.mutable_sampling()->set_n(1 + random() % 3);
  request.mutable_stopping()->set_ignore_eos(one_in(2));
  request.set_priority(static_cast<int32_t>(random() % 5) - 2);
  grpc::ClientContext context;
  if (one_in(8)) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(1 + random() % 50));
  }
  grpc::Status status;
  if (one_in(4)) {
    v1::GenerateResponse response;
    status = stub->Generate(&context, request, &response);
    if (status.ok()) {
      ASSERT_EQ(response.choices_size(), static_cast<int>(request.sampling().n()));
      for (const v1::Choice& choice : response.choices()) EXPECT_TRUE(choice.has_finished());
    }
  } else {
    const auto stream = stub->GenerateStream(&context, request);
    const int cancel_after = one_in(3) ? static_cast<int>(random() % 20) : -1;
    v1::GenerateStreamResponse message;
    uint32_t finished = 0;
    for (int i = 0; i != cancel_after && stream->Read(&message); ++i) {
      if (message.has_finished()) ++finished;
    }
    if (cancel_after >= 0) context.TryCancel();
    while (stream->Read(&message)) {
      if (message.has_finished()) ++finished;
    }
    status = stream->Finish();
    if (status.ok()) {
      EXPECT_EQ(finished, request.sampling().n());
    }
  }
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      ++tally->ok;
      break;
    case grpc::StatusCode::CANCELLED:
      ++tally->cancelled;
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      ++tally->deadline;
      break;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      ++tally->refused;
      break;
    default:
      ADD_FAILURE() << status.error_code() << ": " << status.error_message();
  }
}

TEST(StreamStressTest, EveryRequestEndsOnceWhateverItsClientDoes) {
  ServerOptions options = TestServer::Options();
  options.max_concurrent = 16;
  options.max_queue = 96;
  TestServer test(options);
  Tally tally;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> clients;
    for (int i = 0; i < kStreams; ++i) {
      clients.emplace_back([&test, &tally, seed = round * kStreams + i] {
        RunClient(&test, static_cast<uint32_t>(seed), &tally);
      });
    }
    for (std::thread& client : clients) client.join();
    test.ExpectQuietAndBalanced();
  }
  EXPECT_EQ(tally.ok + tally.cancelled + tally.deadline + tally.refused, kStreams * kRounds);
  EXPECT_GT(tally.ok, 0);
  EXPECT_GT(tally.cancelled, 0);
  // A call whose deadline passes before it reaches the server is never seen there.
  const double started = test.Metric("lacuna_requests_started_total");
  EXPECT_LE(started, kStreams * kRounds);
  EXPECT_GE(started, kStreams * kRounds - tally.deadline - tally.cancelled);
  EXPECT_EQ(started, test.Metric("lacuna_requests_total"));
}

}  // namespace
}  // namespace lacuna
