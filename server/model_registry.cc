#include "server/model_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "proto/status.h"
#include "runtime/model/activation_name.h"
#include "server/logger.h"

namespace lacuna {
namespace {

// Between two progress lines of a load.
constexpr absl::Duration kProgressInterval = absl::Seconds(2);
// Advice to clients: loading takes seconds to minutes.
constexpr absl::Duration kRetryWhileLoading = absl::Seconds(5);

void LogLoaded(const ModelHost& host, double seconds) {
  const ModelConfig& config = host.model().config();
  const ModelFacts& facts = host.model().facts();
  Log(LogLevel::kInfo, "model_loaded",
      {{"model", host.name()},
       {"architecture", config.architecture},
       {"activation", ActivationName(config.activation)},
       {"sparse", config.activation.has_zeros()},
       {"parameters", facts.parameters},
       {"weights", facts.weights},
       {"weight_bytes", facts.weight_bytes},
       {"predictor", facts.has_predictor},
       {"device", facts.device},
       {"isa", facts.isa},
       {"threads", facts.threads},
       {"context", config.max_context},
       {"kv_blocks", host.kv_cache().num_blocks()},
       {"seconds", seconds}});
  for (const std::string& warning : host.warnings()) {
    Log(LogLevel::kWarning, "model_warning", {{"model", host.name()}, {"message", warning}});
  }
}

}  // namespace

struct ModelRegistry::Model {
  std::unique_ptr<ModelHost> host;  // null while it loads, and when it is unloaded
  bool unloading = false;           // an Unload waits for it
  bool unloaded = false;            // all but the entry itself is gone
  // Null while it loads, and at the end of an Unload. It does not own the host: when all copies
  // are gone it notifies `released`, which is what Unload waits for.
  Lease lease;
  // Announced while the server ran: requests without a name do not mean it before it is loaded.
  bool joining = false;
  std::shared_ptr<absl::Notification> released = std::make_shared<absl::Notification>();

