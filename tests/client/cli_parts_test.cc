#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "client/cli/choice_printer.h"
#include "client/cli/options.h"
#include "client/cli/stats.h"
#include "client/cli/table.h"
#include "client/cli/transcript.h"
#include "client/cli/utf8.h"

namespace lacuna {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Empty if `arguments` parse, else CLI11's message.
std::string Parse(CLI::App* app, std::vector<std::string> arguments) {
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants a vector
  try {
    app->parse(arguments);
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return "";
}

TEST(SamplingOptionsTest, AbsentOptionsStayAbsent) {
  CLI::App app;
  SamplingOptions options;
  AddSamplingOptions(&app, &options);
  ASSERT_EQ(Parse(&app, {}), "");
  const v1::GenerateRequest request = MakeRequest(options);
  EXPECT_FALSE(request.sampling().has_temperature());
  EXPECT_FALSE(request.sampling().has_seed());
  EXPECT_FALSE(request.stopping().has_max_tokens());
  EXPECT_FALSE(request.stopping().has_ignore_eos());
}

TEST(SamplingOptionsTest, EachOptionReachesItsField) {
  CLI::App app;
  SamplingOptions options;
  AddSamplingOptions(&app, &options);
  ASSERT_EQ(Parse(&app, {"--model=m", "--temperature=0", "--top_p=0.5", "--top_k=40",
                         "--min_p=0.25", "--presence_penalty=-1", "--frequency_penalty=1",
                         "--repetition_penalty=1.5", "--seed=18446744073709551615",
                         "--max_tokens=9", "--min_tokens=2", "--stop=a,b", "--stop", "\n",
                         "--include_stop", "--ignore_eos", "--time_limit_ms=100", "--ffn=dense"}),
            "");
  const v1::GenerateRequest request = MakeRequest(options);
  EXPECT_EQ(request.model(), "m");
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_EQ(request.sampling().top_p(), 0.5);
  EXPECT_EQ(request.sampling().top_k(), 40);
  EXPECT_EQ(request.sampling().min_p(), 0.25);
  EXPECT_EQ(request.sampling().presence_penalty(), -1);
  EXPECT_EQ(request.sampling().frequency_penalty(), 1);
  EXPECT_EQ(request.sampling().repetition_penalty(), 1.5);
  EXPECT_EQ(request.sampling().seed(), UINT64_MAX);
  EXPECT_EQ(request.stopping().max_tokens(), 9);
  EXPECT_EQ(request.stopping().min_tokens(), 2);
  EXPECT_THAT(request.stopping().stop(), ElementsAre("a,b", "\n"));
  EXPECT_TRUE(request.stopping().include_stop());
  EXPECT_TRUE(request.stopping().ignore_eos());
  EXPECT_EQ(request.stopping().time_limit_ms(), 100);
  EXPECT_EQ(request.sparsity().mode(), v1::SparsityParams::DENSE);
}

TEST(SamplingOptionsTest, ValuesOfTheWrongTypeAreRefused) {
  for (const char* argument : {"--temperature=warm", "--seed=-1", "--seed=18446744073709551616",
                               "--max_tokens=1.5", "--top_k=-1", "--ffn=fast", "--stop=\xff"}) {
    CLI::App app;
    SamplingOptions options;
    AddSamplingOptions(&app, &options);
    EXPECT_NE(Parse(&app, {argument}), "") << argument;
  }
}

TEST(ConnectionOptionsTest, DefaultsAndValues) {
  unsetenv("LACUNA_SERVER");
  unsetenv("LACUNA_TOKEN");
  CLI::App app;
  ClientOptions options{.timeout = absl::Seconds(30)};
  AddConnectionOptions(&app, &options);
  ASSERT_EQ(Parse(&app, {}), "");
  EXPECT_EQ(options.address, "127.0.0.1:50051");
  EXPECT_EQ(options.timeout, absl::Seconds(30));
  ASSERT_EQ(Parse(&app, {"--server=host:1", "--tls", "--tls_ca=ca", "--tls_cert=c", "--tls_key=k",
                         "--token=t", "--timeout=1m30s"}),
            "");
  EXPECT_EQ(options.address, "host:1");
  EXPECT_TRUE(options.tls);
  EXPECT_EQ(options.tls_ca_file, "ca");
  EXPECT_EQ(options.tls_cert_file, "c");
  EXPECT_EQ(options.tls_key_file, "k");
  EXPECT_EQ(options.token, "t");
  EXPECT_EQ(options.timeout, absl::Seconds(90));
}

TEST(ConnectionOptionsTest, ContradictionsAndBadDurationsAreRefused) {
  const std::vector<std::vector<std::string>> cases = {
      {"--tls_ca=ca"}, {"--tls", "--tls_cert=c"}, {"--tls", "--tls_key=k"},
      {"--timeout=5"}, {"--timeout=0s"},          {"--timeout=-1s"}};
  for (const auto& arguments : cases) {
    CLI::App app;
    ClientOptions options;
    AddConnectionOptions(&app, &options);
    EXPECT_NE(Parse(&app, arguments), "") << arguments.back();
  }
}

TEST(ConnectionOptionsTest, HelpDoesNotShowTheToken) {
  setenv("LACUNA_TOKEN", "s3cret", 1);
  CLI::App app;
  ClientOptions options{.token = "als0s3cret"};
  AddConnectionOptions(&app, &options);
  ASSERT_EQ(Parse(&app, {}), "");
  unsetenv("LACUNA_TOKEN");
  EXPECT_EQ(options.token, "s3cret");
  EXPECT_THAT(app.help(), HasSubstr("LACUNA_TOKEN"));
  EXPECT_THAT(app.help(), ::testing::Not(HasSubstr("s3cret")));
}

TEST(PromptOptionsTest, SourcesExcludeEachOtherAndOneIsRequired) {
  CLI::App app;
  PromptOptions options;
  AddPromptOptions(&app, &options);
  EXPECT_NE(Parse(&app, {"--prompt=a", "--prompt_file=b"}), "");
  EXPECT_TRUE(absl::IsInvalidArgument(ReadPrompt({}).status()));
}

class ReadPromptTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& content) const {
    const std::string path = ::testing::TempDir() + "/lacuna_prompt_" +
                             ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
};

TEST_F(ReadPromptTest, FileLosesOneFinalNewline) {
  EXPECT_EQ(ReadPrompt({.file = Write("a\nb\n\n")}).value(), "a\nb\n");
  EXPECT_EQ(ReadPrompt({.file = Write("")}).value(), "");
  EXPECT_EQ(ReadPrompt({.text = "a\n"}).value(), "a\n");
}

TEST_F(ReadPromptTest, UnusableFilesAreRefused) {
  EXPECT_THAT(std::string(ReadPrompt({.file = "/no/such/file"}).status().message()),
              HasSubstr("cannot read /no/such/file"));
  EXPECT_THAT(std::string(ReadPrompt({.file = "/"}).status().message()), HasSubstr("cannot read"));
  EXPECT_THAT(std::string(ReadPrompt({.file = "/dev/zero"}).status().message()),
              HasSubstr("more than 4194304 bytes"));
  EXPECT_THAT(std::string(ReadPrompt({.file = Write("a\xff")}).status().message()),
              HasSubstr("UTF-8"));
}

TEST(Utf8Test, AcceptsWellFormedText) {
  for (const char* text : {"", "plain", "é", "€", "😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
  }
  EXPECT_TRUE(IsUtf8(absl::string_view("a\0b", 3)));
}

TEST(Utf8Test, RefusesMalformedText) {
  for (const char* text : {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe2\x82",
                           "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80",
                           "\xff", "a\xc3(", "\xf0\x9f\x98(", "\xe2(\xac"}) {
    EXPECT_FALSE(IsUtf8(text));
  }
}

v1::GenerateStreamResponse Delta(uint32_t index, const std::string& text) {
  v1::GenerateStreamResponse event;
  event.mutable_delta()->set_index(index);
  event.mutable_delta()->set_text(text);
  return event;
}

v1::GenerateStreamResponse Finished(uint32_t index) {
  v1::GenerateStreamResponse event;
  event.mutable_finished()->set_index(index);
  return event;
}

TEST(ChoicePrinterTest, OneChoiceIsPrintedAsItComesAndEndsWithOneNewline) {
  std::vector<std::string> writes;
  ChoicePrinter printer(1, [&](absl::string_view text) {
    writes.emplace_back(text);
    return true;
  });
  printer.Add(Delta(0, "a"));
  printer.Add(Delta(0, "b"));
  EXPECT_THAT(writes, ElementsAre("a", "b"));
  printer.Add(Finished(0));
  EXPECT_TRUE(printer.Close());
  EXPECT_THAT(writes, ElementsAre("a", "b", "\n"));
}

TEST(ChoicePrinterTest, SeveralChoicesArePrintedInOrder) {
  std::string out;
  ChoicePrinter printer(3, [&](absl::string_view text) {
    out.append(text.data(), text.size());
    return true;
  });
  printer.Add(Delta(1, "B"));
  printer.Add(Delta(0, "a"));
  printer.Add(Finished(1));
  printer.Add(Delta(0, "A\n"));
  printer.Add(Delta(2, "C"));
  printer.Add(Delta(9, "ignored"));
  EXPECT_EQ(out, "--- 1 of 3 ---\naA\n");
  printer.Add(Finished(0));
  EXPECT_EQ(out, "--- 1 of 3 ---\naA\n--- 2 of 3 ---\nB\n--- 3 of 3 ---\nC");
  printer.Close();
  EXPECT_EQ(out, "--- 1 of 3 ---\naA\n--- 2 of 3 ---\nB\n--- 3 of 3 ---\nC\n");
}

TEST(ChoicePrinterTest, CloseShowsWhatWasHeldBack) {
  std::string out;
  ChoicePrinter printer(2, [&](absl::string_view text) {
    out.append(text.data(), text.size());
    return true;
  });
  printer.Add(Delta(0, "a"));
  printer.Add(Delta(1, "b"));
  printer.Close();
  EXPECT_EQ(out, "--- 1 of 2 ---\na\n--- 2 of 2 ---\nb\n");
}

TEST(ChoicePrinterTest, FailedWriteStopsTheStream) {
  ChoicePrinter printer(1, [](absl::string_view) { return false; });
  EXPECT_FALSE(printer.Add(Delta(0, "a")));
  EXPECT_FALSE(printer.Close());
}

absl::StatusOr<std::vector<uint32_t>> TokenPerByte(const std::string& text) {
  return std::vector<uint32_t>(text.begin(), text.end());
}

TEST(TranscriptTest, TurnsJoinIntoOneText) {
  Transcript transcript("User: ", "Bot:");
  transcript.AddLine("hi");
  transcript.AddReply(" hello");
  transcript.AddLine("bye");
  const auto ids = transcript.Tokens(1000, TokenPerByte);
  EXPECT_EQ(std::string(ids->begin(), ids->end()), "User: hi\nBot: hello\nUser: bye\nBot:");
}

TEST(TranscriptTest, OldestTurnsAreForgottenToFit) {
  Transcript transcript("", "");
  transcript.AddLine("1234");
  transcript.AddReply("a");
  transcript.AddLine("5678");
  transcript.AddReply("b");
  transcript.AddLine("90");
  const auto ids = transcript.Tokens(10, TokenPerByte);
  EXPECT_EQ(std::string(ids->begin(), ids->end()), "5678\nb\n90\n");
}

TEST(TranscriptTest, TurnThatCannotFitIsRefused) {
  Transcript transcript("", "");
  transcript.AddLine("123456789");
  const auto ids = transcript.Tokens(5, TokenPerByte);
  EXPECT_EQ(ids.status(),
            absl::InvalidArgumentError("this has 10 tokens, and there is room for 5"));
}

TEST(StatsTextTest, SaysCountsTimesAndSparsity) {
  v1::Started started;
  started.set_model("tiny");
  started.set_seed(7);
  started.set_prompt_tokens(3);
  v1::Finished finished;
  finished.set_reason(v1::LENGTH);
  finished.mutable_usage()->set_completion_tokens(11);
  finished.mutable_timings()->set_ttft_ms(12.5);
  finished.mutable_timings()->set_decode_ms(100);
  finished.mutable_sparsity()->set_activation_sparsity(0.8932);
  const std::string text = StatsText(started, {finished});
  EXPECT_THAT(text, HasSubstr("model tiny, seed 7, prompt 3 tokens"));
  EXPECT_THAT(text, HasSubstr("completion 11 tokens, finish reason LENGTH"));
  EXPECT_THAT(text, HasSubstr("time to first token 12.5 ms"));
  EXPECT_THAT(text, HasSubstr("100.0 tokens/s"));
  EXPECT_THAT(text, HasSubstr("FFN sparsity 89.32 %"));
}

TEST(TableTest, ColumnsLineUp) {
  Table table({"A", "B"});
  table.AddRow({"long", "x"});
  EXPECT_EQ(table.ToText(), "A     B\nlong  x\n");
}

}  // namespace
}  // namespace lacuna
