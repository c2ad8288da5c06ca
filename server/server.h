#ifndef LACUNA_SERVER_SERVER_H_
#define LACUNA_SERVER_SERVER_H_

#include <prometheus/exposer.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/admin_service.h"
#include "server/authenticator.h"
#include "server/engine_watchdog.h"
#include "server/generation_call.h"
#include "server/generation_service.h"
#include "server/metrics.h"
#include "server/model_registry.h"
#include "server/options.h"
#include "server/rpc_server.h"
#include "server/traffic_metrics.h"
#include "server/worker_pool.h"

namespace lacuna {

// The whole service: listeners, models, metrics. In order: Start, LoadModels, Drain; the
// destructor stops whatever still runs. Thread-safe where said.
class Server {
 public:
  // `request_stop` is called when an administrator asks for a drain; it must return at once and
  // lead to a call of Drain by the owner.
  Server(const ServerOptions& options, ModelLoader loader, std::function<void()> request_stop);
  ~Server();

  // Binds the listeners: health says alive and not ready, Generate says UNAVAILABLE.
  // INVALID_ARGUMENT or NOT_FOUND: files that the options name cannot be read or used; UNAVAILABLE:
  // an address cannot be bound.
  absl::Status Start();
  // Loads the configured models one after the other, then becomes ready. Blocks.
  absl::Status LoadModels();
  // Not ready any more; waits for the drain lead; refuses new requests; waits for running ones
  // until the drain timeout and then ends them with UNAVAILABLE; closes the listeners, but that of
  // the administrator if a model is still loading, which cannot be interrupted. `hurry` is
  // asked now and then: once it says true, requests have at most one second left. What is sent to
  // clients that take it then has twice the flush timeout more.
  // Returns the number of requests that did not finish by themselves.
  int Drain(const std::function<bool()>& hurry);

  // HOST:PORT after Start; empty if off.
  const std::string& grpc_address() const { return rpc_->address(); }
  const std::string& metrics_address() const { return metrics_address_; }
  std::string admin_address() const { return admin_rpc_ ? admin_rpc_->address() : ""; }

  // For tests.
  ModelRegistry& models() { return models_; }
  Metrics& metrics() { return metrics_; }
  RpcServer& rpc() { return *rpc_; }

 private:
  absl::Status StartMetrics();
  void StartWatchdog();
  // Changes one of the flags below and tells the health service.
  void SetHealth(bool Server::*flag, bool value);

  const ServerOptions options_;
  // Destroyed in reverse order: calls end with the listeners, before what they use.
  Metrics metrics_;
  Traffic traffic_;
  Authenticator authenticator_;
  ModelRegistry models_;
  OpenCalls open_calls_;
  WorkerPool workers_;
  WorkerPool tokenize_worker_;
  ServiceContext context_;
  GenerationService service_;
  AdminService admin_service_;
  std::string metrics_address_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<RpcServer> admin_rpc_;
  Mutex health_mu_;
  bool ready_ ABSL_GUARDED_BY(health_mu_) = false;  // loaded, and not about to stop
  bool alive_ ABSL_GUARDED_BY(health_mu_) = true;   // no engine is stalled
  std::unique_ptr<EngineWatchdog> watchdog_;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_SERVER_H_
