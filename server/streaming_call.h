#ifndef LACUNA_SERVER_STREAMING_CALL_H_
#define LACUNA_SERVER_STREAMING_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>

#include "lacuna/v1/generation.pb.h"
#include "server/generation_call.h"

namespace lacuna {

// GenerateStream: one write in flight, the rest in a bounded buffer. The gRPC status follows when
// the buffer is empty, or at once after the write in flight if the call failed.
// Owns itself until OnDone; the engine may hold it for longer.
class StreamingCall final : public grpc::ServerWriteReactor<v1::GenerateStreamResponse>,
                            public GenerationCall {
 public:
  // The reactor to return from the method's handler.
  static grpc::ServerWriteReactor<v1::GenerateStreamResponse>* Start(
      const ServiceContext* context, grpc::CallbackServerContext* rpc, CallMetadata metadata,
      const v1::GenerateRequest& request);

  // `rpc` lives until OnDone.
  StreamingCall(const ServiceContext* context, grpc::CallbackServerContext* rpc,
                CallMetadata metadata)
      : GenerationCall(context, Method::kGenerateStream, std::move(metadata)),
        rpc_(rpc),
        buffer_bytes_(context->stream_buffer_bytes) {}

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  using GenerationCall::OnDone;

 private:
  bool EmitStarted(v1::Started started) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EmitDelta(v1::Delta delta) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EmitFinished(v1::Finished finished) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EmitEnd(const absl::Status& status) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CutTransport() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { rpc_->TryCancel(); }
  bool Push(v1::GenerateStreamResponse message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Starts the next write, or Finish if there is nothing left to write.
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  grpc::CallbackServerContext* const rpc_;
  const int64_t buffer_bytes_;
  std::shared_ptr<StreamingCall> self_;
  std::deque<v1::GenerateStreamResponse> pending_ ABSL_GUARDED_BY(mu_);
  int64_t pending_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  v1::GenerateStreamResponse writing_ ABSL_GUARDED_BY(mu_);  // must outlive the write
  bool has_written_ ABSL_GUARDED_BY(mu_) = false;
  bool write_failed_ ABSL_GUARDED_BY(mu_) = false;
  bool end_ ABSL_GUARDED_BY(mu_) = false;  // EmitEnd was called
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_STREAMING_CALL_H_
