#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "runtime/model/load_model.h"
#include "server/inspection.h"
#include "server/logger.h"
#include "server/options.h"
#include "server/server.h"
#include "server/stop_signals.h"

namespace lacuna {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr int kExitModel = 3;

// Ends the process without destructors, which would wait for what cannot be interrupted: the load
// of a model, and the poll of the metrics listener, two seconds long. Nothing is left to save.
[[noreturn]] void Exit(int code) {
  std::fflush(nullptr);
  _exit(code);
}

int Fail(int code, const absl::Status& status) {
  Log(LogLevel::kError, "failed",
      {{"exit_code", code}, {"message", std::string(status.message())}});
  return code;
}

// For Server::Start: what the options name cannot be used, or the machine refuses.
int ExitCode(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? kExitUsage : kExitFailure;
}

int Main(const std::vector<std::string>& args) {
  absl::StatusOr<std::optional<ServerOptions>> options = ParseServerOptions(
      args, [](const char* name) { return std::getenv(name); }, &std::cout);
  if (absl::IsNotFound(options.status())) return Fail(kExitModel, options.status());
  if (!options.ok()) {
    std::fprintf(stderr, "lacuna-server: %s\nTry lacuna-server --help.\n",
                 std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  if (!options->has_value()) return kExitOk;

  if ((*options)->inspect != InspectMode::kOff) {
    return PrintInspections(**options, std::cout, std::cerr) ? kExitOk : kExitModel;
  }

  StopSignals stop;
  Server server(**options, LoadModel, [&stop] { stop.Request(); });
  if (absl::Status status = server.Start(); !status.ok()) Exit(Fail(ExitCode(status), status));

  absl::Status loaded;
  std::atomic<bool> loading_ended = false;
  std::thread loading([&] {
    loaded = server.LoadModels();
    loading_ended = true;
    stop.Wake();
  });
  stop.Wait();
  // Models that have loaded serve while others load.
  const auto drain = [&] { server.Drain([&stop] { return stop.signals() > 1; }); };
  if (!loading_ended) {
    // Asked to stop while loading, which cannot be interrupted.
    Log(LogLevel::kInfo, "stopped_while_loading");
    drain();
    Exit(kExitOk);
  }
  loading.join();
  if (!loaded.ok()) {
    drain();
    Exit(Fail(kExitModel, loaded));  // the reason is the last line of the log
  }

  std::printf("listening grpc=%s metrics=%s\n", server.grpc_address().c_str(),
              server.metrics_address().c_str());
  std::fflush(stdout);
  stop.Wait();
  drain();
  Exit(kExitOk);
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) {
  return lacuna::Main(std::vector<std::string>(argv + 1, argv + argc));
}
