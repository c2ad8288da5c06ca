#ifndef LACUNA_SERVER_MODEL_REGISTRY_H_
#define LACUNA_SERVER_MODEL_REGISTRY_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/base/mutex.h"
#include "runtime/model/load_model.h"
#include "server/metrics.h"
#include "server/model_host.h"
#include "server/options.h"
#include "server/traffic_metrics.h"

namespace lacuna {

using ModelLoader = std::function<absl::StatusOr<LoadedModel>(const LoadOptions& options)>;

// The models of the server, by name. A model is kept while a lease of it is held. Thread-safe.
class ModelRegistry {
 public:
  // A share in the life of a model: it is not unloaded before all leases are gone.
  using Lease = std::shared_ptr<ModelHost>;

  // `metrics` and `traffic` must outlive the registry.
  ModelRegistry(const ServerOptions& options, ModelLoader loader, Metrics* metrics,
                Traffic* traffic);
  // Stops all engines; leases that are still held must not be used any more.
  ~ModelRegistry();

  // Makes `name` known as loading: Find says UNAVAILABLE, not NOT_FOUND. ALREADY_EXISTS;
  // UNAVAILABLE if draining. `joining`: it joins models that serve, and until it is loaded requests
  // without a name go on to mean them.
  absl::Status Announce(const std::string& name, bool joining);
  // Loads an announced model; blocks, and logs the progress. On failure the name is free again, and
  // no metric shows it.
  absl::Status Load(const ModelSpec& spec);
  // Refuses new requests, waits for running ones, frees the memory. NOT_FOUND;
  // FAILED_PRECONDITION while it loads or another Unload waits; DEADLINE_EXCEEDED if it is in use
  // for longer than `timeout`, CANCELLED if `cancelled`, which is asked now and then, says so: then
  // it is still there, refusing, and Unload may be called again.
  absl::Status Unload(
      const std::string& name, absl::Duration timeout,
      const std::function<bool()>& cancelled = [] { return false; });

  // The model of that name, or the only one if `name` is empty. NOT_FOUND; UNAVAILABLE with
  // RetryInfo while it loads or is unloaded; INVALID_ARGUMENT if the name is empty and there are
  // several.
  absl::StatusOr<Lease> Find(const std::string& name);
  // `name`, or that of the only model if it is empty and there is one.
  std::string Resolve(const std::string& name) const;

  struct Entry {
    std::string name;
    Lease lease;  // null while it loads
  };
  // Those that load, and those that Find finds or that still have requests, though they drain.
  std::vector<Entry> List() const;
  bool IsLoading() const;

  // From now on no model admits requests, and none is loaded.
  void Drain();
  // Waits until no model has anything in flight; false if `timeout` passed first.
  bool WaitIdle(absl::Duration timeout);

 private:
  struct Model;
  // Drains the engine and waits until nothing but `lease` and that of the registry holds `model`,
  // which both are given up; on failure the registry has its own back.
  absl::Status WaitUntilUnused(Model* model, Lease lease, absl::Duration timeout,
                               const std::function<bool()>& cancelled);
  // Those that a request without a name may mean.
  std::vector<std::string> NamesOfUnnamed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ServerOptions options_;
  const ModelLoader loader_;
  Metrics* const metrics_;
  Traffic* const traffic_;
  Mutex load_mu_;  // held while a model is loaded; before mu_
  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<Model>> models_ ABSL_GUARDED_BY(mu_);
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_MODEL_REGISTRY_H_