  bool loading() const { return host == nullptr && !unloaded; }
};

ModelRegistry::ModelRegistry(const ServerOptions& options, ModelLoader loader, Metrics* metrics,
                             Traffic* traffic)
    : options_(options), loader_(std::move(loader)), metrics_(metrics), traffic_(traffic) {}

ModelRegistry::~ModelRegistry() = default;

absl::Status ModelRegistry::Announce(const std::string& name, bool joining) {
  MutexLock lock(&mu_);
  if (draining_) return absl::UnavailableError("the server is draining");
  const auto [it, added] = models_.emplace(name, std::make_shared<Model>());
  if (!added) return absl::AlreadyExistsError(absl::StrCat("model '", name, "' is already there"));
  it->second->joining = joining;
  return absl::OkStatus();
}

absl::Status ModelRegistry::Load(const ModelSpec& spec) {
  // One after the other: each asks first whether there is enough memory.
  MutexLock one_load(&load_mu_);
  const absl::Time start = absl::Now();
  LoadOptions load;
  load.path = spec.path;
  load.weights = options_.weights;
  load.activation = spec.activation;
  load.device = options_.device;
  load.threads = options_.threads;
  load.predictor = options_.predictor;
  load.predictor_recall = options_.predictor_recall;
  load.progress = [&spec, next = start + kProgressInterval](double share) mutable {
    if (absl::Now() < next) return;
    next = absl::Now() + kProgressInterval;
    Log(LogLevel::kInfo, "model_loading", {{"model", spec.name}, {"progress", share}});
  };
  const auto create = [&]() -> absl::StatusOr<std::unique_ptr<ModelHost>> {
    {
      MutexLock lock(&mu_);
      if (draining_) return absl::UnavailableError("the server is draining");
    }
    Log(LogLevel::kInfo, "model_loading", {{"model", spec.name}, {"path", spec.path}});
    absl::StatusOr<LoadedModel> loaded = loader_(load);
    if (!loaded.ok()) return loaded.status();
    return ModelHost::Create(spec.name, *std::move(loaded), options_, metrics_);
  };
  absl::StatusOr<std::unique_ptr<ModelHost>> host = create();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  if (host.ok()) LogLoaded(**host, seconds);
  MutexLock lock(&mu_);
  if (!host.ok()) {
    models_.erase(spec.name);
    return host.status();
  }
  Model& model = *models_.at(spec.name);
  model.host = *std::move(host);
  model.lease =
      Lease(model.host.get(), [released = model.released](ModelHost*) { released->Notify(); });
  model.joining = false;
  if (draining_) model.host->scheduler().Drain();
  traffic_->AddModel(spec.name);
  metrics_->model_load_seconds.Add({{"model", spec.name}}).Set(seconds);
  metrics_->model_ready.Add({{"model", spec.name}}).Set(1);
  return absl::OkStatus();
}

absl::Status ModelRegistry::Unload(const std::string& name, absl::Duration timeout,
                                   const std::function<bool()>& cancelled) {
  std::shared_ptr<Model> model;
  Lease lease;
  {
    MutexLock lock(&mu_);
    const auto it = models_.find(name);
    if (it == models_.end()) {
      return absl::NotFoundError(absl::StrCat("there is no model '", name, "'"));
    }
    if (it->second->lease == nullptr || it->second->unloading) {
      return absl::FailedPreconditionError(
          absl::StrCat("model '", name, "' is being loaded or unloaded"));
    }
    model = it->second;
    lease = model->lease;
    model->unloading = true;
    metrics_->model_ready.Add({{"model", name}}).Set(0);
  }
  const absl::Status unused = WaitUntilUnused(model.get(), std::move(lease), timeout, cancelled);
  std::unique_ptr<ModelHost> host;
  {
    MutexLock lock(&mu_);
    model->unloading = false;
    if (!unused.ok()) {
      return absl::Status(unused.code(), absl::StrCat("model '", name, "' ", unused.message()));
    }
    host = std::move(model->host);
    model->unloaded = true;
  }
  // Without the lock, as memory takes time to give back, but while the name is taken: a model that
  // is loaded under it has series of the same labels.
  host.reset();
  {
    MutexLock lock(&mu_);
    models_.erase(name);
    // Nobody misses a model that was unloaded on purpose.
    metrics_->model_ready.Remove(&metrics_->model_ready.Add({{"model", name}}));
    metrics_->model_load_seconds.Remove(&metrics_->model_load_seconds.Add({{"model", name}}));
  }
  Log(LogLevel::kInfo, "model_unloaded", {{"model", name}});
  return absl::OkStatus();
}

absl::Status ModelRegistry::WaitUntilUnused(Model* model, Lease lease, absl::Duration timeout,
                                            const std::function<bool()>& cancelled) {
  const absl::Time deadline = absl::Now() + timeout;
  // Waits in slices, to notice that nobody wants it any more.
  const auto wait = [&](const std::function<bool(absl::Duration)>& wait_for) {
    for (;;) {
      const absl::Duration left = deadline - absl::Now();
      if (wait_for(std::min(left, absl::Milliseconds(100)))) return absl::OkStatus();
      if (cancelled()) {
        return absl::CancelledError(
            "is still in use, but the call was cancelled; it admits no new requests");
      }
      if (left <= absl::Milliseconds(100)) {
        return absl::DeadlineExceededError(absl::StrCat("is still in use after ",
                                                        absl::FormatDuration(timeout),
                                                        "; it admits no new requests"));
      }
    }
  };
  lease->scheduler().Drain();
  absl::Status status =
      wait([&](absl::Duration slice) { return lease->scheduler().WaitIdle(slice); });
  if (!status.ok()) return status;
  // The engine is done; what may still hold a lease is a Tokenize call, or one that looks around.
  const std::weak_ptr<ModelHost> others = lease;
  {
    MutexLock lock(&mu_);
    lease.reset();
    model->lease.reset();
  }
  status = wait(
      [&](absl::Duration slice) { return model->released->WaitForNotificationWithTimeout(slice); });
  if (status.ok()) return status;
  MutexLock lock(&mu_);
  model->lease = others.lock();  // null: released just now
  return model->lease == nullptr ? absl::OkStatus() : status;
}

absl::StatusOr<ModelRegistry::Lease> ModelRegistry::Find(const std::string& name) {
  MutexLock lock(&mu_);
  const auto unnamed = name.empty() ? NamesOfUnnamed() : std::vector<std::string>();
  if (unnamed.size() > 1) {
    return InvalidFields(
        {{"model", absl::StrCat("is needed: the server has ", unnamed.size(), " models")}});
  }
  const auto it = models_.find(unnamed.empty() ? name : unnamed[0]);
  if (it == models_.end()) {
    return absl::NotFoundError(name.empty() ? "the server has no model"
                                            : absl::StrCat("there is no model '", name, "'"));
  }
  Lease lease = it->second->lease;
  if (lease == nullptr) {
    return WithRetryAfter(
        absl::UnavailableError(absl::StrCat(
            "model '", it->first, it->second->loading() ? "' is loading" : "' is unloaded")),
        kRetryWhileLoading);
  }
  return lease;
}

std::string ModelRegistry::Resolve(const std::string& name) const {
  MutexLock lock(&mu_);
  const auto unnamed = name.empty() ? NamesOfUnnamed() : std::vector<std::string>();
  return unnamed.size() == 1 ? unnamed[0] : name;
}

std::vector<std::string> ModelRegistry::NamesOfUnnamed() const {
  std::vector<std::string> names;
  for (const auto& [name, model] : models_) {
    if (!model->joining) names.push_back(name);
  }
  return names;
}

std::vector<ModelRegistry::Entry> ModelRegistry::List() const {
  MutexLock lock(&mu_);
  std::vector<Entry> entries;
  for (const auto& [name, model] : models_) {
    if (model->loading() || model->lease != nullptr) {
      entries.push_back({name, model->lease});
    }
  }
  return entries;
}

bool ModelRegistry::IsLoading() const {
  MutexLock lock(&mu_);
  for (const auto& [name, model] : models_) {
    if (model->loading()) return true;
  }
  return false;
}

void ModelRegistry::Drain() {
  MutexLock lock(&mu_);
  draining_ = true;
  for (const auto& [name, model] : models_) {
    if (model->host != nullptr) model->host->scheduler().Drain();
  }
}

bool ModelRegistry::WaitIdle(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  bool idle = true;
  for (const Entry& entry : List()) {
    if (entry.lease == nullptr) continue;
    idle = entry.lease->scheduler().WaitIdle(deadline - absl::Now()) && idle;
  }
  return idle;
}

}  // namespace lacuna
