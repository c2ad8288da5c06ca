// The `lacuna` command line as a process, against a scripted server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "proto/status.h"
#include "tests/client/fake_server.h"
#include "tests/client/process.h"

namespace lacuna {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class CliTest : public ::testing::Test {
 protected:
  std::vector<std::string> Argv(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), LACUNA_BINARY);
    return arguments;
  }
  std::vector<std::string> Environment() const { return {"LACUNA_SERVER=" + server_.address()}; }
  Process::Result Run(const std::vector<std::string>& arguments,
                      const std::string& input = "") const {
    return Process(Argv(arguments), input, Environment()).Wait();
  }

  FakeServer::Reply reply_ = FakeServer::Says({"Hello", ",", " world"});
  FakeServer server_{[this](const v1::GenerateRequest&) { return reply_; }};
};

TEST_F(CliTest, GeneratePrintsOnlyTheTextOnStdout) {
  const auto result = Run({"generate", "--prompt=Say hello"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "Hello, world\n");
  EXPECT_THAT(result.err, IsEmpty());
  EXPECT_EQ(server_.requests().at(0).text(), "Say hello");
}

TEST_F(CliTest, GenerateReadsThePromptFromStdin) {
  EXPECT_EQ(Run({"generate", "--prompt_file=-", "--max_tokens=5"}, "line 1\nline 2\n").exit_code,
            0);
  EXPECT_EQ(server_.requests().at(0).text(), "line 1\nline 2");
  EXPECT_EQ(server_.requests().at(0).stopping().max_tokens(), 5);
}

TEST_F(CliTest, GenerateStatsGoToStderr) {
  const auto result = Run({"generate", "--prompt=x", "--stats"});
  EXPECT_EQ(result.out, "Hello, world\n");
  EXPECT_THAT(result.err, HasSubstr("finish reason LENGTH"));
  EXPECT_THAT(result.err, HasSubstr("FFN sparsity 87.50 %"));
  EXPECT_TRUE(server_.requests().at(0).sparsity().report());
}

TEST_F(CliTest, GenerateJsonIsTheApiMessage) {
  const auto result = Run({"generate", "--prompt=x", "--json"});
  EXPECT_EQ(result.exit_code, 0);
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json.at("started").at("seed"), "7");
  EXPECT_EQ(json.at("choices").at(0).at("text"), "Hello, world");
  EXPECT_EQ(json.at("choices").at(0).at("finished").at("reason"), "LENGTH");
}

TEST_F(CliTest, LogprobsGoToStderr) {
  auto* token = reply_.events[1].mutable_delta()->add_logprobs();
  token->mutable_token()->set_text("Hello");
  token->mutable_token()->set_logprob(-0.5);
  token->add_top()->set_text("Hi\u009b2J\x7f");  // CSI as one character, and DEL
  const auto result = Run({"generate", "--prompt=x", "--logprobs=1"});
  EXPECT_EQ(result.out, "Hello, world\n");
  EXPECT_THAT(result.err, HasSubstr("-0.5000 \"Hello\""));
  EXPECT_THAT(result.err, HasSubstr("\"Hi?2J?\""));
  EXPECT_EQ(server_.requests().at(0).output().logprobs(), 1);
}

TEST_F(CliTest, FailedCallExitsWith1AndSaysWhy) {
  reply_ = {.status = InvalidFields({{"sampling.temperature", "9 is outside [0, 2]"}})};
  for (const char* mode : {"--stats", "--json"}) {
    const auto result = Run({"generate", "--prompt=x", "--temperature=9", mode});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_EQ(result.err, "lacuna: INVALID_ARGUMENT: sampling.temperature: 9 is outside [0, 2]\n");
  }
}

TEST_F(CliTest, ErrorInMidStreamKeepsTheTextApart) {
  reply_.events.pop_back();
  reply_.status = absl::InternalError("this request broke");
  const auto result = Run({"generate", "--prompt=x"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "Hello, world\n");
  EXPECT_EQ(result.err, "lacuna: INTERNAL: this request broke\n");
}

TEST_F(CliTest, CtrlCCancelsOnTheServer) {
  reply_ = {.hang = true};
  Process process(Argv({"generate", "--prompt=x"}), "", Environment());
  server_.WaitForRequests(1);
  process.Signal(SIGINT);
  const auto result = process.Wait();
  server_.WaitForCancellations(1);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "lacuna: CANCELLED: ended by the client\n");
}

