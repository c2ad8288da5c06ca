// How generations end early or are refused: cancelling, deadlines, full queues, slow readers.

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <thread>

#include "absl/time/clock.h"
#include "proto/status.h"
#include "tests/server/test_server.h"

namespace lacuna {
namespace {

using testing::HasSubstr;
using Stream = std::unique_ptr<grpc::ClientReader<v1::GenerateStreamResponse>>;

// Reads up to and including the first delta.
void ReadFirstDelta(const Stream& stream) {
  v1::GenerateStreamResponse message;
  while (stream->Read(&message) && !message.has_delta()) {
  }
  ASSERT_TRUE(message.has_delta());
}

TEST(GenerateTest, CancelFreesTheSlotWithinOneStep) {
  TestServer test;
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  const Stream stream = stub->GenerateStream(&context, MakeRequest("hello", 500));
  test.gate().WaitHeld();
  test.gate().Allow(3);
  ReadFirstDelta(stream);
  test.gate().WaitHeld();
  context.TryCancel();
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(Eventually([&] { return test.Metric("lacuna_cancelled_total") == 1; }));
  EXPECT_EQ(test.Metric("lacuna_cancelled_total", {"where=\"decode\""}), 1);
  Scheduler& scheduler = test.server().models().Find("")->get()->scheduler();
  EXPECT_EQ(scheduler.GetLoad().running, 1);  // the step that is held still has it
  // The second for a worker that has submitted the request and is late to pass the cancellation on.
  test.gate().Allow(2);
  EXPECT_TRUE(scheduler.WaitIdle(absl::Seconds(10)));
  EXPECT_EQ(scheduler.GetLoad().running, 0);
  EXPECT_EQ(scheduler.GetLoad().kv_blocks_used, 0);
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, CancelInTheQueueIsCountedThere) {
  ServerOptions options = TestServer::Options();
  options.max_concurrent = 1;
  TestServer test(options);
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext first, second;
  const Stream running = stub->GenerateStream(&first, MakeRequest("a", 5));
  test.gate().WaitHeld();
  const Stream waiting = stub->GenerateStream(&second, MakeRequest("b", 5));
  v1::GenerateStreamResponse message;
  ASSERT_TRUE(waiting->Read(&message));  // started: it is in the queue
  second.TryCancel();
  EXPECT_EQ(waiting->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(
      Eventually([&] { return test.Metric("lacuna_cancelled_total", {"where=\"queue\""}) == 1; }));
  test.gate().Open();
  while (running->Read(&message)) {
  }
  EXPECT_TRUE(running->Finish().ok());
  test.ExpectQuietAndBalanced();
}

// Bytes allocated by the process, or 0 where a sanitizer has an allocator of its own. Of all
// threads, as none has an arena of its own.
const bool kOneArena = mallopt(M_ARENA_MAX, 1) == 1;
size_t AllocatedBytes() { return kOneArena ? mallinfo2().uordblks : 0; }

TEST(GenerateTest, FieldsThatNoMessageHasTakeNoMemoryWhileACallRuns) {
  if (AllocatedBytes() == 0) GTEST_SKIP() << "this allocator does not count";
  TestServer test;
  v1::GenerateRequest request = MakeRequest("a", 500);
  google::protobuf::UnknownFieldSet* const unknown =
      request.GetReflection()->MutableUnknownFields(&request);
  for (int i = 0; i < 500'000; ++i) unknown->AddGroup(15);  // 2 bytes each, and here some 50
  test.gate().Close();
  const auto stub = test.NewStub();
  const size_t before = AllocatedBytes();
  grpc::ClientContext context, unary_context;
  const Stream stream = stub->GenerateStream(&context, request);
  std::thread unary([&] {
    v1::GenerateResponse response;
    EXPECT_EQ(stub->Generate(&unary_context, request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  EXPECT_TRUE(Eventually([&] {
    const EngineLoad load = test.server().models().Find("")->get()->scheduler().GetLoad();
    return load.running + load.waiting == 2;
  }));
  EXPECT_TRUE(Eventually([&] { return AllocatedBytes() - before < 10u << 20; }));  // of 32
  context.TryCancel();
  unary_context.TryCancel();
  unary.join();
  test.gate().Open();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, DeadlineEndsTheStream) {
  TestServer test;
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  const Stream stream = stub->GenerateStream(&context, MakeRequest("hello", 500));
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  test.gate().Open();
  EXPECT_TRUE(Eventually([&] {
    return test.Metric("lacuna_requests_total", {"DEADLINE_EXCEEDED", "GenerateStream"}) == 1;
  }));
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, QueueTimeoutIsADeadline) {
  ServerOptions options = TestServer::Options();
  options.max_concurrent = 1;
  TestServer test(options);
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext first;
  const Stream running = stub->GenerateStream(&first, MakeRequest("a", 5));
  test.gate().WaitHeld();
  v1::GenerateRequest request = MakeRequest("b", 5);
  request.set_queue_timeout_ms(1);
  grpc::ClientContext second;
  const Stream waiting = stub->GenerateStream(&second, request);
  v1::GenerateStreamResponse message;
  ASSERT_TRUE(waiting->Read(&message));
  const absl::Time started = absl::Now();
  ASSERT_TRUE(Eventually([&] { return absl::Now() - started > absl::Milliseconds(5); }));
  test.gate().Open();
  while (waiting->Read(&message)) {
  }
  EXPECT_EQ(waiting->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST(GenerateTest, AFullQueueAnswersAtOnceWithRetryInfo) {
  ServerOptions options = TestServer::Options();
  options.max_concurrent = 1;
  options.max_queue = 0;
  TestServer test(options);
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  const Stream stream = stub->GenerateStream(&context, MakeRequest("a", 2));
  test.gate().WaitHeld();
  const absl::Status refused = Generate(&test, MakeRequest("b", 2));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(RetryAfter(refused).has_value());
  EXPECT_EQ(test.Metric("lacuna_requests_rejected_total", {"queue_full"}), 1);
  test.gate().Open();
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, WhatCanNeverFitIsInvalidWithoutRetryInfo) {
  ServerOptions options = TestServer::Options();
  options.max_concurrent = 2;
  options.max_queue = 1;
  TestServer test(options, [](FakeModel* model) {
    model->mutable_config().max_context = 1 << 20;  // more than the KV cache has room for
  });
  const int32_t room = test.server().models().Find("")->get()->kv_cache().num_blocks() * 16;
  ASSERT_LT(room, 1 << 20);
  const absl::Status long_text = Generate(&test, MakeRequest(std::string(room, 'a'), 1));
  EXPECT_EQ(FieldViolations(long_text)[0].field, "prompt");  // with BOS, one token too many
  v1::GenerateRequest request = MakeRequest("a", 1);
  request.mutable_sampling()->set_n(4);
  const absl::Status many = Generate(&test, request);
  EXPECT_EQ(FieldViolations(many)[0].field, "sampling.n");
  EXPECT_FALSE(RetryAfter(many).has_value());
  EXPECT_EQ(test.Metric("lacuna_requests_rejected_total", {"invalid_argument"}), 2);
}

TEST(GenerateTest, ASlowConsumerLosesItsStreamAndNobodyElseNotices) {
  ServerOptions options = TestServer::Options();
  options.stream_buffer_kb = 4;
  TestServer test(options);
  v1::GenerateRequest request = MakeRequest("hello", 900);
  request.mutable_output()->set_logprobs(20);
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  const Stream stream = stub->GenerateStream(&context, request);  // and not read
  ASSERT_TRUE(Eventually([&] { return test.Metric("lacuna_slow_consumer_total") == 1; }));
  EXPECT_TRUE(Generate(&test, MakeRequest("other", 5)).ok());
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("4096 bytes"));
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, AFinishedStreamThatNobodyReadsIsCutOff) {
  ServerOptions options = TestServer::Options();
  options.write_stall_timeout = absl::Milliseconds(200);
  TestServer test(options);
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  // In process, a message is written when it is read; all fits the buffer of the server.
  const Stream stream = stub->GenerateStream(&context, MakeRequest("hello", 20));
  EXPECT_TRUE(Eventually([&] { return test.Metric("lacuna_generation_tokens_total") == 20; }));
  EXPECT_TRUE(Eventually([&] {
    return test.Metric("lacuna_requests_total", {"RESOURCE_EXHAUSTED", "GenerateStream"}) == 1;
  }));
  EXPECT_EQ(test.Metric("lacuna_slow_consumer_total"), 1);
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
  test.ExpectQuietAndBalanced();
}

}  // namespace
}  // namespace lacuna
