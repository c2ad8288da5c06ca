#ifndef LACUNA_CLIENT_CLI_COMMANDS_H_
#define LACUNA_CLIENT_CLI_COMMANDS_H_

#include <CLI/CLI.hpp>
#include <functional>

namespace lacuna {

// The body of the chosen subcommand: returns the exit code of the process.
using CommandBody = std::function<int()>;

// Each adds one subcommand to `app`; when the command line names it, parsing sets `*body`, which
// must outlive `app`.
void AddGenerateCommand(CLI::App* app, CommandBody* body);
void AddChatCommand(CLI::App* app, CommandBody* body);
void AddModelsCommand(CLI::App* app, CommandBody* body);
void AddTokenizeCommand(CLI::App* app, CommandBody* body);
void AddHealthCommand(CLI::App* app, CommandBody* body);
void AddInspectCommand(CLI::App* app, CommandBody* body);
void AddLoadCommand(CLI::App* app, CommandBody* body);

// Parses and runs a whole command line. Exit codes: 0 done, 1 the call failed, 2 bad usage; `inspect`
// also 3, as lacuna-server.
int RunCommandLine(int argc, const char* const* argv);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_COMMANDS_H_
