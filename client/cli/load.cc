#include <unistd.h>

#include <memory>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cli/commands.h"
#include "client/cli/options.h"
#include "client/cli/output.h"
#include "client/cli/signal_watcher.h"
#include "client/client.h"
#include "client/load/load_runner.h"
#include "client/load/trace.h"

namespace lacuna {
namespace {

constexpr int kMaxConcurrency = 4096;  // one thread each
constexpr uint64_t kDefaultRequests = 100;

struct LoadCommandOptions {
  LoadOptions load;
  std::string model, trace_file, prompt_file;
  std::optional<int> concurrency;
  std::optional<uint64_t> requests;
  std::optional<double> slo_ttft_ms, slo_tpot_ms;
  bool json = false;
};

std::optional<absl::Duration> Milliseconds(const std::optional<double>& ms) {
  if (!ms.has_value()) return std::nullopt;
  return absl::Milliseconds(*ms);
}

// Fills in what depends on several options or on files.
absl::StatusOr<LoadOptions> MakeLoadOptions(const LoadCommandOptions& options) {
  LoadOptions load = options.load;
  const bool open_loop = load.arrivals.rate_per_s > 0 || !options.trace_file.empty();
  load.concurrency = options.concurrency.value_or(open_loop ? 256 : 1);
  const bool bounded =
      !options.trace_file.empty() || load.arrivals.max_due != absl::InfiniteDuration();
  load.arrivals.max_requests = options.requests.value_or(bounded ? 0 : kDefaultRequests);
  if (!options.trace_file.empty()) {
    const absl::StatusOr<std::string> csv = ReadTextFile(options.trace_file);
    if (!csv.ok()) return csv.status();
    auto trace = ParseTrace(*csv);
    if (!trace.ok()) return trace.status();
    load.arrivals.trace = *std::move(trace);
  }
  if (!options.prompt_file.empty()) {
    const absl::StatusOr<std::string> text = ReadTextFile(options.prompt_file);
    if (!text.ok()) return text.status();
    load.prompts = absl::StrSplit(*text, '\n', absl::SkipWhitespace());
    if (load.prompts.empty()) {
      return absl::InvalidArgumentError(options.prompt_file + " has no prompts");
    }
  }
  return load;
}

void ShowProgress(const LoadRunner::Progress& progress, uint64_t requests) {
  const double seconds = absl::ToDoubleSeconds(progress.elapsed);
  WriteStderr(absl::StrFormat("\r\033[K%.1f s: %d%s done, %d failed, %d running, %.1f tokens/s",
                              seconds, progress.ok + progress.failed,
                              requests == 0 ? "" : absl::StrFormat(" of %d", requests),
                              progress.failed, progress.running,
                              static_cast<double>(progress.completion_tokens) / seconds));
}

int Run(const LoadCommandOptions& options) {
  const auto load = MakeLoadOptions(options);
  if (!load.ok()) return FailUsage(load.status());

  absl::Mutex mu;
  LoadRunner* running = nullptr;
  SignalWatcher interrupt([&] {
    absl::MutexLock lock(&mu);
    if (running == nullptr) _exit(kExitFailure);
    running->Stop();
  });
  const auto client = Client::Connect(load->connection);
  if (!client.ok()) return FailUsage(client.status());
  const auto model = (*client)->GetModel(options.model);
  if (!model.ok()) return Fail(model.status());
  auto runner = LoadRunner::Start(*load, *model);
  if (!runner.ok()) return FailUsage(runner.status());
  {
    absl::MutexLock lock(&mu);
    running = runner->get();
  }
  const bool terminal = isatty(STDERR_FILENO) == 1;
  const uint64_t requests =
      load->arrivals.trace.empty() ? load->arrivals.max_requests : load->arrivals.trace.size();
  while (!(*runner)->WaitFor(absl::Milliseconds(500))) {
    if (terminal) ShowProgress((*runner)->progress(), requests);
  }
  if (terminal) WriteStderr("\r\033[K");
  const LoadReport report = (*runner)->Report(
      {.ttft = Milliseconds(options.slo_ttft_ms), .tpot = Milliseconds(options.slo_tpot_ms)});
  {
    absl::MutexLock lock(&mu);
    running = nullptr;
  }
  if (!WriteStdout(options.json ? ToJson(report) + "\n" : ToText(report))) return kExitFailure;
  return report.ok > 0 ? kExitOk : kExitFailure;
}

}  // namespace

void AddLoadCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<LoadCommandOptions>();
  LoadOptions& load = options->load;
  CLI::App* command = app->add_subcommand("load", "Put load on a server and measure it");

