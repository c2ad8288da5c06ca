#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "client/load/arrivals.h"
#include "client/load/load_report.h"
#include "client/load/load_runner.h"
#include "client/load/trace.h"
#include "tests/client/fake_server.h"

namespace lacuna {
namespace {

using ::testing::HasSubstr;

constexpr char kHeader[] = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

RequestRecord Ok(int first_ms, int total_ms, uint32_t tokens) {
  return {.first_text = absl::Milliseconds(first_ms),
          .total = absl::Milliseconds(total_ms),
          .prompt_tokens = 10,
          .completion_tokens = tokens};
}

TEST(QuantileTest, InterpolatesBetweenRanks) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({7}, 0.99), 7);
  EXPECT_EQ(Quantile({1, 2, 3, 4}, 0), 1);
  EXPECT_EQ(Quantile({1, 2, 3, 4}, 1), 4);
  EXPECT_DOUBLE_EQ(Quantile({1, 2, 3, 4}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(Quantile({0, 10}, 0.9), 9);
}

TEST(LoadReportTest, TimePerOutputTokenNeedsTwoTokens) {
  EXPECT_EQ(TimePerOutputToken(Ok(100, 500, 5)), absl::Milliseconds(100));
  EXPECT_FALSE(TimePerOutputToken(Ok(100, 100, 1)).has_value());
}

TEST(LoadReportTest, SumsUpRequests) {
  std::vector<RequestRecord> records = {Ok(100, 500, 5), Ok(300, 300, 1), Ok(200, 1200, 11)};
  records.push_back({.code = absl::StatusCode::kResourceExhausted,
                     .first_text = absl::Seconds(9),
                     .total = absl::Seconds(9)});
  const LoadReport report = MakeLoadReport(records, absl::Seconds(2), {});
  EXPECT_EQ(report.requests, 4);
  EXPECT_EQ(report.ok, 3);
  EXPECT_EQ(report.errors_by_code.at("RESOURCE_EXHAUSTED"), 1);
  EXPECT_EQ(report.prompt_tokens, 30);
  EXPECT_EQ(report.completion_tokens, 17);
  EXPECT_DOUBLE_EQ(report.requests_per_s, 1.5);
  EXPECT_DOUBLE_EQ(report.completion_tokens_per_s, 8.5);
  EXPECT_EQ(report.ttft.count, 3);
  EXPECT_DOUBLE_EQ(report.ttft.p50_ms, 200);
  EXPECT_DOUBLE_EQ(report.ttft.mean_ms, 200);
  EXPECT_DOUBLE_EQ(report.ttft.max_ms, 300);
  EXPECT_EQ(report.tpot.count, 2);  // the one-token request has none
  EXPECT_DOUBLE_EQ(report.tpot.p50_ms, 100);
  EXPECT_DOUBLE_EQ(report.total.max_ms, 1200);
}

TEST(LoadReportTest, GoodputCountsRequestsThatMeetEveryObjective) {
  std::vector<RequestRecord> records = {
      Ok(100, 500, 5),   // 100 ms per token: meets both, at the edge
      Ok(101, 141, 5),   // first token too late
      Ok(50, 1050, 5),   // 250 ms per token: too slow
      Ok(100, 100, 1)};  // no time per token to miss
  records.push_back({.code = absl::StatusCode::kInternal});
  const Objectives objectives{.ttft = absl::Milliseconds(100), .tpot = absl::Milliseconds(100)};
  const LoadReport report = MakeLoadReport(records, absl::Seconds(4), objectives);
  EXPECT_DOUBLE_EQ(report.goodput_per_s, 0.5);
  EXPECT_DOUBLE_EQ(report.goodput_ratio, 0.4);
  EXPECT_THAT(ToText(report), HasSubstr("0.50 requests/s, 40.0 % of all (TTFT <= 100ms, TPOT"));
}

TEST(LoadReportTest, JsonHasEveryFigureEvenWithoutRequests) {
  const auto json = nlohmann::json::parse(ToJson(MakeLoadReport({}, absl::ZeroDuration(), {})));
  EXPECT_EQ(json.at("requests"), 0);
  EXPECT_EQ(json.at("ttft").at("p99_ms"), 0);
  EXPECT_TRUE(json.at("slo_ttft_ms").is_null());
  EXPECT_EQ(json.at("goodput_ratio"), 0);
}

TEST(TraceTest, ReadsDatesAndSeconds) {
  const auto dates = ParseTrace(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-16 18:15:46.6805900,374,44\r\n"
      "2023-11-16 18:15:50.9951690,396,109\r\n\r\n");
  ASSERT_TRUE(dates.ok()) << dates.status();
  ASSERT_EQ(dates->size(), 2);
  EXPECT_EQ(dates->at(0).offset, absl::ZeroDuration());
  EXPECT_EQ(dates->at(1).offset, absl::Nanoseconds(4'314'579'000));
  EXPECT_EQ(dates->at(1).prompt_tokens, 396);
  EXPECT_EQ(dates->at(1).generated_tokens, 109);

  const auto offsets = ParseTrace(std::string(kHeader) +
                                  "2024-05-10 00:00:00.5+00:00,1,1\n"
                                  "2024-05-10 02:00:01+02:00,1,1\n");
  ASSERT_TRUE(offsets.ok()) << offsets.status();
  EXPECT_EQ(offsets->at(1).offset, absl::Milliseconds(500));

  const auto seconds = ParseTrace(std::string(kHeader) + "10.5,1,2\n12,3,4");
  ASSERT_TRUE(seconds.ok()) << seconds.status();
  EXPECT_EQ(seconds->at(1).offset, absl::Milliseconds(1500));
}

TEST(TraceTest, RefusesBadInputWithTheLineNumber) {
  const struct {
    std::string csv;
    std::string message;
  } cases[] = {
      {"", "line 1: expected the header"},
      {"time,in,out\n1,2,3\n", "line 1: expected the header"},
      {kHeader, "no requests"},
      {std::string(kHeader) + "1,2\n", "line 2: 2 fields"},
      {std::string(kHeader) + "1,2,3,4\n", "line 2: 4 fields"},
      {std::string(kHeader) + "yesterday,2,3\n", "line 2: bad timestamp"},
      {std::string(kHeader) + "nan,2,3\n", "line 2: bad timestamp"},
      {std::string(kHeader) + "inf,2,3\n", "line 2: bad timestamp"},
      {std::string(kHeader) + "infinite-future,2,3\n", "line 2: bad timestamp"},
      {std::string(kHeader) + "1,-2,3\n", "line 2: bad ContextTokens"},
      {std::string(kHeader) + "1,0,3\n", "line 2: bad ContextTokens"},
      {std::string(kHeader) + "1,1000001,3\n", "line 2: bad ContextTokens"},
      {std::string(kHeader) + "1,99999999999,3\n", "line 2: bad ContextTokens"},
      {std::string(kHeader) + "1,2,three\n", "line 2: bad GeneratedTokens"},
      {std::string(kHeader) + "2,2,3\n1,2,3\n", "line 3: timestamp goes backwards"},
  };
  for (const auto& [csv, message] : cases) {
    const auto trace = ParseTrace(csv);
    EXPECT_TRUE(absl::IsInvalidArgument(trace.status())) << csv;
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr(message));
  }
}

TEST(ArrivalsTest, ClosedLoopHasNoDueTimes) {
  Arrivals arrivals({.prompt_tokens = 5, .max_tokens = 6, .max_requests = 2});
  const auto first = arrivals.Next();
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(first->due.has_value());
  EXPECT_EQ(first->prompt_tokens, 5);
  EXPECT_EQ(first->max_tokens, 6);
  EXPECT_EQ(arrivals.Next()->index, 1);
  EXPECT_FALSE(arrivals.Next().has_value());
}

TEST(ArrivalsTest, PoissonHasTheAskedRateAndRepeatsWithItsSeed) {
  const ArrivalOptions options{.rate_per_s = 50, .max_due = absl::Seconds(200), .seed = 3};
  Arrivals arrivals(options), again(options);
  absl::Duration last;
  int count = 0;
  while (const auto arrival = arrivals.Next()) {
    EXPECT_GE(*arrival->due, last);
    last = *arrival->due;
    EXPECT_EQ(again.Next()->due, last);
    ++count;
  }
  EXPECT_LE(last, absl::Seconds(200));
  // A count with mean and variance 10000: five standard deviations are 500.
  EXPECT_NEAR(count, 10000, 500);
}

TEST(ArrivalsTest, TraceIsReplayedAtItsSpeed) {
  Arrivals arrivals(
      {.trace = {{absl::ZeroDuration(), 7, 8}, {absl::Seconds(10), 9, 10}}, .trace_speed = 4});
  EXPECT_EQ(arrivals.Next()->due, absl::ZeroDuration());
  const auto second = arrivals.Next();
  EXPECT_EQ(second->due, absl::Milliseconds(2500));
  EXPECT_EQ(second->prompt_tokens, 9);
  EXPECT_EQ(second->max_tokens, 10);
  EXPECT_FALSE(arrivals.Next().has_value());
}

class LoadRunnerTest : public ::testing::Test {
 protected:
  static std::unique_ptr<LoadRunner> Start(const FakeServer& server, LoadOptions options) {
    options.connection.address = server.address();
    const auto model = Client::Connect(options.connection).value()->GetModel("").value();
    return LoadRunner::Start(options, model).value();
  }
};

TEST_F(LoadRunnerTest, SendsEveryRequestOnceWithPromptsThatDiffer) {
  FakeServer server([](const v1::GenerateRequest&) { return FakeServer::Says({"a", "b"}); });
  const auto runner = Start(
      server,
      {.arrivals = {.prompt_tokens = 8, .max_tokens = 2, .max_requests = 20}, .concurrency = 4});
  ASSERT_TRUE(runner->WaitFor(absl::Minutes(1)));
  const LoadReport report = runner->Report({});
  EXPECT_EQ(report.ok, 20);
  EXPECT_EQ(report.completion_tokens, 40);
  EXPECT_EQ(report.ttft.count, 20);
  std::set<std::string> prompts;
  for (const v1::GenerateRequest& request : server.requests()) {
    EXPECT_EQ(request.token_ids().ids_size(), 8);
    EXPECT_EQ(request.token_ids().ids(0), 1);
    for (const uint32_t id : request.token_ids().ids()) EXPECT_LT(id, 256);
    EXPECT_EQ(request.stopping().max_tokens(), 2);
    EXPECT_TRUE(request.stopping().ignore_eos());
    prompts.insert(request.token_ids().SerializeAsString());
  }
  EXPECT_EQ(prompts.size(), 20);
}

TEST_F(LoadRunnerTest, NoRunFindsThePromptsOfAnotherInThePrefixCache) {
  FakeServer server([](const v1::GenerateRequest&) { return FakeServer::Says({"a"}); });
  std::set<std::string> tenants;
  for (int run = 0; run < 2; ++run) {
    const auto runner = Start(server, {.arrivals = {.max_requests = 2}});
    ASSERT_TRUE(runner->WaitFor(absl::Minutes(1)));
  }
  for (const v1::GenerateRequest& request : server.requests()) tenants.insert(request.tenant());
  EXPECT_EQ(tenants.size(), 2);
}

TEST_F(LoadRunnerTest, LengthsAreCutToTheContextAndThatIsSaid) {
  FakeServer server([](const v1::GenerateRequest&) { return FakeServer::Says({"a"}); });
  const auto runner = Start(server, {.arrivals = {.trace = {{absl::ZeroDuration(), 5000, 10},
                                                            {absl::ZeroDuration(), 1, 5000},
                                                            {absl::ZeroDuration(), 32, 32}}}});
  ASSERT_TRUE(runner->WaitFor(absl::Minutes(1)));
  const auto requests = server.requests();
  EXPECT_EQ(requests.at(0).token_ids().ids_size(), 54);
  EXPECT_EQ(requests.at(0).stopping().max_tokens(), 10);
  EXPECT_EQ(requests.at(1).token_ids().ids_size(), 1);
  EXPECT_EQ(requests.at(1).stopping().max_tokens(), 63);
  EXPECT_EQ(requests.at(2).token_ids().ids_size(), 32);
  EXPECT_EQ(requests.at(2).stopping().max_tokens(), 32);
  EXPECT_EQ(runner->Report({}).cut, 2);
}

TEST_F(LoadRunnerTest, CountsErrorsByCode) {
  FakeServer server([](const v1::GenerateRequest&) {
    return FakeServer::Reply{.status = absl::ResourceExhaustedError("full")};
  });
  const auto runner = Start(server, {.arrivals = {.max_requests = 3}});
  ASSERT_TRUE(runner->WaitFor(absl::Minutes(1)));
  EXPECT_EQ(runner->Report({}).errors_by_code.at("RESOURCE_EXHAUSTED"), 3);
}

TEST_F(LoadRunnerTest, PromptsAreSentInTurn) {
  FakeServer server([](const v1::GenerateRequest&) { return FakeServer::Says({"a"}); });
  const auto runner =
      Start(server, {.arrivals = {.max_requests = 3}, .prompts = {"first", "second"}});
  ASSERT_TRUE(runner->WaitFor(absl::Minutes(1)));
  EXPECT_EQ(server.requests().at(0).text(), "first");
  EXPECT_EQ(server.requests().at(1).text(), "second");
  EXPECT_EQ(server.requests().at(2).text(), "first");
}

TEST_F(LoadRunnerTest, StopEndsRunningAndWaitingStreams) {
  FakeServer server([](const v1::GenerateRequest&) { return FakeServer::Reply{.hang = true}; });
  const auto runner =
      Start(server, {.arrivals = {.trace = {{absl::ZeroDuration(), 1, 1}, {absl::Hours(1), 1, 1}}},
                     .concurrency = 2});
  server.WaitForRequests(1);
  EXPECT_FALSE(runner->WaitFor(absl::ZeroDuration()));
  runner->Stop();
  ASSERT_TRUE(runner->WaitFor(absl::Minutes(1)));
  server.WaitForCancellations(1);
  EXPECT_EQ(runner->Report({}).requests, 0);
}

}  // namespace
}  // namespace lacuna
