#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "proto/status.h"
#include "tests/fakes/fake_tokenizer.h"
#include "tests/server/test_server.h"

namespace lacuna {
namespace {

using testing::HasSubstr;
using testing::Not;
using Stream = std::unique_ptr<grpc::ClientReader<v1::GenerateStreamResponse>>;

absl::Status Generate(TestServer* test, const v1::GenerateRequest& request,
                      v1::GenerateResponse* response) {
  grpc::ClientContext context;
  return FromGrpcStatus(test->NewStub()->Generate(&context, request, response));
}

absl::Status Generate(TestServer* test, const v1::GenerateRequest& request) {
  v1::GenerateResponse response;
  return Generate(test, request, &response);
}

// Reads up to and including the first delta.
void ReadFirstDelta(const Stream& stream) {
  v1::GenerateStreamResponse message;
  while (stream->Read(&message) && !message.has_delta()) {
  }
  ASSERT_TRUE(message.has_delta());
}

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
  TestServer test;
  v1::GenerateRequest request;
  request.set_text("a");
  request.mutable_stopping()->set_max_tokens(1'000'000);
  request.mutable_stopping()->set_time_limit_ms(1);
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

  v1::GenerateRequest bad = MakeRequest("a", 1);
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
    request.mutable_output()->set_logprobs(77);
    EXPECT_FALSE(Generate(&test, request).ok());
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("\"reason\":\"invalid_argument\",\"fields\":\"stopping.stop\""));
  EXPECT_THAT(log, HasSubstr("\"fields\":\"sampling.top_p,output.logprobs\""));
  EXPECT_THAT(log, Not(HasSubstr("77,")));
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
  test.gate().Allow(1);
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

TEST(GenerateTest, DeadlineEndsTheStream) {
  TestServer test;
  test.gate().Close();
  const auto stub = test.NewStub();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  const Stream stream = stub->GenerateStream(&context, MakeRequest("hello", 500));
  test.gate().WaitHeld();
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

void AddMessage(v1::ChatMessages* messages, const std::string& role, const std::string& content) {
  v1::ChatMessage* message = messages->add_messages();
  message->set_role(role);
  message->set_content(content);
}

TEST(MessagesTest, AreWrittenByTheChatTemplateForGenerateAndTokenize) {
  ServerOptions options = TestServer::Options();
  options.models = {{"chat", "/chat"}};
  TestServer test(options);
  const std::string prompt = "system: be brief\nuser: hi\n";
  v1::GenerateRequest request = MakeRequest("", 2);
  AddMessage(request.mutable_messages(), "system", "be brief");
  AddMessage(request.mutable_messages(), "user", "hi");
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(&test, request, &response).ok());
  EXPECT_EQ(response.started().prompt_tokens(), prompt.size());  // no BOS but the template's

  const auto stub = test.NewStub();
  v1::TokenizeRequest tokenize;
  *tokenize.mutable_messages() = request.messages();
  v1::TokenizeResponse tokens;
  grpc::ClientContext first, second, third;
  ASSERT_TRUE(stub->Tokenize(&first, tokenize, &tokens).ok());
  std::string text;
  for (const std::string& piece : tokens.pieces()) text += piece;
  EXPECT_EQ(text, prompt);
  tokenize.set_text("and text");
  const absl::Status both = FromGrpcStatus(stub->Tokenize(&second, tokenize, &tokens));
  EXPECT_EQ(FieldViolations(both)[0].field, "messages");
  v1::GetModelResponse model;
  ASSERT_TRUE(stub->GetModel(&third, {}, &model).ok());
  EXPECT_TRUE(model.model().has_chat_template());
  test.ExpectQuietAndBalanced();
}

TEST(MessagesTest, AreRefusedWhereTheTemplateRefusesOrThereIsNone) {
  ServerOptions options = TestServer::Options();
  options.models = {{"chat", "/chat"}, {"base", "/base"}};
  TestServer test(options);
  v1::GenerateRequest request = MakeRequest("", 2);
  request.set_model("base");
  AddMessage(request.mutable_messages(), "user", "hi");
  absl::Status status = Generate(&test, request);
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldViolations(status)[0].field, "prompt.messages");
  EXPECT_THAT(FieldViolations(status)[0].description,
              HasSubstr("base takes no messages: there is no chat template"));

  request.set_model("chat");
  request.mutable_messages()->mutable_messages(0)->set_content("no");
  status = Generate(&test, request);
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldViolations(status)[0].description, HasSubstr("no way"));
  request.mutable_messages()->mutable_messages(0)->set_content(std::string(1020, 'x'));
  status = Generate(&test, request);
  EXPECT_THAT(FieldViolations(status)[0].description, HasSubstr("1027 bytes, the limit is"));
  test.ExpectQuietAndBalanced();
}

