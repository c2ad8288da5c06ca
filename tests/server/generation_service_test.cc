#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <fstream>

#include "proto/status.h"
#include "tests/fakes/fake_tokenizer.h"
#include "tests/server/test_server.h"

namespace lacuna {
namespace {

using testing::HasSubstr;
using testing::Not;
using Stream = std::unique_ptr<grpc::ClientReader<v1::GenerateStreamResponse>>;

TEST(GenerateTest, StreamIsStartedThenDeltasThenOneFinishedPerChoice) {
  TestServer test;
  v1::GenerateRequest request = MakeRequest("hello", 20);
  request.mutable_sampling()->set_n(3);
  request.mutable_output()->set_return_token_ids(true);
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  const Stream stream = stub->GenerateStream(&context, request);
  v1::GenerateStreamResponse message;
  ASSERT_TRUE(stream->Read(&message));
  ASSERT_TRUE(message.has_started());
  EXPECT_EQ(message.started().model(), "fake");
  EXPECT_EQ(message.started().seed(), 7u);
  EXPECT_EQ(message.started().prompt_tokens(), 6u);  // with BOS
  std::string text[3];
  int tokens[3] = {}, finished[3] = {};
  while (stream->Read(&message)) {
    ASSERT_FALSE(message.has_started());
    if (message.has_delta()) {
      const v1::Delta& delta = message.delta();
      ASSERT_LT(delta.index(), 3u);
      EXPECT_EQ(finished[delta.index()], 0);
      text[delta.index()] += delta.text();
      tokens[delta.index()] += delta.token_ids_size();
    } else {
      const v1::Finished& end = message.finished();
      ++finished[end.index()];
      EXPECT_EQ(end.reason(), v1::LENGTH);
      EXPECT_EQ(end.usage().completion_tokens(), 20u);
      EXPECT_EQ(end.usage().prompt_tokens(), 6u);
      EXPECT_FALSE(end.has_sparsity());
    }
  }
  EXPECT_TRUE(stream->Finish().ok());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(finished[i], 1);
    EXPECT_EQ(tokens[i], 20);
    EXPECT_FALSE(text[i].empty());
  }
  EXPECT_NE(text[0], text[1]);

  v1::GenerateResponse unary;
  ASSERT_TRUE(Generate(&test, request, &unary).ok());
  ASSERT_EQ(unary.choices_size(), 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(unary.choices(i).text(), text[i]);
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, EffectiveValuesAreEchoedAndMaxTokensIsBoundedByTheContext) {
  TestServer test(TestServer::Options(), [](FakeModel* model) {
    SayAfter(model, 2, {FakeTokenizer::Byte('x'), FakeTokenizer::kEos});
  });
  v1::GenerateRequest request;
  request.set_text("a");
  request.mutable_sampling()->set_top_k(1);
  request.mutable_stopping()->set_max_tokens(1'000'000);
  request.mutable_sparsity()->set_report(true);
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(&test, request, &response).ok());
  const v1::Started& started = response.started();
  EXPECT_EQ(started.effective().stopping().max_tokens(), 1022u);  // 1024 - 2 of the prompt
  EXPECT_EQ(started.effective().sampling().temperature(), 1.0f);
  EXPECT_EQ(started.effective().sampling().seed(), started.seed());
  EXPECT_GT(response.choices(0).finished().sparsity().activation_sparsity(), 0.5);
}

TEST(GenerateTest, LogprobsComeWithTextForTokensAndPrompt) {
  TestServer test;
  v1::GenerateRequest request = MakeRequest("ab", 3);
  request.mutable_output()->set_logprobs(2);
  request.mutable_output()->set_prompt_logprobs(1);
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(&test, request, &response).ok());
  ASSERT_EQ(response.choices(0).logprobs_size(), 3);
  EXPECT_EQ(response.choices(0).logprobs(0).top_size(), 2);
  EXPECT_LE(response.choices(0).logprobs(0).token().logprob(), 0.0f);
  ASSERT_EQ(response.started().prompt_logprobs_size(), 3);
  EXPECT_EQ(response.started().prompt_logprobs(1).token().text(), "a");
}

TEST(GenerateTest, StopStringEndsAChoice) {
  TestServer test(TestServer::Options(), [](FakeModel* model) {
    SayAfter(model, 2,
             {FakeTokenizer::Byte('x'), FakeTokenizer::Byte('y'), FakeTokenizer::Byte('z')});
  });
  v1::GenerateRequest request = MakeRequest("a", 10);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->add_stop("yz");
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(&test, request, &response).ok());
  EXPECT_EQ(response.choices(0).text(), "x");
  EXPECT_EQ(response.choices(0).finished().reason(), v1::STOP_STRING);
  EXPECT_EQ(response.choices(0).finished().stop(), "yz");
  test.ExpectQuietAndBalanced();
  EXPECT_EQ(test.Metric("lacuna_requests_total", {"finish_reason=\"stop_string\"", "\"OK\""}), 1);
}

