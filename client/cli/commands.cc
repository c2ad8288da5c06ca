#include "client/cli/commands.h"

#include <algorithm>
#include <string>
#include <vector>

#include "client/cli/output.h"

namespace lacuna {
namespace {

// The arguments in reverse, as CLI11 wants them. `--name=` becomes `--name` and an empty argument:
// CLI11 would otherwise take the next argument, whatever it is, for the value.
std::vector<std::string> ReversedArguments(int argc, const char* const* argv) {
  std::vector<std::string> args;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    const bool empty_value = arg.rfind("--", 0) == 0 && arg.find('=') == arg.size() - 1;
    if (empty_value) arg.pop_back();
    args.push_back(std::move(arg));
    if (empty_value) args.emplace_back();
  }
  std::reverse(args.begin(), args.end());
  return args;
}

}  // namespace

int RunCommandLine(int argc, const char* const* argv) {
  CLI::App app("Talks to a Lacuna inference server.", "lacuna");
  app.set_version_flag("--version", "lacuna " LACUNA_VERSION);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  app.footer(
      "Each command explains itself: lacuna generate --help\n"
      "\n"
      "Examples:\n"
      "  lacuna health\n"
      "  lacuna models\n"
      "  lacuna generate --prompt='Once upon a time' --max_tokens=64 --stats\n"
      "  lacuna load --concurrency=8 --requests=100 --slo_ttft_ms=500\n"
      "\n"
      "Exit codes: 0 done, 1 the call failed, 2 bad usage; inspect: 3 the model would be refused.");
  CommandBody body;
  AddGenerateCommand(&app, &body);
  AddChatCommand(&app, &body);
  AddModelsCommand(&app, &body);
  AddTokenizeCommand(&app, &body);
  AddHealthCommand(&app, &body);
  AddInspectCommand(&app, &body);
  AddLoadCommand(&app, &body);
  try {
    app.parse(ReversedArguments(argc, argv));
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  return body();
}

}  // namespace lacuna
