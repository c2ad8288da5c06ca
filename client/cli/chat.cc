#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/commands.h"
#include "client/cli/options.h"
#include "client/cli/output.h"
#include "client/cli/signal_watcher.h"
#include "client/cli/stats.h"
#include "client/cli/transcript.h"
#include "client/cli/utf8.h"
#include "client/client.h"

namespace lacuna {
namespace {

constexpr uint32_t kDefaultMaxTokens = 128;

struct ChatOptions {
  ClientOptions connection;
  SamplingOptions sampling;
  std::string user_prefix, reply_prefix;
  bool stats = false;
};

class Chat {
 public:
  Chat(const ChatOptions& options, Client* client, const v1::Model& model)
      : options_(options),
        client_(client),
        model_(model),
        max_tokens_(std::min(options.sampling.max_tokens.value_or(kDefaultMaxTokens),
                             std::max(model.context_length() / 2, 1u))),
        transcript_(options.user_prefix, options.reply_prefix) {}

  // Called on the signal thread: ends the reply that is being generated, if any.
  void Interrupt() {
    absl::MutexLock lock(&mu_);
    if (generating_ != nullptr) {
      generating_->Cancel();
    } else if (interactive_) {
      WriteStderr("\nCtrl-D leaves\n> ");
    }
  }

  int Run() {
    if (interactive_) {
      WriteStderr(absl::StrCat(
          "Model ", model_.name(),
          " continues what you type; a base model, which has not learnt to "
          "answer,\njust goes on writing. Ctrl-C ends a reply, /clear forgets all, Ctrl-D "
          "leaves.\n"));
    }
    int exit_code = kExitOk;
    while (true) {
      if (interactive_) WriteStderr("> ");
      std::string line;
      if (!std::getline(std::cin, line)) break;
      if (line == "/clear") {
        transcript_.Clear();
      } else if (!IsUtf8(line)) {
        exit_code = FailUsage(absl::InvalidArgumentError("this line is not valid UTF-8"));
      } else {
        exit_code = Reply(line);
        if (stdout_gone_) return exit_code;
      }
    }
    if (interactive_) WriteStderr("\n");
    return exit_code;
  }

 private:
  // The exit code, were it the last turn.
  int Reply(const std::string& line) {
    transcript_.AddLine(line);
    const auto ids = transcript_.Tokens(
        model_.context_length() - max_tokens_,
        [this](const std::string& text) -> absl::StatusOr<std::vector<uint32_t>> {
          v1::TokenizeRequest request;
          request.set_model(model_.name());
          request.set_text(text);
          const auto response = client_->Tokenize(request);
          if (!response.ok()) return response.status();
          return std::vector<uint32_t>(response->token_ids().begin(), response->token_ids().end());
        });
    if (!ids.ok()) {
      transcript_.RemoveLastTurn();
      return Fail(ids.status());
    }
    v1::GenerateRequest request = MakeRequest(options_.sampling);
    request.set_model(model_.name());
    request.mutable_token_ids()->mutable_ids()->Add(ids->begin(), ids->end());
    request.mutable_stopping()->set_max_tokens(max_tokens_);
    request.mutable_sparsity()->set_report(options_.stats);
    return Stream(request);
  }

  int Stream(const v1::GenerateRequest& request) {
    Cancellation cancellation;
    SetGenerating(&cancellation);
    std::string reply;
    v1::Started started;
    std::vector<v1::Finished> finished;
    const absl::Status status = client_->GenerateStream(
        request,
        [&](const v1::GenerateStreamResponse& event) {
          if (event.has_started()) started = event.started();
          if (event.has_finished()) finished.push_back(event.finished());
          reply += event.delta().text();
          stdout_gone_ = !WriteServerText(event.delta().text());
          return !stdout_gone_;
        },
        &cancellation);
    SetGenerating(nullptr);
    if (stdout_gone_ || !WriteStdout("\n")) {
      stdout_gone_ = true;
      return kExitFailure;
    }
    // What was said before an interruption was said.
    if (!status.ok() && !cancellation.cancelled()) {
      transcript_.RemoveLastTurn();
      return Fail(status);
    }
    transcript_.AddReply(reply);
    if (options_.stats && status.ok()) WriteStderr(StatsText(started, finished));
    return kExitOk;
  }

  void SetGenerating(Cancellation* cancellation) {
    absl::MutexLock lock(&mu_);
    generating_ = cancellation;
  }

  const ChatOptions& options_;
  Client* const client_;
  const v1::Model model_;
  const uint32_t max_tokens_;
  const bool interactive_ = isatty(STDIN_FILENO) == 1;
  Transcript transcript_;
  bool stdout_gone_ = false;

  absl::Mutex mu_;
  Cancellation* generating_ ABSL_GUARDED_BY(mu_) = nullptr;
};

int Run(const ChatOptions& options) {
  Chat* chat = nullptr;  // set before the first line is read
  absl::Mutex mu;
  SignalWatcher interrupt([&] {
    absl::MutexLock lock(&mu);
    if (chat == nullptr) _exit(kExitFailure);
    chat->Interrupt();
  });
  const auto client = Client::Connect(options.connection);
  if (!client.ok()) return FailUsage(client.status());
  const auto model = (*client)->GetModel(options.sampling.model);
  if (!model.ok()) return Fail(model.status());
  Chat session(options, client->get(), *model);
  {
    absl::MutexLock lock(&mu);
    chat = &session;
  }
  const int exit_code = session.Run();
  absl::MutexLock lock(&mu);
  chat = nullptr;
  return exit_code;
}

}  // namespace

void AddChatCommand(CLI::App* app, CommandBody* body) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* command = app->add_subcommand("chat", "Write a text together with the model, in turns");
  AddSamplingOptions(command, &options->sampling);
  command->add_option("--user_prefix", options->user_prefix, "Put before each of your lines");
  command->add_option("--reply_prefix", options->reply_prefix, "Put before each reply");
  command->add_flag("--stats", options->stats, "After each reply: counts, times, FFN sparsity");
  AddConnectionOptions(command, &options->connection);
  command->footer(
      "Each line you type joins a running transcript, which the model continues. A base model "
      "goes\n"
      "on writing your text; one trained on conversations wants its prefixes and a --stop. The\n"
      "oldest turns are forgotten when the context is full. --max_tokens is 128 unless given, and\n"
      "at most half the context. Ctrl-C ends a reply, /clear forgets all, Ctrl-D leaves.\n"
      "\n"
      "Examples:\n"
      "  lacuna chat --temperature=0.7\n"
      "  lacuna chat --user_prefix='User: ' --reply_prefix='Bot:' --stop='User:'");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
