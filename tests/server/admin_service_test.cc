#include "server/admin_service.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <sstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "lacuna/v1/admin.grpc.pb.h"
#include "proto/status.h"
#include "tests/server/test_server.h"

namespace lacuna {
namespace {

class AdminServiceTest : public testing::Test {
 protected:
  AdminServiceTest() : test_(WithAdmin()) {
    stub_ = v1::AdminService::NewStub(
        grpc::CreateChannel(test_.server().admin_address(), grpc::InsecureChannelCredentials()));
  }
  static ServerOptions WithAdmin() {
    ServerOptions options = TestServer::Options();
    options.admin_listen = "127.0.0.1:0";
    return options;
  }
  absl::Status Load(const std::string& name, const std::string& path,
                    const std::string& activation = "") {
    grpc::ClientContext context;
    v1::LoadModelRequest request;
    request.set_name(name);
    request.set_path(path);
    request.set_activation(activation);
    v1::LoadModelResponse response;
    return FromGrpcStatus(stub_->LoadModel(&context, request, &response));
  }
  absl::Status Unload(const std::string& name, absl::Duration timeout = absl::Seconds(10)) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    v1::UnloadModelRequest request;
    request.set_name(name);
    v1::UnloadModelResponse response;
    return FromGrpcStatus(stub_->UnloadModel(&context, request, &response));
  }
  v1::Model::State State(const std::string& model) {
    grpc::ClientContext context;
    v1::GetModelRequest request;
    request.set_model(model);
    v1::GetModelResponse response;
    EXPECT_TRUE(test_.NewStub()->GetModel(&context, request, &response).ok());
    return response.model().state();
  }
  absl::Status Generate(const std::string& model) {
    v1::GenerateRequest request = MakeRequest("a", 2);
    request.set_model(model);
    grpc::ClientContext context;
    v1::GenerateResponse response;
    return FromGrpcStatus(test_.NewStub()->Generate(&context, request, &response));
  }

  // A stream on the model "new", which stands still until FinishHeldStream.
  void StartHeldStream() {
    test_.gate().Close();
    v1::GenerateRequest request = MakeRequest("a", 3);
    request.set_model("new");
    held_stub_ = test_.NewStub();
    held_ = held_stub_->GenerateStream(&held_context_, request);
    test_.gate().WaitHeld();
  }
  void FinishHeldStream() {
    test_.gate().Open();
    v1::GenerateStreamResponse message;
    while (held_->Read(&message)) {
    }
    EXPECT_TRUE(held_->Finish().ok());
  }

