#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "proto/status.h"
#include "tests/fakes/fake_tokenizer.h"
#include "tests/server/test_server.h"

namespace lacuna {
namespace {

namespace health = grpc::health::v1;

health::HealthCheckResponse::ServingStatus Check(const std::shared_ptr<grpc::Channel>& channel,
                                                 const std::string& service) {
  grpc::ClientContext context;
  health::HealthCheckRequest request;
  request.set_service(service);
  health::HealthCheckResponse response;
  EXPECT_TRUE(health::Health::NewStub(channel)->Check(&context, request, &response).ok());
  return response.status();
}

const std::string kService = "lacuna.v1.GenerationService";

TEST(HealthTest, AReadyServerServesUnderAllNames) {
  TestServer test;
  for (const std::string& service :
       {std::string(), kService, std::string("liveness"), std::string("readiness")}) {
    EXPECT_EQ(Check(test.TcpChannel(), service), health::HealthCheckResponse::SERVING) << service;
  }
  grpc::ClientContext context;
  health::HealthCheckRequest request;
  request.set_service("nope");
  health::HealthCheckResponse response;
  EXPECT_EQ(
      health::Health::NewStub(test.TcpChannel())->Check(&context, request, &response).error_code(),
      grpc::StatusCode::NOT_FOUND);
}

TEST(HealthTest, WatchSeesTheDrain) {
  TestServer test;
  grpc::ClientContext context;
  health::HealthCheckRequest request;
  request.set_service("readiness");
  const auto watch = health::Health::NewStub(test.TcpChannel())->Watch(&context, request);
  health::HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::SERVING);
  std::thread drain([&] { test.server().Drain([] { return false; }); });
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), health::HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
  drain.join();
}

TEST(HealthTest, LivenessFailsWhileAnEngineIsStuckAndOnlyThen) {
  ServerOptions options = TestServer::Options();
  options.engine_stall_timeout = absl::Milliseconds(100);
  TestServer test(options);
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, MakeRequest("a", 2));
  const auto channel = test.TcpChannel();
  EXPECT_TRUE(Eventually(
      [&] { return Check(channel, "liveness") == health::HealthCheckResponse::NOT_SERVING; }));
  EXPECT_EQ(Check(channel, "readiness"), health::HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(test.Metric("lacuna_engine_stalled"), 1);
  test.gate().Open();
  EXPECT_TRUE(Eventually(
      [&] { return Check(channel, "liveness") == health::HealthCheckResponse::SERVING; }));
  EXPECT_TRUE(Eventually(
      [&] { return Check(channel, "readiness") == health::HealthCheckResponse::SERVING; }));
  EXPECT_EQ(test.Metric("lacuna_engine_stalled"), 0);
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
}

TEST(ConnectionAgeTest, AStreamOutlivesItsConnectionAndTheNextCallGetsANewOne) {
  ServerOptions options = TestServer::Options();
  options.max_connection_age = absl::Milliseconds(100);
  TestServer test(options);
  test.gate().Close();
  const auto channel = test.TcpChannel();
  const auto stub = v1::GenerationService::NewStub(channel);
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, MakeRequest("a", 3));
  v1::GenerateStreamResponse message;
  ASSERT_TRUE(stream->Read(&message));  // started
  // The server has said goodbye to new calls on this connection.
  EXPECT_TRUE(Eventually([&] { return channel->GetState(false) == GRPC_CHANNEL_IDLE; }));
  test.gate().Open();
  while (stream->Read(&message)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(message.finished().usage().completion_tokens(), 3u);
  EXPECT_EQ(Check(channel, "readiness"), health::HealthCheckResponse::SERVING);
}