TEST(OtherMethodsTest, RequestIdIsEchoedOrMade) {
  TestServer test;
  const auto stub = test.NewStub();
  const auto id_of = [](const auto& metadata) {
    const auto it = metadata.find("x-request-id");
    return it == metadata.end() ? "" : std::string(it->second.data(), it->second.size());
  };
  {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", "mine");
    v1::GetModelResponse response;
    EXPECT_TRUE(stub->GetModel(&context, {}, &response).ok());
    EXPECT_EQ(id_of(context.GetServerInitialMetadata()), "mine");
  }
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  request.set_model("nope");
  v1::TokenizeResponse response;
  EXPECT_FALSE(stub->Tokenize(&context, request, &response).ok());
  EXPECT_EQ(id_of(context.GetServerInitialMetadata()), "");
  EXPECT_EQ(id_of(context.GetServerTrailingMetadata()).size(), 16u);
}

TEST(GenerateTest, RequestIdIsEchoedFromFieldOrMetadataOrMade) {
  TestServer test;
  const auto stub = test.NewStub();
  const auto id_of = [&](const std::string& field, const std::string& metadata) {
    v1::GenerateRequest request = MakeRequest("a", 1);
    request.set_request_id(field);
    grpc::ClientContext context;
    if (!metadata.empty()) context.AddMetadata("x-request-id", metadata);
    v1::GenerateResponse response;
    EXPECT_TRUE(stub->Generate(&context, request, &response).ok());
    const auto& initial = context.GetServerInitialMetadata();
    const auto it = initial.find("x-request-id");
    EXPECT_NE(it, initial.end());
    if (it != initial.end()) {
      EXPECT_EQ(std::string(it->second.data(), it->second.size()), response.started().request_id());
    }
    return response.started().request_id();
  };
  EXPECT_EQ(id_of("field", ""), "field");
  EXPECT_EQ(id_of("", "metadata"), "metadata");
  EXPECT_EQ(id_of("field", "metadata"), "field");
  EXPECT_EQ(id_of("", "").size(), 16u);

  // An error alone has no headers, or clients and proxies would not repeat the call.
  grpc::ClientContext context;
  v1::GenerateRequest bad = MakeRequest("a", 1);
  bad.set_request_id("field");
  bad.mutable_sampling()->set_top_p(2);
  v1::GenerateResponse response;
  EXPECT_FALSE(stub->Generate(&context, bad, &response).ok());
  EXPECT_TRUE(context.GetServerInitialMetadata().empty());
  const auto trailer = context.GetServerTrailingMetadata().find("x-request-id");
  ASSERT_NE(trailer, context.GetServerTrailingMetadata().end());
  EXPECT_EQ(std::string(trailer->second.data(), trailer->second.size()), "field");

  bad.set_request_id(std::string(129, 'x'));
  EXPECT_EQ(FieldViolations(Generate(&test, bad))[0].field, "request_id");
}

TEST(GenerateTest, InvalidRequestsCarryFieldViolationsAndAreCounted) {
  TestServer test;
  v1::GenerateRequest request = MakeRequest("a", 1);
  request.mutable_sampling()->set_top_p(2);
  const absl::Status status = Generate(&test, request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolations(status)[0].field, "sampling.top_p");
  const absl::Status too_long = Generate(&test, MakeRequest(std::string(1100, 'a'), 1));
  EXPECT_EQ(too_long.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolations(too_long)[0].field, "prompt");
  EXPECT_EQ(test.Metric("lacuna_requests_rejected_total", {"invalid_argument"}), 2);
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, TheLogSaysWhyWithoutQuotingTheClient) {
  testing::internal::CaptureStderr();
  {
    TestServer test;
    v1::GenerateRequest request = MakeRequest("a", 1);
    request.mutable_sampling()->set_top_p(2);
    request.mutable_stopping()->add_stop(std::string());
    EXPECT_FALSE(Generate(&test, request).ok());
    request.mutable_stopping()->clear_stop();
    request.mutable_output()->set_logprobs(123456789);
    EXPECT_FALSE(Generate(&test, request).ok());
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("\"reason\":\"invalid_argument\",\"fields\":\"stopping.stop\""));
  EXPECT_THAT(log, HasSubstr("\"fields\":\"sampling.top_p,output.logprobs\""));
  EXPECT_THAT(log, Not(HasSubstr("123456789")));
}

