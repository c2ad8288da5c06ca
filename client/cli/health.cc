#include <memory>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/options.h"
#include "client/cli/output.h"
#include "client/cli/signal_watcher.h"
#include "client/client.h"

namespace lacuna {
namespace {

struct HealthOptions {
  ClientOptions connection{.timeout = absl::Seconds(5)};
  std::string service;
  bool watch = false;
};

int Watch(const HealthOptions& options) {
  Cancellation cancellation;
  SignalWatcher interrupt([&] { cancellation.Cancel(); });
  ClientOptions connection = options.connection;
  connection.timeout = absl::InfiniteDuration();
  const auto client = Client::Connect(connection);
  if (!client.ok()) return FailUsage(client.status());
  ServingStatus last = ServingStatus::kUnknown;
  const absl::Status status = (*client)->WatchHealth(
      options.service,
      [&](ServingStatus now) {
        last = now;
        return WriteStdout(
            absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()),
                         " ", ServingStatusName(now), "\n"));
      },
      &cancellation);
  if (!status.ok() && !cancellation.cancelled()) return Fail(status);
  return last == ServingStatus::kServing ? kExitOk : kExitFailure;
}

int Run(const HealthOptions& options) {
  if (options.watch) return Watch(options);
  const auto client = Client::Connect(options.connection);
  if (!client.ok()) return FailUsage(client.status());
  const auto status = (*client)->CheckHealth(options.service);
  if (!status.ok()) return Fail(status.status());
  if (!WriteStdout(absl::StrCat(ServingStatusName(*status), "\n"))) return kExitFailure;
  return *status == ServingStatus::kServing ? kExitOk : kExitFailure;
}

}  // namespace

void AddHealthCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<HealthOptions>();
  CLI::App* command = app->add_subcommand("health", "Say whether the server serves");
  command
      ->add_option(
          "--service", options->service,
          "lacuna.v1.GenerationService, liveness or readiness;\nthe server as a whole if left out")
      ->check(Utf8());
  command->add_flag("--watch", options->watch, "Print each change until Ctrl-C; no --timeout");
  AddConnectionOptions(command, &options->connection);
  command->footer(
      "Exit code 0 only if the answer (with --watch: the last one) is SERVING.\n"
      "\n"
      "Examples:\n"
      "  until lacuna health; do sleep 1; done\n"
      "  lacuna health --service=liveness --timeout=2s\n"
      "  lacuna health --watch");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
