#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/output.h"

namespace lacuna {
namespace {

struct InspectOptions {
  std::vector<std::string> paths;
  std::string activation;
  bool json = false;
};

// Becomes the lacuna-server beside this binary: what a server would do with a model, only the
// server's code knows.
int Run(const InspectOptions& options) {
  std::error_code ignored;
  const std::string server =
      std::filesystem::read_symlink("/proc/self/exe", ignored).replace_filename("lacuna-server");
  std::vector<std::string> args = {server, options.json ? "--inspect=json" : "--inspect=text"};
  for (size_t i = 0; i < options.paths.size(); ++i) {
    args.push_back(absl::StrCat("--model=", i, "=", options.paths[i]));
  }
  if (!options.activation.empty()) args.push_back("--activation=" + options.activation);
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  WriteStderr(absl::StrCat("lacuna: inspect needs the server's binary, ", server, ": ",
                           std::strerror(errno), "\n"));
  return kExitFailure;
}

}  // namespace

void AddInspectCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command =
      app->add_subcommand("inspect", "Say what a model is and what memory it needs; no server");
  command
      ->add_option("path", options->paths,
                   "A Hugging Face directory or a GGUF file; several may be given")
      ->required();
  command->add_option(
      "--activation", options->activation,
      "What the FFN computes, instead of what the files say: relu, fatrelu:T, drelu\n"
      "or silu");
  command->add_flag("--json", options->json, "One JSON object a line for each path");
  command->footer(
      "Reads headers, no weights, and checks what lacuna-server checks before it loads them.\n"
      "Exit code 3, and the reason, if it would refuse a model.\n"
      "\n"
      "Examples:\n"
      "  lacuna inspect /models/prosparse-llama-2-7b\n"
      "  lacuna inspect --json model.gguf | jq .memory.int8");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
