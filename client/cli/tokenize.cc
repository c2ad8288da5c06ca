#include <memory>
#include <nlohmann/json.hpp>

#include "client/cli/commands.h"
#include "client/cli/options.h"
#include "client/cli/output.h"
#include "client/client.h"

namespace lacuna {
namespace {

struct TokenizeOptions {
  ClientOptions connection{.timeout = absl::Seconds(30)};
  PromptOptions prompt;
  std::vector<uint32_t> decode;
  std::string model;
  bool no_special = false;
  bool json = false;
};

int RunDecode(const TokenizeOptions& options, Client* client) {
  v1::DetokenizeRequest request;
  request.set_model(options.model);
  request.mutable_token_ids()->Add(options.decode.begin(), options.decode.end());
  const auto response = client->Detokenize(request);
  if (!response.ok()) return Fail(response.status());
  const bool written =
      options.json ? WriteStdout(ToJson(*response)) : WriteServerText(response->text() + "\n");
  return written ? kExitOk : kExitFailure;
}

int Run(const TokenizeOptions& options) {
  const auto client = Client::Connect(options.connection);
  if (!client.ok()) return FailUsage(client.status());
  if (!options.decode.empty()) return RunDecode(options, client->get());
  const absl::StatusOr<std::string> text = ReadPrompt(options.prompt);
  if (!text.ok()) return FailUsage(text.status());
  v1::TokenizeRequest request;
  request.set_model(options.model);
  request.set_text(*text);
  if (options.no_special) request.set_add_special(false);
  const auto response = (*client)->Tokenize(request);
  if (!response.ok()) return Fail(response.status());
  if (options.json) return WriteStdout(ToJson(*response)) ? kExitOk : kExitFailure;
  std::string lines;
  for (int i = 0; i < response->token_ids_size(); ++i) {
    // Quoted as JSON, so that blanks and newlines show.
    const std::string piece = i < response->pieces_size() ? response->pieces(i) : "";
    absl::StrAppend(&lines, response->token_ids(i), "\t", nlohmann::json(piece).dump(), "\n");
  }
  return WriteServerText(lines) ? kExitOk : kExitFailure;
}

}  // namespace

void AddTokenizeCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command =
      app->add_subcommand("tokenize", "Show the tokens of a text, or the text of tokens");
  AddPromptOptions(command, &options->prompt);
  command->add_option("--decode", options->decode, "Token ids to turn into text, instead")
      ->type_name("ID,ID,...")
      ->delimiter(',')
      ->excludes("--prompt")
      ->excludes("--prompt_file")
      ->group("Prompt");
  command
      ->add_option("--model", options->model, "Name of the model; may be left out if there is one")
      ->check(Utf8());
  command->add_flag("--no_special", options->no_special, "Without the token that begins a text");
  command->add_flag("--json", options->json, "The API's answer as JSON");
  AddConnectionOptions(command, &options->connection);
  command->footer(
      "Prints one token a line: id, tab, text as a JSON string.\n"
      "\n"
      "Examples:\n"
      "  lacuna tokenize --prompt='Once upon a time'\n"
      "  lacuna tokenize --prompt_file=story.txt | wc -l\n"
      "  lacuna tokenize --decode=1,403,28");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
