#ifndef LACUNA_SERVER_GENERATION_SERVICE_H_
#define LACUNA_SERVER_GENERATION_SERVICE_H_

#include "lacuna/v1/generation.grpc.pb.h"
#include "server/generation_call.h"

namespace lacuna {

// The handlers of lacuna.v1.GenerationService. They return at once: the callback API has only a
// few threads for all calls, so work that takes time happens on the workers or the engine.
class GenerationService final : public v1::GenerationService::CallbackService {
 public:
  // `context` is borrowed and must outlive the server.
  explicit GenerationService(const ServiceContext* context) : context_(context) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* rpc,
                                     const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override;
  grpc::ServerWriteReactor<v1::GenerateStreamResponse>* GenerateStream(
      grpc::CallbackServerContext* rpc, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* rpc,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* rpc,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* rpc,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* rpc,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* rpc,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;

 private:
  const ServiceContext* const context_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_GENERATION_SERVICE_H_
