#include "server/unary_call.h"

#include <utility>

#include "proto/status.h"
#include "runtime/engine/clock.h"

namespace lacuna {

void AddRequestId(grpc::CallbackServerContext* rpc, const std::string& id,
                  const absl::Status& status) {
  if (status.ok()) {
    rpc->AddInitialMetadata(kRequestIdKey, id);
  } else {
    rpc->AddTrailingMetadata(kRequestIdKey, id);
  }
}

grpc::ServerUnaryReactor* UnaryCall::Start(const ServiceContext* context,
                                           grpc::CallbackServerContext* rpc, CallMetadata metadata,
                                           const v1::GenerateRequest& request,
                                           v1::GenerateResponse* response) {
  auto call = std::make_shared<UnaryCall>(context, rpc, std::move(metadata), response);
  call->self_ = call;
  call->Begin(request);
  return call.get();
}

bool UnaryCall::EmitStarted(v1::Started started) {
  for (uint32_t i = 0; i < started.effective().sampling().n(); ++i) {
    response_->add_choices()->set_index(i);
  }
  *response_->mutable_started() = std::move(started);
  return true;
}

bool UnaryCall::EmitDelta(v1::Delta delta) {
  v1::Choice& choice = *response_->mutable_choices(static_cast<int>(delta.index()));
  choice.mutable_text()->append(delta.text());
  choice.mutable_token_ids()->MergeFrom(delta.token_ids());
  choice.mutable_logprobs()->MergeFrom(delta.logprobs());
  if (delta.prompt_logprobs_size() > 0) {  // all of them, once
    response_->mutable_started()->mutable_prompt_logprobs()->Swap(delta.mutable_prompt_logprobs());
  }
  return true;
}

bool UnaryCall::EmitFinished(v1::Finished finished) {
  v1::Choice& choice = *response_->mutable_choices(static_cast<int>(finished.index()));
  *choice.mutable_finished() = std::move(finished);
  return true;
}

void UnaryCall::EmitEnd(const absl::Status& status) {
  write_started_ = Clock::Real()->Now();
  AddRequestId(rpc_, request_id(), status);
  Finish(ToGrpcStatus(status));
}

void UnaryCall::OnCancel() { AbortByClient(); }

void UnaryCall::OnDone() {
  {
    MutexLock lock(&mu_);
    write_started_ = absl::InfiniteFuture();
  }
  Record(/*sent=*/!rpc_->IsCancelled());
  const auto last = std::move(self_);  // may delete *this at the end of the scope
}

}  // namespace lacuna