TEST_F(CliTest, ReaderThatGoesAwayEndsTheStreamQuietly) {
  // More than a pipe holds, so that a write meets the closed end.
  reply_ = FakeServer::Says(std::vector<std::string>(100, std::string(4096, 'x')));
  Process process(Argv({"generate", "--prompt=x"}), "", Environment());
  process.CloseOutput();
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(CliTest, ClosedAndFullStdoutAreReported) {
  for (const char* redirection : {">&-", ">/dev/full"}) {
    const auto result =
        Process(
            {"/bin/sh", "-c", std::string(LACUNA_BINARY) + " generate --prompt=x " + redirection},
            "", Environment())
            .Wait();
    EXPECT_EQ(result.exit_code, 1) << redirection;
    EXPECT_THAT(result.err, HasSubstr("cannot write to stdout")) << redirection;
  }
}

TEST_F(CliTest, BadUsageExitsWith2AndNothingOnStdout) {
  const std::vector<std::vector<std::string>> cases = {
      {},
      {"dance"},
      {"generate"},
      {"generate", "--prompt=a", "--prompt_file=b"},
      {"generate", "--prompt=a", "--temperature=warm"},
      {"generate", "--prompt=a", "--nonsense"},
      {"generate", "--prompt=\xff"},
      {"generate", "--prompt_file=/no/such/file"},
      {"generate", "--prompt=a", "--tls", "--tls_ca=/no/such/file"},
      {"models", "--timeout=soon"},
      {"models", "--token=two words"},
      {"models", "--token=", "--timeout=soon"},  // an empty value swallows nothing
      {"tokenize"},
      {"load", "--concurrency=0"},
      {"load", "--rate=1", "--trace=x.csv"},
      {"load", "--trace=/no/such/file"},
      {"load", "--trace_speed=2"},
      {"load", "--slo_ttft_ms=-1"},
  };
  for (const auto& arguments : cases) {
    const auto result = Run(arguments);
    EXPECT_EQ(result.exit_code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(result.out, IsEmpty()) << ::testing::PrintToString(arguments);
    EXPECT_THAT(result.err, Not(IsEmpty())) << ::testing::PrintToString(arguments);
  }
}

TEST_F(CliTest, HelpTeachesOnStdout) {
  for (const char* command : {"generate", "chat", "models", "tokenize", "health", "load"}) {
    const auto result = Run({command, "--help"});
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.out, HasSubstr(std::string("lacuna ") + command));
    EXPECT_THAT(result.out, HasSubstr("Examples:"));
    EXPECT_THAT(result.out, HasSubstr("--server"));
  }
  EXPECT_THAT(Run({"--version"}).out, StartsWith("lacuna "));
}

TEST_F(CliTest, NobodyListeningSaysWhatToDo) {
  const auto result = Process(Argv({"models"}), "", {"LACUNA_SERVER=127.0.0.1:1"}).Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, StartsWith("lacuna: UNAVAILABLE"));
  EXPECT_THAT(result.err, HasSubstr("--server=HOST:PORT"));
}

TEST_F(CliTest, TokenComesFromTheEnvironment) {
  std::vector<std::string> environment = Environment();
  environment.push_back("LACUNA_TOKEN=s3cret");
  EXPECT_EQ(Process(Argv({"models"}), "", environment).Wait().exit_code, 0);
  EXPECT_EQ(server_.last_authorization(), "Bearer s3cret");
}

TEST_F(CliTest, ModelsIsATable) {
  const auto result = Run({"models"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, StartsWith("NAME "));
  EXPECT_THAT(result.out, HasSubstr("fatrelu(0.01)"));
  EXPECT_THAT(result.out, HasSubstr("89.32 %"));
  EXPECT_THAT(result.out, HasSubstr("41.0 MiB"));
  const auto json = nlohmann::json::parse(Run({"models", "--json"}).out);
  EXPECT_EQ(json.at("models").at(0).at("name"), "tiny");
}

TEST_F(CliTest, TokenizeShowsIdsAndPieces) {
  EXPECT_EQ(Run({"tokenize", "--prompt=a b"}).out, "1\t\"\"\n97\t\"a\"\n32\t\" \"\n98\t\"b\"\n");
  EXPECT_EQ(Run({"tokenize", "--prompt=a", "--no_special"}).out, "97\t\"a\"\n");
  EXPECT_EQ(Run({"tokenize", "--decode=104,105"}).out, "hi\n");
  const auto json = nlohmann::json::parse(Run({"tokenize", "--prompt=a", "--json"}).out);
  EXPECT_EQ(json.at("token_ids"), nlohmann::json({1, 97}));
}

TEST_F(CliTest, HealthExitsWith0OnlyIfServing) {
  EXPECT_EQ(Run({"health"}).exit_code, 0);
  EXPECT_EQ(Run({"health"}).out, "SERVING\n");
  EXPECT_EQ(Run({"health", "--service=unknown"}).exit_code, 1);
  server_.SetServing(false);
  EXPECT_EQ(Run({"health"}).exit_code, 1);
  EXPECT_EQ(Run({"health"}).out, "NOT_SERVING\n");
}

TEST_F(CliTest, ChatContinuesATranscript) {
  const auto result = Run({"chat", "--user_prefix=U:", "--reply_prefix=B:", "--max_tokens=16"},
                          "hi\n/clear\nbye\nbye\n");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "Hello, world\nHello, world\nHello, world\n");
  const auto requests = server_.requests();
  ASSERT_EQ(requests.size(), 3);
  const auto text = [](const v1::GenerateRequest& request) {
    const auto& ids = request.token_ids().ids();
    return std::string(ids.begin() + 1, ids.end());  // without the token that begins a text
  };
  EXPECT_EQ(text(requests[0]), "U:hi\nB:");
  EXPECT_EQ(text(requests[1]), "U:bye\nB:");
  EXPECT_EQ(text(requests[2]), "U:bye\nB:Hello, world\nU:bye\nB:");
}

