#include "kernels/base/thread_pool.h"

#include <atomic>
#include <memory>

#include "gtest/gtest.h"

namespace lacuna {
namespace {

// Fewer threads than CPUs spin, more of them sleep at once.
class ThreadPoolTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8),
                         testing::PrintToStringParamName());

TEST_P(ThreadPoolTest, RunCallsEachThreadOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  std::vector<std::atomic<int>> calls(GetParam());
  pool.Run([&](int thread) { calls[thread].fetch_add(1); });
  for (const std::atomic<int>& count : calls) EXPECT_EQ(count.load(), 1);
}

// Plain, not atomic, counts: ThreadSanitizer sees a job that overlaps the next one.
TEST_P(ThreadPoolTest, ManyRapidJobs) {
  constexpr int kJobs = 3000;
  ThreadPool pool(GetParam());
  std::vector<int64_t> per_thread(64 * GetParam(), 0);  // 64: no false sharing
  int64_t total = 0;
  for (int job = 0; job < kJobs; ++job) {
    pool.Run([&](int thread) { per_thread[64 * thread] += job; });
    total = 0;
    for (int t = 0; t < GetParam(); ++t) total += per_thread[64 * t];
  }
  EXPECT_EQ(total, int64_t{GetParam()} * kJobs * (kJobs - 1) / 2);
}

TEST_P(ThreadPoolTest, ParallelForCoversEachIndexOnce) {
  ThreadPool pool(GetParam());
  for (int64_t grain : {1, 3, 16}) {
    for (int64_t n : {0, 1, 2, 7, 16, 17, 100}) {
      std::vector<int> calls(n, 0);
      pool.ParallelFor(n, grain, [&](int64_t begin, int64_t end, int thread) {
        EXPECT_LT(begin, end);
        EXPECT_EQ(begin % grain, 0);
        EXPECT_TRUE(end % grain == 0 || end == n);
        EXPECT_LT(thread, GetParam());
        for (int64_t i = begin; i < end; ++i) ++calls[i];
      });
      EXPECT_EQ(calls, std::vector<int>(n, 1)) << "n " << n << " grain " << grain;
    }
  }
}

TEST_P(ThreadPoolTest, DestructionWhileIdle) {
  for (int i = 0; i < 20; ++i) {
    ThreadPool unused(GetParam());
    ThreadPool used(GetParam());
    used.Run([](int) {});
  }
}

TEST(ParallelForTest, SmallWorkStaysWithTheCaller) {
  ThreadPool pool(4);
  int calls = 0;
  pool.ParallelFor(16, 16, [&](int64_t begin, int64_t end, int thread) {
    ++calls;
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 16);
    EXPECT_EQ(thread, 0);
  });
  EXPECT_EQ(calls, 1);
}

TEST(SplitRangeTest, PartsFollowEachOther) {
  for (int parts : {1, 2, 5, 16}) {
    int64_t expected_begin = 0;
    for (int part = 0; part < parts; ++part) {
      int64_t begin, end;
      SplitRange(1003, 8, parts, part, &begin, &end);
      EXPECT_EQ(begin, expected_begin);
      EXPECT_GE(end - begin, 1003 / parts - 8);
      EXPECT_LE(end - begin, 1003 / parts + 16);
      expected_begin = end;
    }
    EXPECT_EQ(expected_begin, 1003);
  }
}

}  // namespace
}  // namespace lacuna
