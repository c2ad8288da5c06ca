#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "absl/synchronization/notification.h"
#include "proto/status.h"
#include "server/authenticator.h"
#include "server/default_model.h"
#include "server/engine_watchdog.h"
#include "server/logger.h"
#include "server/model_host.h"
#include "server/worker_pool.h"

namespace lacuna {
namespace {

TEST(AuthenticatorTest, WithoutFileEverybodyMayIn) { EXPECT_TRUE(Authenticator().Check("").ok()); }

TEST(AuthenticatorTest, AcceptsTheTokensOfTheFileOnly) {
  const std::string path = testing::TempDir() + "/lacuna_tokens";
  std::ofstream(path) << "# comment\n\nfirst-token\n  second-token  \n";
  const auto authenticator = Authenticator::FromFile(path);
  ASSERT_TRUE(authenticator.ok());
  EXPECT_TRUE(authenticator->Check("Bearer first-token").ok());
  EXPECT_TRUE(authenticator->Check("bearer second-token").ok());
  for (const char* bad : {"", "first-token", "Bearer ", "Bearer first-toke", "Bearer first-tokens",
                          "Basic first-token", "Bearer # comment"}) {
    EXPECT_EQ(authenticator->Check(bad).code(), absl::StatusCode::kUnauthenticated) << bad;
  }
  std::remove(path.c_str());
}

TEST(AuthenticatorTest, AFileWithoutTokensIsRefused) {
  const std::string path = testing::TempDir() + "/lacuna_no_tokens";
  std::ofstream(path) << "# nothing\n";
  EXPECT_EQ(Authenticator::FromFile(path).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Authenticator::FromFile("/no/such/file").status().code(), absl::StatusCode::kNotFound);
  std::remove(path.c_str());
}

TEST(StallDetectorTest, OnlyWorkWithoutProgressIsAStall) {
  StallDetector detector(absl::Seconds(10));
  const absl::Time start = absl::UnixEpoch();
  const absl::Time step = start;
  EXPECT_FALSE(detector.IsStalled(false, step, start));
  EXPECT_FALSE(detector.IsStalled(false, step, start + absl::Hours(1)));  // idle for long
  EXPECT_FALSE(detector.IsStalled(true, step, start + absl::Hours(1) + absl::Seconds(9)));
  EXPECT_TRUE(detector.IsStalled(true, step, start + absl::Hours(1) + absl::Seconds(11)));
  const absl::Time next = step + absl::Seconds(1);
  EXPECT_FALSE(detector.IsStalled(true, next, start + absl::Hours(1) + absl::Seconds(12)));
}

TEST(EngineWatchdogTest, AnEngineWhoseStepsAllFailIsReported) {
  std::atomic<int32_t> failed_steps = EngineWatchdog::kMostFailedSteps - 1;
  std::atomic<int> probes = 0;
  std::set<std::string> stuck;
  absl::Notification probed_often, reported;
  EngineWatchdog watchdog(
      absl::Hours(1), absl::Milliseconds(1), [] {},
      [&] {
        if (++probes == 5) probed_often.Notify();
        return std::vector<EngineProgress>{{"m", false, absl::UnixEpoch(), failed_steps},
                                           {"well", false, absl::UnixEpoch(), 0}};
      },
      [&](const std::set<std::string>& now_stuck) {
        if (now_stuck.empty() || reported.HasBeenNotified()) return;
        stuck = now_stuck;
        reported.Notify();
      });
  probed_often.WaitForNotification();
  EXPECT_FALSE(reported.HasBeenNotified());
  ++failed_steps;
  reported.WaitForNotification();
  EXPECT_THAT(stuck, testing::ElementsAre("m"));
}

TEST(EngineWatchdogTest, AModelOfTheNameOfAnUnloadedOneBeginsAnew) {
  const absl::Time unused = absl::InfinitePast();  // the last step of one that never ran
  constexpr absl::Duration kTimeout = absl::Milliseconds(20);
  absl::Time unloaded = absl::InfiniteFuture();
  absl::Notification reloaded;
  bool stuck = false;
  EngineWatchdog watchdog(
      kTimeout, absl::Milliseconds(1), [] {},
      [&]() -> std::vector<EngineProgress> {
        if (unloaded == absl::InfiniteFuture()) {
          unloaded = absl::Now();
          return {{"m", false, unused, 0}};
        }
        if (absl::Now() - unloaded < 2 * kTimeout) return {};
        return {{"m", true, unused, 0}};
      },
      [&](const std::set<std::string>& now_stuck) {
        if (reloaded.HasBeenNotified() || absl::Now() - unloaded < 2 * kTimeout) return;
        stuck = !now_stuck.empty();
        reloaded.Notify();
      });
  reloaded.WaitForNotification();
  EXPECT_FALSE(stuck);
}

TEST(LoggerTest, ALineIsOneJsonObjectAndCannotBeForged) {
  testing::internal::CaptureStderr();
  Log(LogLevel::kWarning, "event", {{"id", "a\n{\"level\":\"error\"}\x1b[31m\x7f\xff"}});
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  for (char c : text.substr(0, text.size() - 1)) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << int{c};
  const auto line = nlohmann::json::parse(text);
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["event"], "event");
  EXPECT_THAT(line["id"].get<std::string>(), testing::StartsWith("a\n{"));
}

TEST(WorkerPoolTest, RefusesBeyondItsBoundAndRunsWhatItTook) {
  std::atomic<int> ran = 0;
  absl::Notification started, release;
  {
    WorkerPool pool(1, /*max_pending=*/2);
    ASSERT_TRUE(pool.Run([&] {
                      started.Notify();
                      release.WaitForNotification();
                      ++ran;
                    })
                    .ok());
    started.WaitForNotification();
    EXPECT_TRUE(pool.Run([&] { ++ran; }).ok());
    EXPECT_TRUE(pool.Run([&] { ++ran; }).ok());
    const absl::Status refused = pool.Run([&] { ++ran; });
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(refused.message(), testing::HasSubstr("2 requests wait"));
    EXPECT_EQ(RetryAfter(refused), absl::Seconds(1));
    release.Notify();
  }
  EXPECT_EQ(ran, 3);
}

ModelConfig SmallConfig() {
  ModelConfig config;
  config.num_layers = 2;
  config.num_kv_heads = 4;
  config.num_heads = 4;
  config.head_dim = 8;
  config.max_context = 160;  // 10 blocks
  return config;
}

TEST(KvCacheBlocksTest, FlagWinsOverTheDefault) {
  const int64_t per_block = KvCache::BytesPerBlock(SmallConfig(), DType::kF32);
  EXPECT_EQ(KvCacheBlocks(SmallConfig(), DType::kF32, 1, 4, 0), (1 << 20) / per_block);
}

TEST(KvCacheBlocksTest, HalfAsWideTypesGiveTwiceTheBlocks) {
  EXPECT_EQ(KvCacheBlocks(SmallConfig(), DType::kBf16, 1, 4, 0),
            2 * KvCacheBlocks(SmallConfig(), DType::kF32, 1, 4, 0));
}

TEST(KvCacheBlocksTest, DefaultIsFullContextsInHalfOfTheFreeMemory) {
  const int64_t per_block = KvCache::BytesPerBlock(SmallConfig(), DType::kF32);
  EXPECT_EQ(KvCacheBlocks(SmallConfig(), DType::kF32, 0, 4, int64_t{1} << 40), 40);
  EXPECT_EQ(KvCacheBlocks(SmallConfig(), DType::kF32, 0, 4, per_block * 30), 15);
  EXPECT_EQ(KvCacheBlocks(SmallConfig(), DType::kF32, 0, 4, 0), 1);
}

TEST(DefaultModelTest, IsFoundAboveTheBinary) {
  const std::filesystem::path root = testing::TempDir() + "/lacuna_tree";
  std::filesystem::create_directories(root / "models/small");
  std::filesystem::create_directories(root / "build/release/bin");
  std::ofstream(root / "models/small/config.json") << "{}";
  EXPECT_EQ(*FindDefaultModel(root / "build/release/bin/lacuna-server"), root / "models/small");
  std::filesystem::remove_all(root);
  EXPECT_EQ(FindDefaultModel("/no/such/bin/x").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace lacuna
