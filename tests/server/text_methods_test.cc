// Messages, and the methods of the service that generate nothing.

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "proto/status.h"
#include "tests/fakes/fake_tokenizer.h"
#include "tests/server/test_server.h"

namespace lacuna {
namespace {

using testing::HasSubstr;
using testing::Not;

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

TEST(OtherMethodsTest, DetokenizeBoundsTheText) {
  TestServer test;
  const auto stub = v1::GenerationService::NewStub(test.TcpChannel());
  v1::DetokenizeRequest ids;
  // A broken byte each, for which the text has the three bytes of U+FFFD.
  const int broken = FakeTokenizer::Byte('\xff');
  for (int i = 0; i < 1'500'000; ++i) ids.add_token_ids(broken);
  grpc::ClientContext context;
  v1::DetokenizeResponse response;
  const absl::Status status = FromGrpcStatus(stub->Detokenize(&context, ids, &response));
  ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldViolations(status)[0].field, "token_ids");
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