TEST(LoadingTest, HealthAnswersAndGenerateSaysUnavailableWhileAModelLoads) {
  absl::Notification load;
  Server server(
      TestServer::Options(),
      [&load](const LoadOptions&) -> absl::StatusOr<LoadedModel> {
        load.WaitForNotification();
        return absl::DataLossError("model.safetensors is truncated");
      },
      [] {});
  ASSERT_TRUE(server.Start().ok());
  std::thread loading([&] {
    const absl::Status status = server.LoadModels();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(status.message(),
              "model 'fake' (/nowhere) cannot be loaded: model.safetensors is truncated");
  });
  const auto channel = server.rpc().grpc_server()->InProcessChannel({});
  EXPECT_EQ(Check(channel, "liveness"), health::HealthCheckResponse::SERVING);
  EXPECT_EQ(Check(channel, "readiness"), health::HealthCheckResponse::NOT_SERVING);
  const auto stub = v1::GenerationService::NewStub(channel);
  grpc::ClientContext generate, list;
  v1::GenerateResponse response;
  const absl::Status refused =
      FromGrpcStatus(stub->Generate(&generate, MakeRequest("a", 1), &response));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryAfter(refused).has_value());
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub->ListModels(&list, {}, &models).ok());
  EXPECT_EQ(models.models(0).state(), v1::Model::LOADING);
  load.Notify();
  loading.join();
}

TEST(DrainTest, RunningRequestsFinishAndNewOnesAreRefused) {
  TestServer test;
  test.gate().Close();
  // Over TCP: the in-process transport drops its streams when the server shuts down.
  const auto stub = v1::GenerationService::NewStub(test.TcpChannel());
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, MakeRequest("a", 50));
  test.gate().WaitHeld();
  std::atomic<int> cut = -1;
  std::thread drain([&] { cut = test.server().Drain([] { return false; }); });
  ASSERT_TRUE(Eventually(
      [&] { return test.server().models().Find("")->get()->scheduler().GetLoad().draining; }));
  EXPECT_TRUE(Eventually([&] { return test.Metric("lacuna_draining") == 1; }));
  grpc::ClientContext refused_context;
  v1::GenerateResponse response;
  const absl::Status refused =
      FromGrpcStatus(stub->Generate(&refused_context, MakeRequest("b", 1), &response));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryAfter(refused).has_value());
  EXPECT_EQ(test.Metric("lacuna_requests_rejected_total", {"\"draining\""}), 1);
  EXPECT_EQ(cut, -1);  // still waiting
  test.gate().Open();
  v1::GenerateStreamResponse message;
  bool finished = false;
  while (stream->Read(&message)) finished |= message.has_finished();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_code() << " " << status.error_message();
  EXPECT_TRUE(finished);
  drain.join();
  EXPECT_EQ(cut, 0);
  test.ExpectQuietAndBalanced();
}

TEST(DrainTest, RunningRequestsFinishThoughAnotherModelLoads) {
  absl::Notification load;
  ServerOptions options = TestServer::Options();
  options.models.push_back({"slow", "/slow"});
  Gate gate;
  Server server(
      options,
      [&](const LoadOptions& what) -> absl::StatusOr<LoadedModel> {
        if (what.path == "/slow") {
          load.WaitForNotification();
          return absl::DataLossError("model.safetensors is truncated");
        }
        auto model = std::make_unique<FakeModel>();
        model->on_forward = [&](absl::Span<const SequenceChunk>, FfnMode) {
          gate.Pass();
          return absl::OkStatus();
        };
        LoadedModel loaded;
        loaded.model = std::move(model);
        loaded.tokenizer = std::make_unique<FakeTokenizer>();
        return loaded;
      },
      [] {});
  ASSERT_TRUE(server.Start().ok());
  std::thread loading([&] { EXPECT_FALSE(server.LoadModels().ok()); });
  ASSERT_TRUE(Eventually([&] { return server.models().Find("fake").ok(); }));
  gate.Close();
  const auto stub = v1::GenerationService::NewStub(
      grpc::CreateChannel(server.grpc_address(), grpc::InsecureChannelCredentials()));
  v1::GenerateRequest request = MakeRequest("a", 5);
  request.set_model("fake");
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, request);
  gate.WaitHeld();
  std::atomic<int> cut = -1;
  std::thread drain([&] { cut = server.Drain([] { return false; }); });
  gate.Open();
  v1::GenerateStreamResponse message;
  while (stream->Read(&message)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  drain.join();
  EXPECT_EQ(cut, 0);
  load.Notify();
  loading.join();
}