  constexpr char kArrivals[] = "Arrivals";
  command
      ->add_option("--concurrency", options->concurrency,
                   "Streams at a time: the next request leaves when one ends, default 1;\nwith "
                   "--rate or --trace the most that may overlap, default 256")
      ->check(CLI::Range(1, kMaxConcurrency).description(""))
      ->group(kArrivals);
  auto* rate = command
                   ->add_option("--rate", load.arrivals.rate_per_s,
                                "Requests per second on average, Poisson arrivals")
                   ->check(CLI::Range(1e-6, 1e6).description(""))
                   ->group(kArrivals);
  auto* trace = command
                    ->add_option("--trace", options->trace_file,
                                 "Replay a CSV: TIMESTAMP,ContextTokens,GeneratedTokens")
                    ->type_name("FILE")
                    ->excludes(rate)
                    ->group(kArrivals);
  command->add_option("--trace_speed", load.arrivals.trace_speed, "Replay this many times faster")
      ->check(CLI::Range(1e-6, 1e6).description(""))
      ->needs(trace)
      ->group(kArrivals);
  command
      ->add_option("--requests", options->requests,
                   "End after this many; default 100 unless --duration or --trace ends the test")
      ->check(CLI::PositiveNumber)
      ->group(kArrivals);
  AddDurationOption(command, "--duration", &load.arrivals.max_due,
                    "Send nothing new after this time")
      ->group(kArrivals);
  command->add_option("--seed", load.arrivals.seed, "Of arrival times and random prompts")
      ->check(Uint64())
      ->capture_default_str()
      ->group(kArrivals);

  constexpr char kRequests[] = "Requests";
  command->add_option("--model", options->model, "May be left out if there is one")
      ->check(Utf8())
      ->group(kRequests);
  auto* prompt_tokens = command
                            ->add_option("--prompt_tokens", load.arrivals.prompt_tokens,
                                         "Length of the prompts, which are random tokens")
                            ->check(CLI::PositiveNumber)
                            ->capture_default_str()
                            ->group(kRequests);
  command->add_option("--prompt_file", options->prompt_file, "Prompts to use in turn, one a line")
      ->type_name("FILE")
      ->excludes(prompt_tokens)
      ->group(kRequests);
  command->add_option("--max_tokens", load.arrivals.max_tokens, "Tokens to generate for each")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(kRequests);
  command
      ->add_flag("--stop_at_eos", load.stop_at_eos,
                 "End where the model ends, instead of always after --max_tokens")
      ->group(kRequests);
  command->add_option("--temperature", load.temperature, "0 to 2; 0 is greedy")
      ->capture_default_str()
      ->group(kRequests);

  constexpr char kReport[] = "Report";
  command->add_option("--slo_ttft_ms", options->slo_ttft_ms, "Objective: time to first token")
      ->check(CLI::PositiveNumber)
      ->group(kReport);
  command->add_option("--slo_tpot_ms", options->slo_tpot_ms, "Objective: time per output token")
      ->check(CLI::PositiveNumber)
      ->group(kReport);
  command->add_flag("--json", options->json, "The report as one JSON object")->group(kReport);
  AddConnectionOptions(command, &load.connection);
  command->footer(
      "Prints times to first token, per output token and end to end, throughput, goodput\n"
      "(requests per second that met the objectives) and errors by code. With --rate and\n"
      "--trace times count from when a request was due, so that a server that falls behind\n"
      "shows. Requests that exceed the model's context are cut, and counted. Ctrl-C ends\n"
      "early, with the report. A client on the server's own cores slows what it measures: pin\n"
      "them apart.\n"
      "Exit code 1 if no request ended with OK.\n"
      "\n"
      "Examples:\n"
      "  lacuna load --concurrency=16 --requests=200\n"
      "  lacuna load --rate=5 --duration=60s --slo_ttft_ms=500 --slo_tpot_ms=50 --json\n"
      "  lacuna load --trace=AzureLLMInferenceTrace_conv.csv --trace_speed=10 --duration=5m");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
