#include "client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "client/describe_error.h"
#include "proto/status.h"
#include "tests/client/fake_server.h"

namespace lacuna {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Client> ConnectTo(const FakeServer& server) {
  return Client::Connect({.address = server.address(), .timeout = absl::Seconds(60)}).value();
}

v1::GenerateRequest Prompt(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

FakeServer::Generator Always(FakeServer::Reply reply) {
  return [reply](const v1::GenerateRequest&) { return reply; };
}

TEST(ClientTest, StreamDeliversEventsInOrder) {
  FakeServer server(Always(FakeServer::Says({"one", " two", " three"})));
  std::vector<std::string> texts;
  const absl::Status status = ConnectTo(server)->GenerateStream(
      Prompt("count"), [&](const v1::GenerateStreamResponse& event) {
        if (event.has_delta()) texts.push_back(event.delta().text());
        return true;
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(texts, ElementsAre("one", " two", " three"));
  EXPECT_EQ(server.requests().at(0).text(), "count");
}

TEST(ClientTest, UnaryReturnsTheWholeText) {
  FakeServer server(Always(FakeServer::Says({"one", " two"})));
  const auto response = ConnectTo(server)->Generate(Prompt("count"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->choices(0).text(), "one two");
  EXPECT_EQ(response->started().seed(), 7);
}

TEST(ClientTest, CallbackThatReturnsFalseCancelsOnTheServer) {
  FakeServer::Reply reply = FakeServer::Says({"one"});
  reply.events.pop_back();
  reply.hang = true;
  FakeServer server(Always(reply));
  const absl::Status status = ConnectTo(server)->GenerateStream(
      Prompt("x"), [](const v1::GenerateStreamResponse& event) { return !event.has_delta(); });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  server.WaitForCancellations(1);
}

TEST(ClientTest, CancellationEndsAStreamThatIsSilent) {
  FakeServer server(Always({.hang = true}));
  Cancellation cancellation;
  std::thread other([&] {
    server.WaitForRequests(1);
    cancellation.Cancel();
  });
  const auto client = ConnectTo(server);
  const auto any = [](const v1::GenerateStreamResponse&) { return true; };
  EXPECT_TRUE(absl::IsCancelled(client->GenerateStream(Prompt("x"), any, &cancellation)));
  other.join();
  server.WaitForCancellations(1);
  // It stays cancelled: the next call does not reach the server.
  EXPECT_TRUE(absl::IsCancelled(client->GenerateStream(Prompt("y"), any, &cancellation)));
  EXPECT_EQ(server.requests().size(), 1);
}

TEST(ClientTest, TimeoutEndsAStreamThatIsSilent) {
  FakeServer server(Always({.hang = true}));
  const auto client =
      Client::Connect({.address = server.address(), .timeout = absl::Milliseconds(50)}).value();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      client->GenerateStream(Prompt("x"), [](const v1::GenerateStreamResponse&) { return true; })));
}

TEST(ClientTest, StreamThatEndsWithoutFinishedIsDataLoss) {
  FakeServer::Reply reply = FakeServer::Says({"one"});
  reply.events.pop_back();
  FakeServer server(Always(reply));
  EXPECT_TRUE(absl::IsDataLoss(ConnectTo(server)->GenerateStream(
      Prompt("x"), [](const v1::GenerateStreamResponse&) { return true; })));
}

TEST(ClientTest, EveryChoiceMustFinish) {
  FakeServer server(Always(FakeServer::Says({"one"})));
  v1::GenerateRequest request = Prompt("x");
  request.mutable_sampling()->set_n(2);
  EXPECT_TRUE(absl::IsDataLoss(ConnectTo(server)->GenerateStream(
      request, [](const v1::GenerateStreamResponse&) { return true; })));
}

TEST(ClientTest, FieldViolationsReachPeople) {
  FakeServer server(
      Always({.status = InvalidFields({{"sampling.temperature", "3 is outside [0, 2]"},
                                       {"sampling.top_p", "0 is outside (0, 1]"}})}));
  const auto response = ConnectTo(server)->Generate(Prompt("x"));
  EXPECT_TRUE(absl::IsInvalidArgument(response.status()));
  EXPECT_EQ(DescribeError(response.status()),
            "INVALID_ARGUMENT: sampling.temperature: 3 is outside [0, 2]; sampling.top_p: 0 is "
            "outside (0, 1]");
}

TEST(ClientTest, RetryDelayReachesPeople) {
  FakeServer server(Always({.status = WithRetryAfter(absl::ResourceExhaustedError("queue is full"),
                                                     absl::Milliseconds(1500))}));
  const absl::Status status = ConnectTo(server)->GenerateStream(
      Prompt("x"), [](const v1::GenerateStreamResponse&) { return true; });
  EXPECT_EQ(DescribeError(status), "RESOURCE_EXHAUSTED: queue is full\n  retry after 1.5s");
}

TEST(ClientTest, UnavailableIsRetriedForReadOnlyCalls) {
  FakeServer server(Always({}));
  server.FailNext(2, absl::UnavailableError("loading"));
  const auto models = ConnectTo(server)->ListModels();
  ASSERT_TRUE(models.ok()) << models.status();
  EXPECT_EQ(models->models(0).name(), "tiny");
  EXPECT_EQ(server.model_calls(), 3);
}

TEST(ClientTest, OtherErrorsAreNotRetried) {
  FakeServer server(Always({}));
  server.FailNext(2, absl::InternalError("broken"));
  EXPECT_EQ(ConnectTo(server)->ListModels().status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(server.model_calls(), 1);
}

TEST(ClientTest, GenerateIsNotRetried) {
  FakeServer server(Always({.status = absl::UnavailableError("draining")}));
  EXPECT_TRUE(absl::IsUnavailable(ConnectTo(server)->Generate(Prompt("x")).status()));
  EXPECT_EQ(server.requests().size(), 1);
}

std::unique_ptr<Client> ConnectToFleet(const FakeServer& a, const FakeServer& b) {
  return Client::Connect({.address = absl::StrCat("ipv4:", a.address(), ",", b.address())}).value();
}

TEST(FleetTest, WhatOneServerRefusesAnotherAnswers) {
  FakeServer refusing(Always({.status = absl::UnavailableError("draining")}));
  FakeServer serving(Always(FakeServer::Says({"a"})));
  const auto client = ConnectToFleet(refusing, serving);
  while (refusing.requests().empty()) {
    ASSERT_TRUE(client->Generate(Prompt("x")).ok());
    const absl::Status status =
        client->GenerateStream(Prompt("x"), [](const v1::GenerateStreamResponse&) { return true; });
    ASSERT_TRUE(status.ok()) << status;
  }
}

TEST(FleetTest, AStreamThatHasBegunIsNotRepeated) {
  FakeServer::Reply broken = FakeServer::Says({"a"});
  broken.events.pop_back();
  broken.status = absl::UnavailableError("cut off");
  FakeServer one(Always(broken)), other(Always(broken));
  int events = 0;
  const absl::Status status =
      ConnectToFleet(one, other)
          ->GenerateStream(Prompt("x"),
                           [&events](const v1::GenerateStreamResponse&) { return ++events > 0; });
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(events, 2);
  EXPECT_EQ(one.requests().size() + other.requests().size(), 1u);
}

TEST(FleetTest, AServerThatIsNotReadyGetsNothing) {
  FakeServer loading(Always(FakeServer::Says({"a"}))), ready(Always(FakeServer::Says({"b"})));
  loading.SetServing(false);
  const auto client = ConnectToFleet(loading, ready);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(client->Generate(Prompt("x")).ok());
  EXPECT_EQ(loading.requests().size(), 0u);
  EXPECT_EQ(ready.requests().size(), 20u);
}

TEST(ClientTest, NobodyListeningIsUnavailable) {
  std::string address;
  { address = FakeServer(Always({})).address(); }
  const auto client = Client::Connect({.address = address}).value();
  EXPECT_TRUE(absl::IsUnavailable(client->Generate(Prompt("x")).status()));
}

TEST(ClientTest, ReconnectsToARestartedServer) {
  auto server = std::make_unique<FakeServer>(Always(FakeServer::Says({"a"})));
  const int port = server->port();
  const auto client = ConnectTo(*server);
  ASSERT_TRUE(client->ListModels().ok());
  server.reset();
  server = std::make_unique<FakeServer>(Always(FakeServer::Says({"b"})), port);
  ASSERT_EQ(server->port(), port);
  const auto models = client->ListModels();
  EXPECT_TRUE(models.ok()) << models.status();
}

TEST(ClientTest, TokenIsSentAsBearer) {
  FakeServer server(Always({}));
  const auto client = Client::Connect({.address = server.address(), .token = "s3cret"}).value();
  ASSERT_TRUE(client->ListModels().ok());
  EXPECT_EQ(server.last_authorization(), "Bearer s3cret");
}

TEST(ClientTest, TokenizeDetokenizeModelLoad) {
  FakeServer server(Always({}));
  const auto client = ConnectTo(server);
  v1::TokenizeRequest tokenize;
  tokenize.set_text("ab");
  EXPECT_THAT(client->Tokenize(tokenize)->token_ids(), ElementsAre(1, 'a', 'b'));
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids('c');
  EXPECT_EQ(client->Detokenize(detokenize)->text(), "c");
  EXPECT_EQ(client->GetModel("")->context_length(), 64);
  EXPECT_TRUE(absl::IsNotFound(client->GetModel("other").status()));
  EXPECT_EQ(client->GetLoad("")->models(0).model(), "tiny");
}

TEST(ClientTest, HealthFollowsTheServer) {
  FakeServer server(Always({}));
  const auto client = ConnectTo(server);
  EXPECT_EQ(client->CheckHealth("").value(), ServingStatus::kServing);
  EXPECT_TRUE(absl::IsNotFound(client->CheckHealth("no such service").status()));
  std::vector<ServingStatus> seen;
  const absl::Status status = client->WatchHealth("", [&](ServingStatus now) {
    seen.push_back(now);
    if (seen.size() == 1) server.SetServing(false);
    return seen.size() < 2;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(seen, ElementsAre(ServingStatus::kServing, ServingStatus::kNotServing));
  EXPECT_EQ(client->CheckHealth("").value(), ServingStatus::kNotServing);
}

TEST(ClientTest, BadOptionsAreRefusedByConnect) {
  const auto message = [](const ClientOptions& options) {
    return std::string(Client::Connect(options).status().message());
  };
  EXPECT_THAT(message({.address = ""}), HasSubstr("address"));
  EXPECT_THAT(message({.tls_ca_file = "ca.pem"}), HasSubstr("TLS is off"));
  EXPECT_THAT(message({.tls = true, .tls_cert_file = "c.pem"}), HasSubstr("both"));
  for (const char* path : {"/no/such/file", "/"}) {
    EXPECT_EQ(message({.tls = true, .tls_ca_file = path}), absl::StrCat("cannot read ", path));
  }
}

TEST(ClientTest, TokenThatNoHeaderCanCarryIsRefusedAndNotShown) {
  const absl::Status status = Client::Connect({.token = "sec\nret"}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("ret")));
}

TEST(DescribeErrorTest, ServerTextCannotDriveTheTerminal) {
  EXPECT_EQ(DescribeError(absl::InternalError("a\033[2Jb\rc\td")), "INTERNAL: a?[2Jb?c\td");
  // CSI as one character; U+00A9 begins with the same byte.
  EXPECT_EQ(DescribeError(absl::InternalError("a\u009b2J\u00a9")), "INTERNAL: a?2J\u00a9");
}

}  // namespace
}  // namespace lacuna
