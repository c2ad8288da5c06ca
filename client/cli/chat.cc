#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/commands.h"
#include "client/cli/conversation.h"
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
  std::string system;
  bool raw = false;
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
        conversation_(options.system),
        transcript_(options.user_prefix, options.reply_prefix) {}

  // Called on the signal thread: ends the reply that is being made, if any, else the process unless
  // somebody sits at the prompt.
  void Interrupt() {
    absl::MutexLock lock(&mu_);
    if (replying_ != nullptr) {
      replying_->Cancel();
    } else if (interactive_) {
      WriteStderr("\nCtrl-D leaves\n> ");
    } else {
      _exit(kExitFailure);
    }
  }

  int Run() {
    if (interactive_) {
      WriteStderr(absl::StrCat(
          "Model ", model_.name(),
          has_messages_ ? " answers."
                        : " continues what you type; a base model, which has not learnt to "
                          "answer,\njust goes on writing.",
          " Ctrl-C ends a reply, /clear forgets all, Ctrl-D leaves.\n"));
    }
    int exit_code = kExitOk;
    while (true) {
      if (interactive_) WriteStderr("> ");
      std::string line;
      if (!std::getline(std::cin, line)) break;
      if (line == "/clear") {
        transcript_.Clear();
        conversation_.Clear();
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
    conversation_.AddLine(line);
    v1::GenerateRequest request = MakeRequest(options_.sampling);
    request.set_model(model_.name());
    request.mutable_stopping()->set_max_tokens(max_tokens_);
    request.mutable_sparsity()->set_report(options_.stats);
    Cancellation cancellation;
    SetReplying(&cancellation);
    absl::Status status = FillPrompt(&request, &cancellation);
    std::string reply;
    v1::Started started;
    std::vector<v1::Finished> finished;
    const bool asked = status.ok();
    if (asked) {
      status = client_->GenerateStream(
          request,
          [&](const v1::GenerateStreamResponse& event) {
            if (event.has_started()) started = event.started();
            if (event.has_finished()) finished.push_back(event.finished());
            reply += event.delta().text();
            stdout_gone_ = !WriteServerText(event.delta().text());
            return !stdout_gone_;
          },
          &cancellation);
    }
    SetReplying(nullptr);
    if (stdout_gone_ || (asked && !WriteStdout("\n"))) {
      stdout_gone_ = true;
      return kExitFailure;
    }
    // What was said before an interruption was said.
    if (!status.ok() && !(asked && cancellation.cancelled())) {
      transcript_.RemoveLastTurn();
      conversation_.RemoveLastTurn();
      return Fail(status);
    }
    transcript_.AddReply(reply);
    conversation_.AddReply(reply);
    if (options_.stats && status.ok()) WriteStderr(StatsText(started, finished));
    return kExitOk;
  }

  // As much of what was said as leaves room for the reply.
  absl::Status FillPrompt(v1::GenerateRequest* request, Cancellation* cancellation) {
    const uint32_t room = model_.context_length() - max_tokens_;
    v1::TokenizeRequest tokenize;
    tokenize.set_model(model_.name());
    if (has_messages_) {
      auto messages = conversation_.Messages(
          room, [&](const v1::ChatMessages& all) -> absl::StatusOr<uint32_t> {
            *tokenize.mutable_messages() = all;
            const auto response = client_->Tokenize(tokenize, cancellation);
            if (!response.ok()) return response.status();
            return static_cast<uint32_t>(response->token_ids_size());
          });
      if (!messages.ok()) return messages.status();
      *request->mutable_messages() = *std::move(messages);
      return absl::OkStatus();
    }
    const auto ids = transcript_.Tokens(
        room, [&](const std::string& text) -> absl::StatusOr<std::vector<uint32_t>> {
          tokenize.set_text(text);
          const auto response = client_->Tokenize(tokenize, cancellation);
          if (!response.ok()) return response.status();
          return std::vector<uint32_t>(response->token_ids().begin(), response->token_ids().end());
        });
    if (!ids.ok()) return ids.status();
    request->mutable_token_ids()->mutable_ids()->Add(ids->begin(), ids->end());
    return absl::OkStatus();
  }

  void SetReplying(Cancellation* cancellation) {
    absl::MutexLock lock(&mu_);
    replying_ = cancellation;
  }

  const ChatOptions& options_;
  Client* const client_;
  const v1::Model model_;
  const uint32_t max_tokens_;
  const bool interactive_ = isatty(STDIN_FILENO) == 1;
  const bool has_messages_ = model_.has_chat_template() && !options_.raw;
  Conversation conversation_;  // if has_messages_, else
  Transcript transcript_;
  bool stdout_gone_ = false;

  absl::Mutex mu_;
  Cancellation* replying_ ABSL_GUARDED_BY(mu_) = nullptr;
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
  if (!options.system.empty() && (options.raw || !model->has_chat_template())) {
    return FailUsage(absl::InvalidArgumentError(absl::StrCat(
        "--system needs a chat template, which ", model->name(), " lacks or --raw leaves out")));
  }
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
  command->add_option("--system", options->system, "What the model is told before you begin")
      ->check(Utf8());
  command->add_flag("--raw", options->raw, "Plain text, even if the model has a chat template");
  command->add_option("--user_prefix", options->user_prefix, "Put before each of your lines");
  command->add_option("--reply_prefix", options->reply_prefix, "Put before each reply");
  command->add_flag("--stats", options->stats, "After each reply: counts, times, FFN sparsity");
  AddConnectionOptions(command, &options->connection);
  command->footer(
      "A model that comes with a chat template answers your messages. For any other, or with "
      "--raw,\n"
      "each line joins a running transcript, which the model continues: a base model goes on "
      "writing\n"
      "your text; one trained on conversations wants its prefixes and a --stop. The oldest turns "
      "are\n"
      "forgotten when the context is full. --max_tokens is 128 unless given, and at most half the\n"
      "context. Ctrl-C ends a reply (between replies to piped lines, the program), /clear forgets\n"
      "all, Ctrl-D leaves.\n"
      "\n"
      "Examples:\n"
      "  lacuna chat --temperature=0.7 --system='You are brief.'\n"
      "  lacuna chat --raw --user_prefix='User: ' --reply_prefix='Bot:' --stop='User:'");
  command->callback([options, body] { *body = [options] { return Run(*options); }; });
}

}  // namespace lacuna
