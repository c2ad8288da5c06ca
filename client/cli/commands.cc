#include "client/cli/commands.h"

#include "client/cli/output.h"

namespace lacuna {

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
      "Exit codes: 0 done, 1 the call failed, 2 bad usage.");
  CommandBody body;
  AddGenerateCommand(&app, &body);
  AddChatCommand(&app, &body);
  AddModelsCommand(&app, &body);
  AddTokenizeCommand(&app, &body);
  AddHealthCommand(&app, &body);
  AddLoadCommand(&app, &body);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  return body();
}

}  // namespace lacuna
