#include "server/generation_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/status.h"
#include "server/chat_prompt.h"
#include "server/request_validation.h"
#include "server/response_builder.h"
#include "server/streaming_call.h"
#include "server/unary_call.h"

namespace lacuna {
namespace {

std::string MetadataValue(const grpc::CallbackServerContext& rpc, const char* key) {
  const auto it = rpc.client_metadata().find(key);
  return it == rpc.client_metadata().end() ? "" : std::string(it->second.data(), it->second.size());
}

// version-traceid-parentid-flags in lower-case hex (W3C Trace Context, section 3.2).
bool IsTraceparent(const std::string& value) {
  if (value.size() != 55) return false;
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    const bool dash = i == 2 || i == 35 || i == 52;
    if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}

// gRPC keeps a request, which it made and nobody else reads, until its call has ended. A hostile
// one takes up 25 times its size: of 4 MiB of fields that no message has each empty one becomes an
// object. So a call that has begun, and has copied what it needs, frees the rest;
void Release(const v1::GenerateRequest* request) {
  v1::GenerateRequest().Swap(const_cast<v1::GenerateRequest*>(request));
}
// and one that waits for a worker frees those fields.
template <typename Request>
void DiscardUnknownFields(const Request* request) {
  const_cast<Request*>(request)->DiscardUnknownFields();
}

// What a Generate call brought along; its id is that of the message, or of the metadata, or a new
// one.
CallMetadata ReadMetadata(const grpc::CallbackServerContext& rpc,
                          const v1::GenerateRequest& request) {
  CallMetadata metadata;
  metadata.authorization = MetadataValue(rpc, "authorization");
  metadata.traceparent = MetadataValue(rpc, "traceparent");
  if (!IsTraceparent(metadata.traceparent)) metadata.traceparent.clear();
  metadata.deadline = absl::FromChrono(rpc.deadline());
  const bool in_message = !request.request_id().empty();
  metadata.request_id = in_message ? request.request_id() : MetadataValue(rpc, kRequestIdKey);
  if (!metadata.request_id.empty()) {
    metadata.request_id_status =
        CheckRequestId(in_message ? "request_id" : kRequestIdKey, metadata.request_id);
  }
  if (metadata.request_id.empty() || !metadata.request_id_status.ok()) {
    metadata.request_id = NewRequestId();
  }
  return metadata;
}

// A call that is not Generate: counts it, checks the token, and finishes it once, with its id.
class SimpleCall {
 public:
  SimpleCall(const ServiceContext* context, Method method, grpc::CallbackServerContext* rpc,
             const std::string& model)
      : rpc_(rpc),
        method_(method),
        traffic_(context->traffic->Get(context->models->Resolve(model))),
        reactor_(rpc->DefaultReactor()),
        allowed_(context->authenticator->Check(MetadataValue(*rpc, "authorization"))),
        request_id_(MetadataValue(*rpc, kRequestIdKey)) {
    if (request_id_.empty() || !CheckRequestId(kRequestIdKey, request_id_).ok()) {
      request_id_ = NewRequestId();
    }
    traffic_->OnStarted(method);
  }
  const absl::Status& allowed() const { return allowed_; }
  grpc::ServerUnaryReactor* Finish(const absl::Status& status) {
    traffic_->OnEnded(method_, status.code(), "none");
    AddRequestId(rpc_, request_id_, status);
    reactor_->Finish(ToGrpcStatus(status));
    return reactor_;
  }
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }
  bool IsCancelled() const { return rpc_->IsCancelled(); }
  absl::Time deadline() const { return absl::FromChrono(rpc_->deadline()); }

