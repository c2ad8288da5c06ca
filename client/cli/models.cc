#include <memory>

#include "absl/strings/str_format.h"
#include "client/cli/commands.h"
#include "client/cli/options.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/client.h"

namespace lacuna {
namespace {

struct ModelsOptions {
  ClientOptions connection{.timeout = absl::Seconds(30)};
  bool json = false;
};

std::string Activation(const v1::Model& model) {
  return model.activation() == "fatrelu"
             ? absl::StrFormat("fatrelu(%g)", model.activation_threshold())
             : model.activation();
}

std::string Sparsity(const v1::Model& model) {
  if (!model.sparse()) return "dense";
  if (model.measured_sparsity() == 0) return "-";
  return absl::StrFormat("%.2f %%", 100 * model.measured_sparsity());
}

// "1.3B", "20.5M"
std::string Count(uint64_t parameters) {
  return parameters >= 1'000'000'000
             ? absl::StrFormat("%.1fB", static_cast<double>(parameters) / 1e9)
             : absl::StrFormat("%.1fM", static_cast<double>(parameters) / 1e6);
}

int Run(const ModelsOptions& options) {
  const auto client = Client::Connect(options.connection);
  if (!client.ok()) return FailUsage(client.status());
  const auto response = (*client)->ListModels();
  if (!response.ok()) return Fail(response.status());
  if (options.json) return WriteStdout(ToJson(*response)) ? kExitOk : kExitFailure;
  Table table({"NAME", "STATE", "ARCHITECTURE", "ACTIVATION", "SPARSITY", "CONTEXT", "PARAMETERS",
               "WEIGHTS", "SIZE", "DEVICE"});
  for (const v1::Model& model : response->models()) {
    table.AddRow(
        {model.name(), v1::Model::State_Name(model.state()), model.architecture(),
         Activation(model), Sparsity(model), absl::StrCat(model.context_length()),
         Count(model.parameters()), model.weights(),
         absl::StrFormat("%.1f MiB", static_cast<double>(model.weight_bytes()) / (1 << 20)),
         model.device()});
  }
  return WriteServerText(table.ToText()) ? kExitOk : kExitFailure;
}

}  // namespace

void AddModelsCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<ModelsOptions>();
  CLI::App* command = app->add_subcommand("models", "List what the server serves");
  command->add_flag("--json", options->json, "All that the API says, as JSON");
  AddConnectionOptions(command, &options->connection);
  command->footer(
      "SPARSITY is the share of FFN neurons that were zero since the model was loaded: - before\n"
      "the first request, \"dense\" for a model whose activation makes no zeros.\n"
      "\n"
      "Examples:\n"
      "  lacuna models\n"
      "  lacuna models --json | jq -r '.models[] | select(.sparse) | .name'");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
