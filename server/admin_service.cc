#include "server/admin_service.h"

#include <algorithm>
#include <climits>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "proto/status.h"
#include "runtime/model/activation_name.h"
#include "server/logger.h"
#include "server/options.h"

namespace lacuna {
namespace {

// What a caller says is logged only if the administrator may have said it.
void LogOutcome(const char* event, const std::string& model, const absl::Status& status,
                const std::string& path = "") {
  nlohmann::ordered_json line;
  const bool said = status.code() != absl::StatusCode::kUnauthenticated && IsModelName(model);
  if (said) {
    line["model"] = model;
    if (!path.empty()) line["path"] = path.substr(0, PATH_MAX);
  }
  line["code"] = std::string(StatusCodeName(status.code()));
  if (!status.ok() && said) line["message"] = std::string(status.message());
  Log(status.ok() ? LogLevel::kInfo : LogLevel::kWarning, event, line);
}

}  // namespace

absl::Status AdminService::Authenticate(const grpc::ServerContext& rpc) const {
  const auto it = rpc.client_metadata().find("authorization");
  return authenticator_->Check(it == rpc.client_metadata().end()
                                   ? std::string_view()
                                   : std::string_view(it->second.data(), it->second.size()));
}

absl::Status AdminService::Load(const grpc::ServerContext& rpc,
                                const v1::LoadModelRequest& request) {
  if (absl::Status status = Authenticate(rpc); !status.ok()) return status;
  if (!IsModelName(request.name())) {
    return InvalidFields({{"name", "must be 1 to 64 of [A-Za-z0-9._-], without a leading dot"}});
  }
  std::error_code ignored;
  const std::filesystem::file_status file = std::filesystem::status(request.path(), ignored);
  if (!std::filesystem::is_directory(file) && !std::filesystem::is_regular_file(file)) {
    return InvalidFields({{"path", "is no directory and no file on the server"}});
  }
  if (!request.activation().empty()) {
    const absl::Status status = ParseActivation(request.activation()).status();
    if (!status.ok()) return InvalidFields({{"activation", std::string(status.message())}});
  }
  if (absl::Status status = models_->Announce(request.name(), /*joining=*/true); !status.ok())
    return status;
  return models_->Load({request.name(), request.path(), request.activation()});
}

absl::Status AdminService::Unload(const grpc::ServerContext& rpc,
                                  const v1::UnloadModelRequest& request) {
  if (absl::Status status = Authenticate(rpc); !status.ok()) return status;
  const absl::Duration left = absl::FromChrono(rpc.deadline()) - absl::Now();
  return models_->Unload(request.name(), std::min(left, unload_timeout_),
                         [&rpc] { return rpc.IsCancelled(); });
}

grpc::Status AdminService::LoadModel(grpc::ServerContext* rpc, const v1::LoadModelRequest* request,
                                     v1::LoadModelResponse*) {
  const absl::Status status = Load(*rpc, *request);
  LogOutcome("admin_load", request->name(), status, request->path());
  return ToGrpcStatus(status);
}

grpc::Status AdminService::UnloadModel(grpc::ServerContext* rpc,
                                       const v1::UnloadModelRequest* request,
                                       v1::UnloadModelResponse*) {
  const absl::Status status = Unload(*rpc, *request);
  LogOutcome("admin_unload", request->name(), status);
  return ToGrpcStatus(status);
}

grpc::Status AdminService::Drain(grpc::ServerContext* rpc, const v1::DrainRequest*,
                                 v1::DrainResponse*) {
  const absl::Status status = Authenticate(*rpc);
  if (status.ok()) request_drain_();
  Log(LogLevel::kInfo, "admin_drain", {{"code", std::string(StatusCodeName(status.code()))}});
  return ToGrpcStatus(status);
}

}  // namespace lacuna
