#include "server/streaming_call.h"

#include <utility>

#include "proto/status.h"
#include "runtime/engine/clock.h"

namespace lacuna {

grpc::ServerWriteReactor<v1::GenerateStreamResponse>* StreamingCall::Start(
    const ServiceContext* context, grpc::CallbackServerContext* rpc, CallMetadata metadata,
    const v1::GenerateRequest& request) {
  auto call = std::make_shared<StreamingCall>(context, rpc, std::move(metadata));
  call->self_ = call;
  call->Begin(request);
  return call.get();
}

bool StreamingCall::EmitStarted(v1::Started started) {
  v1::GenerateStreamResponse message;
  *message.mutable_started() = std::move(started);
  return Push(std::move(message));
}

bool StreamingCall::EmitDelta(v1::Delta delta) {
  v1::GenerateStreamResponse message;
  *message.mutable_delta() = std::move(delta);
  return Push(std::move(message));
}

bool StreamingCall::EmitFinished(v1::Finished finished) {
  v1::GenerateStreamResponse message;
  *message.mutable_finished() = std::move(finished);
  return Push(std::move(message));
}

void StreamingCall::EmitEnd(const absl::Status& status) {
  end_ = true;
  end_status_ = status;
  if (!status.ok()) pending_.clear();
  Pump();
}

bool StreamingCall::Push(v1::GenerateStreamResponse message) {
  pending_bytes_ += static_cast<int64_t>(message.ByteSizeLong());
  pending_.push_back(std::move(message));
  Pump();
  return pending_bytes_ <= buffer_bytes_;
}

void StreamingCall::Pump() {
  if (write_started_ != absl::InfiniteFuture()) return;
  if (!pending_.empty() && !write_failed_) {
    writing_ = std::move(pending_.front());
    pending_.pop_front();
    pending_bytes_ -= static_cast<int64_t>(writing_.ByteSizeLong());
    write_started_ = Clock::Real()->Now();
    if (!has_written_) rpc_->AddInitialMetadata(kRequestIdKey, request_id());
    has_written_ = true;
    StartWrite(&writing_);
  } else if (end_) {
    if (!has_written_) rpc_->AddTrailingMetadata(kRequestIdKey, request_id());
    Finish(ToGrpcStatus(end_status_));
  }
}

void StreamingCall::OnWriteDone(bool ok) {
  MutexLock lock(&mu_);
  write_started_ = absl::InfiniteFuture();
  if (!ok) write_failed_ = true;
  Pump();
}

void StreamingCall::OnCancel() { AbortByClient(); }

void StreamingCall::OnDone() {
  bool sent;
  {
    MutexLock lock(&mu_);
    sent = !write_failed_ && !rpc_->IsCancelled();
  }
  Record(sent);
  const auto last = std::move(self_);  // may delete *this at the end of the scope
}

}  // namespace lacuna
