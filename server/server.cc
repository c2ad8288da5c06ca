#include "server/server.h"

#include <algorithm>
#include <exception>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/logger.h"

namespace lacuna {
namespace {

// Tokenizing is short, and the engine has threads of its own.
constexpr int kWorkerThreads = 2;
// One, so that Tokenize, which has no limit but the size of its text, leaves a core to the others.
constexpr int kTokenizeThreads = 1;
// More than all places of a usual configuration; beyond it calls are refused.
constexpr size_t kMaxPendingWork = 4096;
// Texts of up to --max_prompt_kb, and the ids of whole messages, wait in memory.
constexpr size_t kMaxPendingTokenize = 64;
// What is left after a second signal.
constexpr absl::Duration kHurriedDrain = absl::Seconds(1);
// How often a drain looks whether it has to hurry.
constexpr absl::Duration kDrainSlice = absl::Milliseconds(50);

// Waits until `done(slice)` says true, or `timeout` or `*hurried` has passed; `done` waits for at
// most `slice`. `*hurried` is set as soon as `hurry()` says true.
bool WaitInSlices(absl::Duration timeout, const std::function<bool()>& hurry, absl::Time* hurried,
                  const std::function<bool(absl::Duration)>& done) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    if (*hurried == absl::InfiniteFuture() && hurry()) *hurried = absl::Now() + kHurriedDrain;
    const absl::Duration left = std::min(deadline, *hurried) - absl::Now();
    if (done(std::clamp(left, absl::ZeroDuration(), kDrainSlice))) return true;
    if (left <= absl::ZeroDuration()) return false;
  }
}

}  // namespace

Server::Server(const ServerOptions& options, ModelLoader loader, std::function<void()> request_stop)
    : options_(options),
      metrics_(options.vllm_metrics),
      traffic_(&metrics_),
      models_(options, std::move(loader), &metrics_, &traffic_),
      workers_(kWorkerThreads, kMaxPendingWork),
      tokenize_worker_(kTokenizeThreads, kMaxPendingTokenize),
      context_{&models_,
               &traffic_,
               &workers_,
               &tokenize_worker_,
               &authenticator_,
               &open_calls_,
               options.default_max_tokens,
               int64_t{options.max_prompt_kb} << 10,
               int64_t{options.stream_buffer_kb} << 10},
      service_(&context_),
      admin_service_(&models_, &authenticator_, options.drain_timeout, std::move(request_stop)) {}

Server::~Server() {
  watchdog_.reset();
  open_calls_.AbortAll(absl::UnavailableError("the server stops"));
  if (rpc_ != nullptr) rpc_->Shutdown(options_.flush_timeout);
  if (admin_rpc_ != nullptr) admin_rpc_->Shutdown(absl::ZeroDuration());
}

absl::Status Server::Start() {
  if (!options_.auth_token_file.empty()) {
    absl::StatusOr<Authenticator> authenticator = Authenticator::FromFile(options_.auth_token_file);
    if (!authenticator.ok()) return authenticator.status();
    authenticator_ = *std::move(authenticator);
  }
  for (const ModelSpec& spec : options_.models) {
    if (absl::Status status = models_.Announce(spec.name, /*joining=*/false); !status.ok())
      return status;
    traffic_.AddModel(spec.name);
    metrics_.model_ready.Add({{"model", spec.name}}).Set(0);
  }
  auto credentials = RpcServer::Credentials(options_);
  if (!credentials.ok()) return credentials.status();
  for (const std::string& address : {options_.listen, options_.admin_listen}) {
    if (address.empty() || IsLoopback(address)) continue;
    if (!options_.tls_client_ca.empty() || authenticator_.required()) continue;
    Log(LogLevel::kWarning, "open_to_everybody",
        {{"listen", address},
         {"message",
          "not a loopback address, and neither tokens nor client certificates are asked for: "
          "whoever reaches it can use it; see --auth_token_file and --tls_client_ca"}});
  }
  auto rpc = RpcServer::Start(options_.listen, *credentials, &service_, /*health=*/true, options_);
  if (!rpc.ok()) return rpc.status();
  rpc_ = *std::move(rpc);
  SetHealth(&Server::ready_, false);
  if (!options_.admin_listen.empty()) {
    auto admin = RpcServer::Start(options_.admin_listen, *credentials, &admin_service_,
                                  /*health=*/false, options_);
    if (!admin.ok()) return admin.status();
    admin_rpc_ = *std::move(admin);
  }
  if (absl::Status status = StartMetrics(); !status.ok()) return status;
  StartWatchdog();
  Log(LogLevel::kInfo, "bound",
      {{"grpc", grpc_address()},
       {"metrics", metrics_address()},
       {"admin", admin_address()},
       {"tls", !options_.tls_cert.empty()},
       {"auth", authenticator_.required()}});
  return absl::OkStatus();
}