TEST(GenerateTest, MessagesOfMoreThanFourMebibytesAreRefused) {
  TestServer test;
  const auto stub = v1::GenerationService::NewStub(test.TcpChannel());
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status =
      stub->Generate(&context, MakeRequest(std::string((4 << 20) + 1, 'a'), 1), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(GenerateTest, AnEngineErrorEndsThisRequestOnly) {
  std::atomic<bool> fail = false;
  TestServer test(TestServer::Options(), [&fail](FakeModel* model) {
    model->on_forward = [&fail](absl::Span<const SequenceChunk>, FfnMode) {
      return fail.exchange(false) ? absl::InternalError("broken") : absl::OkStatus();
    };
  });
  fail = true;
  EXPECT_EQ(Generate(&test, MakeRequest("a", 3)).code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Generate(&test, MakeRequest("a", 3)).ok());
  test.ExpectQuietAndBalanced();
}

TEST(GenerateTest, ModelsAreFoundByName) {
  ServerOptions options = TestServer::Options();
  options.models = {{"one", "/1"}, {"two", "/2"}};
  TestServer test(options);
  v1::GenerateRequest request = MakeRequest("a", 2);
  EXPECT_EQ(FieldViolations(Generate(&test, request))[0].field, "model");
  request.set_model("three");
  EXPECT_EQ(Generate(&test, request).code(), absl::StatusCode::kNotFound);
  request.set_model("two");
  v1::GenerateResponse response;
  EXPECT_TRUE(Generate(&test, request, &response).ok());
  EXPECT_EQ(response.started().model(), "two");
  test.ExpectQuietAndBalanced();
  EXPECT_EQ(test.Metric("lacuna_requests_total", {"model=\"two\"", "code=\"OK\""}), 1);
  EXPECT_EQ(test.Metric("lacuna_requests_total", {"model=\"unknown\"", "NOT_FOUND"}), 1);
}

TEST(GenerateTest, TokensAreNeededIfConfigured) {
  const std::string path = testing::TempDir() + "/lacuna_service_tokens";
  std::ofstream(path) << "secret-token\n";
  ServerOptions options = TestServer::Options();
  options.auth_token_file = path;
  TestServer test(options);
  const auto stub = test.NewStub();
  const auto code = [&](const std::string& authorization) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    v1::GenerateResponse response;
    return stub->Generate(&context, MakeRequest("a", 1), &response).error_code();
  };
  EXPECT_EQ(code(""), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(code("Bearer wrong"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(code("Bearer secret-token"), grpc::StatusCode::OK);
  grpc::ClientContext context;
  v1::ListModelsResponse models;
  EXPECT_EQ(stub->ListModels(&context, {}, &models).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  test.ExpectQuietAndBalanced();
  std::remove(path.c_str());
}

TEST(GenerateTest, NoTextOfAClientIsLoggedOrExported) {
  const std::string marker = "MARKER5f3a";
  testing::internal::CaptureStderr();
  std::string scrape;
  {
    TestServer test;
    v1::GenerateRequest request = MakeRequest(marker, 2);
    request.set_tenant(marker);
    request.mutable_stopping()->add_stop(marker);
    EXPECT_TRUE(Generate(&test, request).ok());
    request.set_model(marker);
    EXPECT_EQ(Generate(&test, request).code(), absl::StatusCode::kNotFound);
    const auto stub = test.NewStub();
    grpc::ClientContext tokenize, detokenize, trace;
    v1::TokenizeRequest text;
    text.set_text(marker);
    v1::TokenizeResponse tokens;
    EXPECT_TRUE(stub->Tokenize(&tokenize, text, &tokens).ok());
    trace.AddMetadata("traceparent", marker);
    v1::GenerateResponse response;
    EXPECT_TRUE(stub->Generate(&trace, MakeRequest(marker, 1), &response).ok());
    scrape = test.Scrape();
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("\"event\":\"request\""));
  EXPECT_THAT(log, Not(HasSubstr(marker)));
  EXPECT_THAT(scrape, Not(HasSubstr(marker)));
}

TEST(GenerateTest, TraceparentAndCountsAreLogged) {
  const std::string traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  testing::internal::CaptureStderr();
  {
    TestServer test;
    const auto stub = test.NewStub();
    grpc::ClientContext context;
    context.AddMetadata("traceparent", traceparent);
    v1::GenerateResponse response;
    EXPECT_TRUE(stub->Generate(&context, MakeRequest("a", 4), &response).ok());
    EXPECT_TRUE(Eventually([&] { return test.Metric("lacuna_grpc_streams_open") == 0; }));
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr(traceparent));
  EXPECT_THAT(log, HasSubstr("\"completion_tokens\":4"));
}

}  // namespace
}  // namespace lacuna
