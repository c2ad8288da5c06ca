#ifndef LACUNA_SERVER_UNARY_CALL_H_
#define LACUNA_SERVER_UNARY_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>

#include "lacuna/v1/generation.pb.h"
#include "server/generation_call.h"

namespace lacuna {

// Puts the id of a unary call where kRequestIdKey says: among the headers of an answer, or the
// trailers of an error. Before Finish.
void AddRequestId(grpc::CallbackServerContext* rpc, const std::string& id,
                  const absl::Status& status);

// Generate: collects the whole output, then answers.
// Owns itself until OnDone; the engine may hold it for longer.
class UnaryCall final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  // The reactor to return from the method's handler. `response` lives until OnDone.
  static grpc::ServerUnaryReactor* Start(const ServiceContext* context,
                                         grpc::CallbackServerContext* rpc, CallMetadata metadata,
                                         const v1::GenerateRequest& request,
                                         v1::GenerateResponse* response);

  // `rpc` lives until OnDone.
  UnaryCall(const ServiceContext* context, grpc::CallbackServerContext* rpc, CallMetadata metadata,
            v1::GenerateResponse* response)
      : GenerationCall(context, Method::kGenerate, std::move(metadata)),
        rpc_(rpc),
        response_(response) {}

  void OnCancel() override;
  void OnDone() override;
  using GenerationCall::OnDone;

 private:
  bool EmitStarted(v1::Started started) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EmitDelta(v1::Delta delta) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool EmitFinished(v1::Finished finished) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EmitEnd(const absl::Status& status) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  void CutTransport() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { rpc_->TryCancel(); }

  grpc::CallbackServerContext* const rpc_;
  std::shared_ptr<UnaryCall> self_;
  v1::GenerateResponse* const response_ ABSL_PT_GUARDED_BY(mu_);
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_UNARY_CALL_H_
