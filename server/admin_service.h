#ifndef LACUNA_SERVER_ADMIN_SERVICE_H_
#define LACUNA_SERVER_ADMIN_SERVICE_H_

#include <functional>

#include "absl/time/time.h"
#include "lacuna/v1/admin.grpc.pb.h"
#include "server/authenticator.h"
#include "server/model_registry.h"

namespace lacuna {

// The handlers of lacuna.v1.AdminService. Synchronous: loading blocks for as long as it takes, on
// threads of the admin listener's own server.
class AdminService final : public v1::AdminService::Service {
 public:
  // `models` and `authenticator` are borrowed. `request_drain` must return at once.
  AdminService(ModelRegistry* models, const Authenticator* authenticator,
               absl::Duration unload_timeout, std::function<void()> request_drain)
      : models_(models),
        authenticator_(authenticator),
        unload_timeout_(unload_timeout),
        request_drain_(std::move(request_drain)) {}

  grpc::Status LoadModel(grpc::ServerContext* rpc, const v1::LoadModelRequest* request,
                         v1::LoadModelResponse* response) override;
  grpc::Status UnloadModel(grpc::ServerContext* rpc, const v1::UnloadModelRequest* request,
                           v1::UnloadModelResponse* response) override;
  grpc::Status Drain(grpc::ServerContext* rpc, const v1::DrainRequest* request,
                     v1::DrainResponse* response) override;

 private:
  absl::Status Authenticate(const grpc::ServerContext& rpc) const;
  absl::Status Load(const grpc::ServerContext& rpc, const v1::LoadModelRequest& request);
  absl::Status Unload(const grpc::ServerContext& rpc, const v1::UnloadModelRequest& request);

  ModelRegistry* const models_;
  const Authenticator* const authenticator_;
  const absl::Duration unload_timeout_;
  const std::function<void()> request_drain_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_ADMIN_SERVICE_H_