void Server::StartWatchdog() {
  // Often enough that a stall is seen at most a quarter late.
  const absl::Duration interval =
      std::clamp(std::min(options_.engine_stall_timeout, options_.write_stall_timeout) / 4,
                 absl::Milliseconds(10), absl::Seconds(1));
  watchdog_ = std::make_unique<EngineWatchdog>(
      options_.engine_stall_timeout, interval,
      [this] { open_calls_.EndStalled(options_.write_stall_timeout); },
      [this] {
        std::vector<EngineProgress> engines;
        for (const ModelRegistry::Entry& entry : models_.List()) {
          if (entry.lease == nullptr) continue;
          const EngineLoad load = entry.lease->scheduler().GetLoad();
          engines.push_back(
              {entry.name, load.running + load.waiting > 0, load.last_step, load.failed_steps});
        }
        return engines;
      },
      [this, alive = true](const std::set<std::string>& stuck) mutable {
        for (const ModelRegistry::Entry& entry : models_.List()) {
          if (entry.lease != nullptr) entry.lease->metrics().SetStalled(stuck.contains(entry.name));
        }
        if (alive == stuck.empty()) return;
        alive = stuck.empty();
        SetHealth(&Server::alive_, alive);
      });
}

absl::Status Server::StartMetrics() {
  if (options_.metrics_listen.empty()) return absl::OkStatus();
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(options_.metrics_listen);
  } catch (const std::exception& error) {  // how prometheus-cpp reports
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options_.metrics_listen, " for metrics: ", error.what()));
  }
  exposer_->RegisterCollectable(metrics_.registry());
  const std::string& address = options_.metrics_listen;
  metrics_address_ =
      absl::StrCat(address.substr(0, address.rfind(':')), ":", exposer_->GetListeningPorts()[0]);
  return absl::OkStatus();
}

absl::Status Server::LoadModels() {
  for (const ModelSpec& spec : options_.models) {
    if (absl::Status status = models_.Load(spec); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("model '", spec.name, "' (", spec.path,
                                                      ") cannot be loaded: ", status.message()));
    }
  }
  SetHealth(&Server::ready_, true);
  return absl::OkStatus();
}

void Server::SetHealth(bool Server::*flag, bool value) {
  MutexLock lock(&health_mu_);
  this->*flag = value;
  const bool ready = ready_ && alive_;
  rpc_->SetServing(kLivenessService, alive_);
  rpc_->SetServing("", ready);
  rpc_->SetServing(v1::GenerationService::service_full_name(), ready);
  rpc_->SetServing(kReadinessService, ready);
}

int Server::Drain(const std::function<bool()>& hurry) {
  Log(LogLevel::kInfo, "draining",
      {{"lead_s", absl::ToDoubleSeconds(options_.drain_lead)},
       {"timeout_s", absl::ToDoubleSeconds(options_.drain_timeout)}});
  SetHealth(&Server::ready_, false);
  absl::Time hurried = absl::InfiniteFuture();
  WaitInSlices(options_.drain_lead, hurry, &hurried, [](absl::Duration slice) {
    absl::SleepFor(slice);
    return false;
  });
  models_.Drain();
  metrics_.draining.Add({}).Set(1);
  // Clients may still read what was generated faster than they read.
  WaitInSlices(options_.drain_timeout, hurry, &hurried, [this](absl::Duration slice) {
    return models_.WaitIdle(slice) && open_calls_.WaitUntilNone(slice) == 0;
  });
  const int cut = open_calls_.AbortAll(absl::UnavailableError("the server stops"));
  // gRPC closes a connection once its client has answered the announcement of that and its calls
  // have ended. If calls ended after the answer, the end of their answers would be lost wherever a
  // client still acknowledges: the kernel resets such a connection.
  const int unsent = open_calls_.WaitUntilNone(options_.flush_timeout);
  rpc_->Shutdown(options_.flush_timeout);
  if (admin_rpc_ != nullptr && !models_.IsLoading()) admin_rpc_->Shutdown(options_.flush_timeout);
  Log(LogLevel::kInfo, "drained", {{"cut_off", cut}, {"unsent", unsent}});
  return cut;
}

}  // namespace lacuna