  TestServer test_;
  std::unique_ptr<v1::AdminService::Stub> stub_;
  grpc::ClientContext held_context_;
  std::unique_ptr<v1::GenerationService::Stub> held_stub_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateStreamResponse>> held_;
};

TEST_F(AdminServiceTest, ALoadedModelServesUntilItIsUnloaded) {
  EXPECT_EQ(Generate("new").code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(Load("new", testing::TempDir()).ok());
  EXPECT_TRUE(Generate("new").ok());
  EXPECT_EQ(test_.Metric("lacuna_model_ready", {"\"new\""}), 1);
  EXPECT_EQ(Load("new", testing::TempDir()).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Unload("new").ok());
  EXPECT_EQ(Generate("new").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(test_.Scrape().find("lacuna_model_ready{model=\"new\"}"), std::string::npos)
      << "an alert would miss it for ever";
  EXPECT_TRUE(Generate("fake").ok());
  EXPECT_EQ(Unload("new").code(), absl::StatusCode::kNotFound);
}

TEST_F(AdminServiceTest, NamesAndPathsAreChecked) {
  for (const char* name : {"", ".hidden", "a/b", "../x", "a b", "a\nb"}) {
    EXPECT_EQ(FieldViolations(Load(name, testing::TempDir()))[0].field, "name") << name;
  }
  EXPECT_EQ(FieldViolations(Load(std::string(65, 'a'), testing::TempDir()))[0].field, "name");
  EXPECT_EQ(FieldViolations(Load("ok", "/no/such/directory"))[0].field, "path");
  EXPECT_EQ(FieldViolations(Load("ok", "/dev/null"))[0].field, "path");
  EXPECT_EQ(FieldViolations(Load("ok", testing::TempDir(), "gelu"))[0].field, "activation");
  EXPECT_TRUE(Load("ok", testing::TempDir(), "fatrelu:0.01").ok());
}

TEST_F(AdminServiceTest, UnloadWaitsForRunningRequests) {
  ASSERT_TRUE(Load("new", testing::TempDir()).ok());
  StartHeldStream();
  EXPECT_EQ(State("new"), v1::Model::READY);
  EXPECT_EQ(Unload("new", absl::Milliseconds(50)).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(State("new"), v1::Model::DRAINING);
  FinishHeldStream();
  EXPECT_TRUE(Eventually([&] {
    const absl::StatusCode code = Unload("new").code();
    return code == absl::StatusCode::kOk || code == absl::StatusCode::kNotFound;
  }));
  EXPECT_EQ(Generate("new").code(), absl::StatusCode::kNotFound);
}

TEST_F(AdminServiceTest, OneUnloadAtATimeAndACancelledOneStopsWaiting) {
  ASSERT_TRUE(Load("new", testing::TempDir()).ok());
  StartHeldStream();

  grpc::ClientContext context;
  v1::UnloadModelRequest request;
  request.set_name("new");
  grpc::Status first;
  std::thread unload([&] {
    v1::UnloadModelResponse response;
    first = stub_->UnloadModel(&context, request, &response);
  });
  EXPECT_TRUE(Eventually([&] { return test_.Metric("lacuna_model_ready", {"\"new\""}) == 0; }));
  EXPECT_EQ(Unload("new", absl::Milliseconds(500)).code(), absl::StatusCode::kFailedPrecondition);
  context.TryCancel();
  unload.join();
  EXPECT_EQ(first.error_code(), grpc::StatusCode::CANCELLED);
  // The server notices a little later.
  EXPECT_TRUE(Eventually([&] {
    return test_.server().models().Unload("new", absl::Milliseconds(20)).code() ==
           absl::StatusCode::kDeadlineExceeded;
  }));
  FinishHeldStream();
  EXPECT_TRUE(Unload("new").ok());
  EXPECT_EQ(Generate("new").code(), absl::StatusCode::kNotFound);
}

TEST_F(AdminServiceTest, AStreamThatNobodyReadsDoesNotHoldItsModel) {
  ASSERT_TRUE(Load("new", testing::TempDir()).ok());
  v1::GenerateRequest request = MakeRequest("a", 20);
  request.set_model("new");
  const auto stub = test_.NewStub();  // in process, a message is written when it is read
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, request);
  ASSERT_TRUE(Eventually(
      [&] { return test_.Metric("lacuna_generation_tokens_total", {"\"new\""}) == 20; }));
  EXPECT_TRUE(Unload("new").ok());
  v1::GenerateStreamResponse message;
  bool finished = false;
  while (stream->Read(&message)) finished |= message.has_finished();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(finished);
}

TEST_F(AdminServiceTest, UnloadGivesUpAtItsDeadlineAndCanBeRepeated) {
  ASSERT_TRUE(Load("new", testing::TempDir()).ok());
  auto lease = *test_.server().models().Find("new");
  EXPECT_EQ(test_.server().models().Unload("new", absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Generate("new").code(), absl::StatusCode::kUnavailable);
  lease = nullptr;
  EXPECT_TRUE(Unload("new").ok());
  EXPECT_EQ(Generate("new").code(), absl::StatusCode::kNotFound);
}

TEST_F(AdminServiceTest, AModelThatCannotBeLoadedLeavesNoSeriesAndALine) {
  ServerOptions options = WithAdmin();
  testing::internal::CaptureStderr();
  {
    Server server(
        options,
        [](const LoadOptions&) -> absl::StatusOr<LoadedModel> {
          return absl::DataLossError("the file is truncated");
        },
        [] {});
    ASSERT_TRUE(server.Start().ok());
    stub_ = v1::AdminService::NewStub(
        grpc::CreateChannel(server.admin_address(), grpc::InsecureChannelCredentials()));
    EXPECT_EQ(Load("broken", testing::TempDir()).code(), absl::StatusCode::kDataLoss);
    std::ostringstream text;
    prometheus::TextSerializer().Serialize(text, server.metrics().registry()->Collect());
    EXPECT_EQ(text.str().find("broken"), std::string::npos);
  }
  const std::string log = testing::internal::GetCapturedStderr();
  for (const char* part : {"\"admin_load\"", "\"model\":\"broken\"", "\"path\":", "truncated"}) {
    EXPECT_NE(log.find(part), std::string::npos) << part;
  }
}

TEST_F(AdminServiceTest, ItIsNotOnThePublicListener) {
  const auto stub = v1::AdminService::NewStub(test_.InProcessChannel());
  grpc::ClientContext context;
  v1::DrainResponse response;
  EXPECT_EQ(stub->Drain(&context, {}, &response).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

// A server whose administrator loads a second model, which stops on the way until Release.
class AdminWhileLoadingTest : public testing::Test {
 protected:
  AdminWhileLoadingTest() { started_.WaitForNotification(); }
  ~AdminWhileLoadingTest() override {
    if (load_.joinable()) Release().IgnoreError();
  }
  // Lets the load go on; returns how it ended.
  absl::Status Release() {
    release_.Notify();
    load_.join();
    return loaded_;
  }
  static ServerOptions Options() {
    ServerOptions options = TestServer::Options();
    options.admin_listen = "127.0.0.1:0";
    return options;
  }

  absl::Notification started_, release_;
  std::atomic<int> loads_ = 0;
  absl::Status loaded_;
  TestServer test_{Options(), [this](FakeModel*) {
                     if (++loads_ == 1) return;
                     started_.Notify();
                     release_.WaitForNotification();
                   }};
  std::thread load_{[this] {
    const auto stub = v1::AdminService::NewStub(
        grpc::CreateChannel(test_.server().admin_address(), grpc::InsecureChannelCredentials()));
    v1::LoadModelRequest request;
    request.set_name("late");
    request.set_path(testing::TempDir());
    grpc::ClientContext context;
    v1::LoadModelResponse response;
    loaded_ = FromGrpcStatus(stub->LoadModel(&context, request, &response));
  }};
};

TEST_F(AdminWhileLoadingTest, TheLoadDoesNotHoldUpADrain) {
  EXPECT_EQ(test_.server().Drain([] { return false; }), 0);
  EXPECT_TRUE(test_.server().models().IsLoading());
  EXPECT_EQ(test_.server().models().Announce("more", true).code(), absl::StatusCode::kUnavailable);
}

TEST_F(AdminWhileLoadingTest, RequestsWithoutANameMeanTheModelThatServes) {
  EXPECT_TRUE(Generate(&test_, MakeRequest("a", 1)).ok());
  EXPECT_TRUE(Release().ok());
  const absl::Status two = Generate(&test_, MakeRequest("a", 1));
  EXPECT_EQ(FieldViolations(two).at(0).field, "model") << two;
}

TEST(AdminDrainTest, DrainAsksTheOwnerToStop) {
  int asked = 0;
  Authenticator everybody;
  AdminService service(nullptr, &everybody, absl::Seconds(1), [&asked] { ++asked; });
  grpc::ServerContext context;
  v1::DrainResponse response;
  EXPECT_TRUE(service.Drain(&context, nullptr, &response).ok());
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace lacuna
