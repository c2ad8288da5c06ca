#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/choice_printer.h"
#include "client/cli/commands.h"
#include "client/cli/options.h"
#include "client/cli/output.h"
#include "client/cli/signal_watcher.h"
#include "client/cli/stats.h"
#include "client/client.h"
#include "client/describe_error.h"

namespace lacuna {
namespace {

struct GenerateOptions {
  ClientOptions connection;
  PromptOptions prompt;
  SamplingOptions sampling;
  std::optional<uint32_t> n, logprobs;
  std::optional<int32_t> priority;
  std::string request_id;
  bool stats = false;
  bool json = false;
};

std::string LogprobLine(const v1::TokenLogprobs& token) {
  const auto format = [](const v1::Logprob& l) {
    return absl::StrFormat("%9.4f %s", l.logprob(), nlohmann::json(l.text()).dump());
  };
  return absl::StrCat(format(token.token()), token.top().empty() ? "" : "   of:",
                      absl::StrJoin(token.top(), ",", [&](std::string* out, const v1::Logprob& l) {
                        absl::StrAppend(out, format(l));
                      }));
}

int RunJson(const GenerateOptions& options, const v1::GenerateRequest& request, Client* client,
            Cancellation* cancellation) {
  const auto response = client->Generate(request, cancellation);
  if (!response.ok()) return Fail(response.status());
  if (!WriteStdout(ToJson(*response))) return kExitFailure;
  if (options.stats) {
    std::vector<v1::Finished> finished;
    for (const v1::Choice& choice : response->choices()) finished.push_back(choice.finished());
    WriteStderr(StatsText(response->started(), finished));
  }
  return kExitOk;
}

int RunText(const GenerateOptions& options, const v1::GenerateRequest& request, Client* client,
            Cancellation* cancellation) {
  ChoicePrinter printer(options.n.value_or(1), WriteServerText);
  v1::Started started;
  std::vector<v1::Finished> finished;
  std::map<uint32_t, std::string> logprobs;  // by choice
  const absl::Status status = client->GenerateStream(
      request,
      [&](const v1::GenerateStreamResponse& event) {
        if (event.has_started()) started = event.started();
        for (const v1::TokenLogprobs& token : event.delta().logprobs()) {
          absl::StrAppend(&logprobs[event.delta().index()], LogprobLine(token), "\n");
        }
        if (event.has_finished()) finished.push_back(event.finished());
        return printer.Add(event);
      },
      cancellation);
  if (!printer.Close()) return kExitFailure;
  for (const auto& [index, lines] : logprobs) {
    if (logprobs.size() > 1) WriteStderr(absl::StrCat("choice ", index + 1, ":\n"));
    WriteStderr(PrintableText(lines));
  }
  if (!status.ok()) return Fail(status);
  if (options.stats) WriteStderr(StatsText(started, finished));
  return kExitOk;
}

int Run(const GenerateOptions& options) {
  const absl::StatusOr<std::string> prompt = ReadPrompt(options.prompt);
  if (!prompt.ok()) return FailUsage(prompt.status());
  v1::GenerateRequest request = MakeRequest(options.sampling);
  request.set_text(*prompt);
  request.set_request_id(options.request_id);
  if (options.n.has_value()) request.mutable_sampling()->set_n(*options.n);
  if (options.priority.has_value()) request.set_priority(*options.priority);
  if (options.logprobs.has_value()) request.mutable_output()->set_logprobs(*options.logprobs);
  if (options.stats || options.json) request.mutable_sparsity()->set_report(true);

  Cancellation cancellation;
  SignalWatcher interrupt([&] { cancellation.Cancel(); });
  const auto client = Client::Connect(options.connection);
  if (!client.ok()) return FailUsage(client.status());
  return (options.json ? RunJson : RunText)(options, request, client->get(), &cancellation);
}

}  // namespace

void AddGenerateCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app->add_subcommand("generate", "Continue a prompt, as it is generated");
  AddPromptOptions(command, &options->prompt);
  AddSamplingOptions(command, &options->sampling);
  command->add_option("--n", options->n, "How many continuations, printed one after the other")
      ->group("Sampling");
  command->add_option("--priority", options->priority, "-10 to 10; higher goes first");
  command->add_option("--request_id", options->request_id, "Your name for it, in the server's log")
      ->check(Utf8());
  command->add_option("--logprobs", options->logprobs,
                      "Log-probability of each token and of this many alternatives,\non stderr");
  command->add_flag("--stats", options->stats,
                    "Counts, times, FFN sparsity: on stderr, afterwards");
  command->add_flag("--json", options->json, "The whole answer at the end, as the API's JSON");
  AddConnectionOptions(command, &options->connection);
  command->footer(
      "Examples:\n"
      "  lacuna generate --prompt='Once upon a time' --max_tokens=64 --stats\n"
      "  lacuna generate --prompt_file=story.txt --temperature=0.7 --top_p=0.9 --seed=7\n"
      "  git log -1 | lacuna generate --prompt_file=- --temperature=0 --stop='.'\n"
      "  lacuna generate --prompt='The sea' --n=3 --json | jq -r '.choices[].text'\n"
      "\n"
      "Ctrl-C ends the generation, on the server too.");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