 private:
  grpc::CallbackServerContext* const rpc_;
  const Method method_;
  TrafficMetrics* const traffic_;
  grpc::ServerUnaryReactor* const reactor_;
  const absl::Status allowed_;
  std::string request_id_;
};

// Runs `work` on `worker` and finishes `call` with what it returns. Nothing is done for a client
// that has gone, or whose deadline has passed, before its turn came.
template <typename Work>
grpc::ServerUnaryReactor* FinishOnWorker(WorkerPool* worker, SimpleCall call, Work work) {
  absl::Status status = worker->Run([call, work]() mutable {
    call.Finish(call.IsCancelled() ? ClientIsGone(call.deadline()) : work());
  });
  return status.ok() ? call.reactor() : call.Finish(std::move(status));
}

// What needs no tokenizer, of which `max_bytes` bounds the work.
absl::Status CheckTokenize(const v1::TokenizeRequest& request, int64_t max_bytes) {
  if (static_cast<int64_t>(request.text().size()) > max_bytes) {
    return InvalidFields({{"text", absl::StrCat("has ", request.text().size(),
                                                " bytes, the limit is ", max_bytes)}});
  }
  if (request.has_messages()) {
    if (!request.text().empty()) return InvalidFields({{"messages", "exclude text"}});
    const auto violation = CheckMessages("messages", request.messages(), max_bytes);
    if (violation.has_value()) return InvalidFields({*violation});
  }
  return absl::OkStatus();
}

absl::Status Tokenize(const v1::TokenizeRequest& request, int64_t max_bytes, const ModelHost& host,
                      v1::TokenizeResponse* response) {
  const bool add_special = !request.has_add_special() || request.add_special();
  const auto ids = request.has_messages()
                       ? EncodeMessages(host, "messages", FromProto(request.messages()), max_bytes)
                       : host.tokenizer().Encode(request.text(), add_special);
  if (!ids.ok()) return ids.status();
  size_t bytes = 0;
  for (int32_t id : *ids) {
    response->add_token_ids(id);
    if (bytes > kMaxMessageBytes) continue;
    response->add_pieces(TokenText(host.tokenizer(), id));
    bytes += response->pieces().rbegin()->size();
  }
  if (response->ByteSizeLong() > kMaxMessageBytes) response->clear_pieces();
  return absl::OkStatus();
}

absl::Status TooMuchText() {
  return InvalidFields({{"token_ids", absl::StrCat("stand for more than the limit of ",
                                                   kMaxMessageBytes, " bytes of text")}});
}

absl::Status Detokenize(const v1::DetokenizeRequest& request, const ModelHost& host,
                        v1::DetokenizeResponse* response) {
  const auto vocab_size = static_cast<uint32_t>(host.tokenizer().vocab_size());
  size_t bytes = 0;
  for (uint32_t id : request.token_ids()) {
    if (id >= vocab_size) {
      return InvalidFields({{"token_ids", absl::StrCat("has the token id ", id,
                                                       ", the vocabulary has ", vocab_size)}});
    }
    bytes += host.tokenizer().TokenBytes(static_cast<int32_t>(id)).size();
    if (bytes > kMaxMessageBytes) return TooMuchText();
  }
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  auto text = host.tokenizer().Decode(ids);
  if (!text.ok()) return text.status();
  if (text->size() > kMaxMessageBytes)
    return TooMuchText();  // U+FFFD takes more than a broken byte
  response->set_text(*std::move(text));
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* GenerationService::Generate(grpc::CallbackServerContext* rpc,
                                                      const v1::GenerateRequest* request,
                                                      v1::GenerateResponse* response) {
  auto* const call =
      UnaryCall::Start(context_, rpc, ReadMetadata(*rpc, *request), *request, response);
  Release(request);
  return call;
}

grpc::ServerWriteReactor<v1::GenerateStreamResponse>* GenerationService::GenerateStream(
    grpc::CallbackServerContext* rpc, const v1::GenerateRequest* request) {
  auto* const call = StreamingCall::Start(context_, rpc, ReadMetadata(*rpc, *request), *request);
  Release(request);
  return call;
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* rpc,
                                                      const v1::TokenizeRequest* request,
                                                      v1::TokenizeResponse* response) {
  SimpleCall call(context_, Method::kTokenize, rpc, request->model());
  if (!call.allowed().ok()) return call.Finish(call.allowed());
  auto host = context_->models->Find(request->model());
  if (!host.ok()) return call.Finish(host.status());
  const int64_t max_bytes = LimitsOf(*context_, **host).max_prompt_bytes;
  const absl::Status status = CheckTokenize(*request, max_bytes);
  if (!status.ok()) return call.Finish(status);
  DiscardUnknownFields(request);
  return FinishOnWorker(context_->tokenize_worker, call, [=, host = *host] {
    return lacuna::Tokenize(*request, max_bytes, *host, response);
  });
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* rpc,
                                                        const v1::DetokenizeRequest* request,
                                                        v1::DetokenizeResponse* response) {
  SimpleCall call(context_, Method::kDetokenize, rpc, request->model());
  if (!call.allowed().ok()) return call.Finish(call.allowed());
  auto host = context_->models->Find(request->model());
  if (!host.ok()) return call.Finish(host.status());
  DiscardUnknownFields(request);
  return FinishOnWorker(context_->tokenize_worker, call, [=, host = *host] {
    return lacuna::Detokenize(*request, *host, response);
  });
}

grpc::ServerUnaryReactor* GenerationService::ListModels(grpc::CallbackServerContext* rpc,
                                                        const v1::ListModelsRequest*,
                                                        v1::ListModelsResponse* response) {
  SimpleCall call(context_, Method::kListModels, rpc, "");
  if (!call.allowed().ok()) return call.Finish(call.allowed());
  for (const ModelRegistry::Entry& entry : context_->models->List()) {
    v1::Model& model = *response->add_models();
    if (entry.lease != nullptr) {
      model = ToProto(*entry.lease, context_->default_max_tokens);
    } else {
      model.set_name(entry.name);
      model.set_state(v1::Model::LOADING);
    }
  }
  return call.Finish(absl::OkStatus());
}

grpc::ServerUnaryReactor* GenerationService::GetModel(grpc::CallbackServerContext* rpc,
                                                      const v1::GetModelRequest* request,
                                                      v1::GetModelResponse* response) {
  SimpleCall call(context_, Method::kGetModel, rpc, request->model());
  if (!call.allowed().ok()) return call.Finish(call.allowed());
  const auto host = context_->models->Find(request->model());
  if (!host.ok()) return call.Finish(host.status());
  *response->mutable_model() = ToProto(**host, context_->default_max_tokens);
  return call.Finish(absl::OkStatus());
}

grpc::ServerUnaryReactor* GenerationService::GetLoad(grpc::CallbackServerContext* rpc,
                                                     const v1::GetLoadRequest* request,
                                                     v1::GetLoadResponse* response) {
  SimpleCall call(context_, Method::kGetLoad, rpc, request->model());
  if (!call.allowed().ok()) return call.Finish(call.allowed());
  if (!request->model().empty()) {
    const auto host = context_->models->Find(request->model());
    if (!host.ok()) return call.Finish(host.status());
  }
  for (const ModelRegistry::Entry& entry : context_->models->List()) {
    if (entry.lease == nullptr) continue;
    if (!request->model().empty() && request->model() != entry.name) continue;
    const EngineLoad load = entry.lease->scheduler().GetLoad();
    auto& out = *response->add_models();
    out.set_model(entry.name);
    out.set_running(load.running);
    out.set_waiting(load.waiting);
    out.set_max_concurrent(load.max_concurrent);
    out.set_max_queue(load.max_queue);
    out.set_kv_blocks_used(load.kv_blocks_used);
    out.set_kv_blocks_total(load.kv_blocks_total);
    out.set_draining(load.draining);
  }
  return call.Finish(absl::OkStatus());
}

}  // namespace lacuna
