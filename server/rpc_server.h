#ifndef LACUNA_SERVER_RPC_SERVER_H_
#define LACUNA_SERVER_RPC_SERVER_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/options.h"

namespace lacuna {

// One gRPC listener, hardened alike for every service of this process: limits on messages,
// metadata, streams and memory, keepalive, no compression, no shared ports.
class RpcServer {
 public:
  // TLS as the options say, else plaintext. NOT_FOUND if a PEM file cannot be read,
  // INVALID_ARGUMENT if it is not what it should be.
  static absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(
      const ServerOptions& options);

  // Binds `address` (HOST:PORT) and serves `service`, which must outlive this object. Of the
  // options it takes those of connections. UNAVAILABLE if the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const std::string& address, const std::shared_ptr<grpc::ServerCredentials>& credentials,
      grpc::Service* service, bool health, const ServerOptions& options);

  // HOST:PORT, with the port that was chosen if 0 was asked for.
  const std::string& address() const { return address_; }
  // Sets a service of grpc.health.v1.
  void SetServing(const std::string& service, bool serving);
  // Takes no more calls, waits for those that run, cancels them after `timeout`. Blocks.
  void Shutdown(absl::Duration timeout);
  // For tests.
  grpc::Server* grpc_server() { return server_.get(); }

 private:
  RpcServer() = default;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_RPC_SERVER_H_
