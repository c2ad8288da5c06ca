#include "tests/client/fake_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lacuna/v1/generation.grpc.pb.h"
#include "proto/status.h"

namespace lacuna {
namespace {

v1::Model TinyModel() {
  v1::Model model;
  model.set_name("tiny");
  model.set_state(v1::Model::READY);
  model.set_architecture("llama");
  model.set_activation("fatrelu");
  model.set_activation_threshold(0.01f);
  model.set_sparse(true);
  model.set_context_length(64);
  model.set_vocab_size(320);
  model.set_tokenizer_ids(256);
  model.set_parameters(20'500'000);
  model.set_weight_bytes(41 << 20);
  model.set_weights("bf16");
  model.set_device("cpu");
  model.set_bos_token_id(1);
  model.set_measured_sparsity(0.8932);
  return model;
}

grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const absl::Status& status) {
  auto* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

class FakeServer::Service final : public v1::GenerationService::CallbackService {
 public:
  explicit Service(Generator generator) : generator_(std::move(generator)) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context,
                                     const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override {
    const Reply reply = Record(context, *request);
    std::map<uint32_t, v1::Choice> choices;
    for (const v1::GenerateStreamResponse& event : reply.events) {
      if (event.has_started()) *response->mutable_started() = event.started();
      if (event.has_delta()) {
        *choices[event.delta().index()].mutable_text() += event.delta().text();
      }
      if (event.has_finished()) {
        *choices[event.finished().index()].mutable_finished() = event.finished();
      }
    }
    for (const auto& [index, choice] : choices) *response->add_choices() = choice;
    return Finish(context, reply.status);
  }

  grpc::ServerWriteReactor<v1::GenerateStreamResponse>* GenerateStream(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    return new Stream(this, Record(context, *request));
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    if (!request->has_add_special() || request->add_special()) {
      response->add_token_ids(1);
      response->add_pieces("");
    }
    // Each message takes a token more than its content.
    for (const v1::ChatMessage& message : request->messages().messages()) {
      for (size_t i = 0; i <= message.content().size(); ++i) response->add_token_ids(2);
    }
    for (const char c : request->text()) {
      response->add_token_ids(static_cast<unsigned char>(c));
      response->add_pieces(std::string(1, c));
    }
    return Finish(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    for (const uint32_t id : request->token_ids())
      *response->mutable_text() += static_cast<char>(id);
    return Finish(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    NoteAuthorization(context);
    *response->add_models() = TinyModel();
    absl::MutexLock lock(&mu_);
    ++model_calls_;
    if (failures_left_ == 0) return Finish(context, absl::OkStatus());
    --failures_left_;
    return Finish(context, failure_);
  }

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override {
    const bool chat = request->model() == "chat";
    if (!request->model().empty() && request->model() != "tiny" && !chat) {
      return Finish(context, absl::NotFoundError(absl::StrCat("no model ", request->model())));
    }
    *response->mutable_model() = TinyModel();
    if (chat) {
      response->mutable_model()->set_name("chat");
      response->mutable_model()->set_has_chat_template(true);
    }
    return Finish(context, absl::OkStatus());
  }

  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::GetLoadResponse* response) override {
    response->add_models()->set_model("tiny");
    return Finish(context, absl::OkStatus());
  }

 private:
  friend class FakeServer;

  class Stream final : public grpc::ServerWriteReactor<v1::GenerateStreamResponse> {
   public:
    Stream(Service* service, Reply reply) : service_(service), reply_(std::move(reply)) { Next(); }
    void OnWriteDone(bool ok) override {
      if (ok) Next();
      if (!ok) FinishOnce(absl::CancelledError("the client is gone"));
    }
    void OnCancel() override {
      {
        absl::MutexLock lock(&service_->mu_);
        ++service_->cancellations_;
      }
      if (reply_.hang) FinishOnce(absl::CancelledError("cancelled"));
    }
    void OnDone() override { delete this; }

   private:
    void Next() {
      if (next_ < reply_.events.size()) {
        StartWrite(&reply_.events[next_++]);
      } else if (!reply_.hang) {
        FinishOnce(reply_.status);
      }
    }
    void FinishOnce(const absl::Status& status) {
      {
        absl::MutexLock lock(&mu_);
        if (std::exchange(finished_, true)) return;
      }
      grpc::ServerWriteReactor<v1::GenerateStreamResponse>::Finish(ToGrpcStatus(status));
    }

    Service* const service_;
    Reply reply_;
    size_t next_ = 0;
    absl::Mutex mu_;
    bool finished_ ABSL_GUARDED_BY(mu_) = false;
  };

  Reply Record(grpc::CallbackServerContext* context, const v1::GenerateRequest& request) {
    NoteAuthorization(context);
    {
      absl::MutexLock lock(&mu_);
      requests_.push_back(request);
    }
    return generator_(request);
  }

  void NoteAuthorization(grpc::CallbackServerContext* context) {
    const auto& metadata = context->client_metadata();
    const auto found = metadata.find("authorization");
    absl::MutexLock lock(&mu_);
    authorization_ =
        found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
  }

  const Generator generator_;
  absl::Mutex mu_;
  std::vector<v1::GenerateRequest> requests_ ABSL_GUARDED_BY(mu_);
  std::string authorization_ ABSL_GUARDED_BY(mu_);
  int model_calls_ ABSL_GUARDED_BY(mu_) = 0;
  int cancellations_ ABSL_GUARDED_BY(mu_) = 0;
  int failures_left_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
};

struct FakeServer::Impl {
  explicit Impl(Generator generator) : service(std::move(generator)) {}
  Service service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

FakeServer::Reply FakeServer::Says(const std::vector<std::string>& texts) {
  Reply reply;
  v1::Started& started = *reply.events.emplace_back().mutable_started();
  started.set_model("tiny");
  started.set_seed(7);
  started.set_prompt_tokens(3);
  for (const std::string& text : texts) {
    reply.events.emplace_back().mutable_delta()->set_text(text);
  }
  v1::Finished& finished = *reply.events.emplace_back().mutable_finished();
  finished.set_reason(v1::LENGTH);
  finished.mutable_usage()->set_prompt_tokens(3);
  finished.mutable_usage()->set_completion_tokens(static_cast<uint32_t>(texts.size()));
  finished.mutable_timings()->set_ttft_ms(12.5);
  finished.mutable_timings()->set_decode_ms(10);
  finished.mutable_sparsity()->set_activation_sparsity(0.875);
  return reply;
}

FakeServer::FakeServer(Generator generator, int port)
    : impl_(std::make_unique<Impl>(std::move(generator))) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                           &impl_->port);
  builder.RegisterService(&impl_->service);
  impl_->server = builder.BuildAndStart();
  if (impl_->server != nullptr) SetServing(true);
}

FakeServer::~FakeServer() {
  if (impl_->server != nullptr) impl_->server->Shutdown(std::chrono::system_clock::now());
}

int FakeServer::port() const { return impl_->port; }
std::string FakeServer::address() const { return absl::StrCat("127.0.0.1:", impl_->port); }

void FakeServer::SetServing(bool serving) {
  auto* health = impl_->server->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(v1::GenerationService::service_full_name(), serving);
}

void FakeServer::FailNext(int calls, absl::Status status) {
  absl::MutexLock lock(&impl_->service.mu_);
  impl_->service.failures_left_ = calls;
  impl_->service.failure_ = std::move(status);
}

std::vector<v1::GenerateRequest> FakeServer::requests() const {
  absl::MutexLock lock(&impl_->service.mu_);
  return impl_->service.requests_;
}

std::string FakeServer::last_authorization() const {
  absl::MutexLock lock(&impl_->service.mu_);
  return impl_->service.authorization_;
}

int FakeServer::model_calls() const {
  absl::MutexLock lock(&impl_->service.mu_);
  return impl_->service.model_calls_;
}

void FakeServer::WaitForRequests(size_t count) const {
  Service& service = impl_->service;
  const auto arrived = [&] { return service.requests_.size() >= count; };
  absl::MutexLock lock(&service.mu_);
  service.mu_.Await(absl::Condition(&arrived));
}

void FakeServer::WaitForCancellations(int count) const {
  Service& service = impl_->service;
  const auto arrived = [&] { return service.cancellations_ >= count; };
  absl::MutexLock lock(&service.mu_);
  service.mu_.Await(absl::Condition(&arrived));
}

}  // namespace lacuna