TEST_F(CliTest, ChatSendsMessagesToAModelWithATemplate) {
  const auto result =
      Run({"chat", "--model=chat", "--system=be brief", "--max_tokens=16"}, "hi\nand\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "Hello, world\nHello, world\n");
  const auto requests = server_.requests();
  ASSERT_EQ(requests.size(), 2);
  const auto said = [](const v1::GenerateRequest& request) {
    std::string out;
    for (const v1::ChatMessage& message : request.messages().messages()) {
      out += message.role() + ":" + message.content() + ";";
    }
    return out;
  };
  EXPECT_EQ(said(requests[0]), "system:be brief;user:hi;");
  EXPECT_EQ(said(requests[1]), "system:be brief;user:hi;assistant:Hello, world;user:and;");
}

TEST_F(CliTest, ChatForgetsTheOldestMessagesWhenTheContextIsFull) {
  // Room for 48 tokens: 1 + 11 + 21 for the first line, then 13 for its reply and 21 for the
  // second.
  const auto result =
      Run({"chat", "--model=chat", "--system=0123456789", "--max_tokens=16"},
          "aaaaaaaaaaaaaaaaaaaa\nbbbbbbbbbbbbbbbbbbbb\n" + std::string(99, 'c') + "\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("112 tokens, and there is room for 48"));
  const auto requests = server_.requests();
  ASSERT_EQ(requests.size(), 2);
  ASSERT_EQ(requests[1].messages().messages_size(), 2);
  EXPECT_EQ(requests[1].messages().messages(0).role(), "system");
  EXPECT_EQ(requests[1].messages().messages(1).content(), "bbbbbbbbbbbbbbbbbbbb");
}

TEST_F(CliTest, ChatNeedsATemplateForASystemMessage) {
  EXPECT_EQ(Run({"chat", "--system=x"}).exit_code, 2);
  EXPECT_EQ(Run({"chat", "--model=chat", "--raw", "--system=x"}).exit_code, 2);
  const auto raw = Run({"chat", "--model=chat", "--raw"}, "hi\n");
  EXPECT_EQ(raw.exit_code, 0);
  EXPECT_TRUE(server_.requests().back().has_token_ids());
}

TEST_F(CliTest, ChatRefusesALineThatCannotFitAndGoesOn) {
  const auto result = Run({"chat"}, std::string(100, 'x') + "\nok\n");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("102 tokens"));
  EXPECT_EQ(result.out, "Hello, world\n");
}

TEST_F(CliTest, LoadReportsAsTextAndJson) {
  const auto text =
      Run({"load", "--requests=4", "--concurrency=2", "--prompt_tokens=4", "--slo_ttft_ms=60000"});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.out, StartsWith("4 requests in "));
  EXPECT_THAT(text.out, HasSubstr("100.0 % of all (TTFT <= 1m)"));
  EXPECT_THAT(text.err, IsEmpty());  // no progress display without a terminal
  const auto json =
      nlohmann::json::parse(Run({"load", "--rate=1000", "--requests=4", "--json"}).out);
  EXPECT_EQ(json.at("ok"), 4);
}

TEST_F(CliTest, LoadReplaysATrace) {
  const std::string path = ::testing::TempDir() + "/lacuna_trace.csv";
  std::ofstream(path) << "TIMESTAMP,ContextTokens,GeneratedTokens\n0,5,6\n100,7,8\n";
  EXPECT_EQ(Run({"load", "--trace=" + path, "--trace_speed=10000", "--concurrency=1"}).exit_code,
            0);
  ASSERT_EQ(server_.requests().size(), 2);
  EXPECT_EQ(server_.requests()[0].token_ids().ids_size(), 5);
  EXPECT_EQ(server_.requests()[1].stopping().max_tokens(), 8);
}

TEST_F(CliTest, LoadEndsEarlyWithTheReport) {
  reply_ = {.hang = true};
  Process process(Argv({"load", "--concurrency=3", "--json"}), "", Environment());
  server_.WaitForRequests(3);
  process.Signal(SIGINT);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_code, 1);  // nothing ended with OK
  EXPECT_EQ(nlohmann::json::parse(result.out).at("requests"), 0);
}

TEST_F(CliTest, LoadWithoutASuccessExitsWith1) {
  reply_ = {.status = absl::ResourceExhaustedError("full")};
  const auto result = Run({"load", "--requests=2"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("RESOURCE_EXHAUSTED   2"));
}

}  // namespace
}  // namespace lacuna