TEST(OtherMethodsTest, TokenizeAndDetokenizeAreInverse) {
  TestServer test;
  const auto stub = test.NewStub();
  v1::TokenizeRequest text;
  text.set_text("h\xc3\xa9");
  v1::TokenizeResponse tokens;
  grpc::ClientContext first;
  ASSERT_TRUE(stub->Tokenize(&first, text, &tokens).ok());
  ASSERT_EQ(tokens.token_ids_size(), 4);  // BOS, h, and two bytes
  EXPECT_EQ(tokens.token_ids(0), static_cast<uint32_t>(FakeTokenizer::kBos));
  EXPECT_EQ(tokens.pieces(1), "h");
  EXPECT_EQ(tokens.pieces(2), "\xef\xbf\xbd");
  v1::DetokenizeRequest ids;
  ids.mutable_token_ids()->CopyFrom(tokens.token_ids());
  v1::DetokenizeResponse back;
  grpc::ClientContext second;
  ASSERT_TRUE(stub->Detokenize(&second, ids, &back).ok());
  EXPECT_EQ(back.text(), text.text());
  ids.add_token_ids(258);
  grpc::ClientContext third;
  const absl::Status bad = FromGrpcStatus(stub->Detokenize(&third, ids, &back));
  EXPECT_EQ(FieldViolations(bad)[0].field, "token_ids");
  test.ExpectQuietAndBalanced();
}

TEST(OtherMethodsTest, PiecesAreLeftOutOfAResponseThatADefaultClientWouldRefuse) {
  ServerOptions options = TestServer::Options();
  options.kv_cache_mb = 32;  // room for 2 Mi positions
  TestServer test(options, [](FakeModel* model) { model->mutable_config().max_context = 4 << 20; });
  const auto stub = v1::GenerationService::NewStub(test.TcpChannel());
  const auto tokenize = [&](size_t bytes) {
    v1::TokenizeRequest text;
    text.set_text(std::string(bytes, 'a'));
    grpc::ClientContext context;
    v1::TokenizeResponse response;
    EXPECT_TRUE(stub->Tokenize(&context, text, &response).ok());
    EXPECT_EQ(response.token_ids_size(), static_cast<int>(bytes) + 1);  // with BOS
    return response.pieces_size();
  };
  EXPECT_EQ(tokenize(1 << 16), (1 << 16) + 1);
  EXPECT_EQ(tokenize(1 << 20), 0);
}

TEST(OtherMethodsTest, BrokenUtf8OnTheWireLeavesOnlyJsonInTheLog) {
  testing::internal::CaptureStderr();
  {
    TestServer test;
    EXPECT_FALSE(Generate(&test, MakeRequest("SECRET\xff", 1)).ok());
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, Not(HasSubstr("SECRET")));
  EXPECT_THAT(log, HasSubstr("\"event\":\"protobuf\""));
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_TRUE(nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false).is_object())
        << line;
  }
}

TEST(OtherMethodsTest, TokenizeBoundsTheText) {
  ServerOptions options = TestServer::Options();
  options.max_prompt_kb = 1;
  TestServer test(options);
  v1::TokenizeRequest text;
  text.set_text(std::string(1025, 'a'));
  v1::TokenizeResponse tokens;
  grpc::ClientContext context;
  const absl::Status status = FromGrpcStatus(test.NewStub()->Tokenize(&context, text, &tokens));
  EXPECT_EQ(FieldViolations(status)[0].field, "text");
}

TEST(OtherMethodsTest, ModelFactsAndLoadAreTold) {
  TestServer test;
  EXPECT_TRUE(Generate(&test, MakeRequest("a", 3)).ok());
  const auto stub = test.NewStub();
  grpc::ClientContext list, get, missing, load;
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub->ListModels(&list, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).state(), v1::Model::READY);
  EXPECT_EQ(models.models(0).activation(), "relu");
  EXPECT_DOUBLE_EQ(models.models(0).measured_sparsity(), 0.875);
  v1::GetModelRequest request;
  v1::GetModelResponse model;
  ASSERT_TRUE(stub->GetModel(&get, request, &model).ok());
  EXPECT_EQ(model.model().context_length(), 1024u);
  EXPECT_TRUE(model.model().gated());
  EXPECT_EQ(model.model().tokenizer(), "fake");
  EXPECT_EQ(model.model().kv_bytes_per_1000_tokens(),
            63 * KvCache::BytesPerBlock(FakeModel().config(), DType::kF32));
  request.set_model("nope");
  EXPECT_EQ(stub->GetModel(&missing, request, &model).error_code(), grpc::StatusCode::NOT_FOUND);
  v1::GetLoadResponse loads;
  ASSERT_TRUE(stub->GetLoad(&load, {}, &loads).ok());
  ASSERT_EQ(loads.models_size(), 1);
  EXPECT_EQ(loads.models(0).max_concurrent(), 8u);
  EXPECT_GT(loads.models(0).kv_blocks_total(), 0u);
  test.ExpectQuietAndBalanced();
}

}  // namespace
}  // namespace lacuna