TEST(DrainTest, OutputThatIsStillBeingReadIsNotCutOff) {
  ServerOptions options = TestServer::Options();
  options.stream_buffer_kb = 16 * 1024;
  TestServer test(options);
  const auto stub = v1::GenerationService::NewStub(test.TcpChannel());
  grpc::ClientContext context;
  v1::GenerateRequest request = MakeRequest("a", 1000);
  request.mutable_output()->set_logprobs(20);  // more than a connection takes in by itself
  request.mutable_sampling()->set_n(16);
  const auto stream = stub->GenerateStream(&context, request);
  ASSERT_TRUE(Eventually([&] { return test.Metric("lacuna_generation_tokens_total") == 16000; }));
  std::atomic<int> cut = -1, asked = 0;
  std::thread drain([&] {
    cut = test.server().Drain([&] {
      ++asked;
      return false;
    });
  });
  ASSERT_TRUE(Eventually([&] { return test.Metric("lacuna_draining") == 1; }));
  // The drain asks before each of its waits: it goes on although nothing is left to compute.
  const int before = asked;
  EXPECT_TRUE(Eventually([&] { return asked >= before + 3; }));
  EXPECT_EQ(cut, -1);
  v1::GenerateStreamResponse message;
  int finished = 0;
  while (stream->Read(&message)) finished += message.has_finished() ? 1 : 0;
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_code() << " " << status.error_message();
  EXPECT_EQ(finished, 16);
  drain.join();
  EXPECT_EQ(cut, 0);
  test.ExpectQuietAndBalanced();
}

TEST(DrainTest, ASecondSignalCutsTheWaitAndStreamsEndUnavailable) {
  TestServer test;
  test.gate().Close();
  const auto stub = v1::GenerationService::NewStub(test.TcpChannel());
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, MakeRequest("a", 50));
  test.gate().WaitHeld();
  std::thread reader([&] {
    v1::GenerateStreamResponse message;
    while (stream->Read(&message)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  });
  EXPECT_EQ(test.server().Drain([] { return true; }), 1);
  reader.join();
  test.gate().Open();
  test.ExpectQuietAndBalanced();
  EXPECT_EQ(test.Metric("lacuna_requests_total", {"UNAVAILABLE", "GenerateStream"}), 1);
}

TEST(DrainTest, RequestsAreAcceptedUntilTheLeadIsOver) {
  ServerOptions options = TestServer::Options();
  options.drain_lead = absl::Seconds(30);
  TestServer test(options);
  std::atomic<bool> hurry = false;
  std::thread drain([&] { test.server().Drain([&] { return hurry.load(); }); });
  const auto channel = test.TcpChannel();
  EXPECT_TRUE(Eventually(
      [&] { return Check(channel, "readiness") == health::HealthCheckResponse::NOT_SERVING; }));
  grpc::ClientContext context;
  v1::GenerateResponse response;
  EXPECT_TRUE(test.NewStub()->Generate(&context, MakeRequest("a", 1), &response).ok());
  EXPECT_EQ(test.Metric("lacuna_draining"), 0);
  hurry = true;
  drain.join();
  EXPECT_EQ(test.Metric("lacuna_draining"), 1);
}

TEST(StartTest, APortThatIsTakenIsRefused) {
  TestServer test;
  ServerOptions options = TestServer::Options();
  options.listen = test.server().grpc_address();
  Server second(
      options, [](const LoadOptions&) { return absl::UnknownError(""); }, [] {});
  EXPECT_EQ(second.Start().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lacuna
