#include "runtime/base/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "kernels/base/aligned_buffer.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model_config.h"
#include "tests/fakes/cgroup_files.h"

namespace lacuna {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

using CgroupMemoryLeftTest = CgroupFilesTest;

TEST_F(CgroupMemoryLeftTest, NoneWithoutFiles) {
  EXPECT_EQ(CgroupMemoryLeft("0::/\n", mount_), kNoLimit);
  EXPECT_EQ(CgroupMemoryLeft("nonsense\n0::\n", mount_), kNoLimit);
}

TEST_F(CgroupMemoryLeftTest, V2MaxIsNoLimit) {
  Write("memory.max", "max\n");
  Write("memory.current", "100\n");
  EXPECT_EQ(CgroupMemoryLeft("0::/\n", mount_), kNoLimit);
}

TEST_F(CgroupMemoryLeftTest, FileCacheThatCanBeDroppedIsLeft) {
  Write("memory.max", "1000\n");
  Write("memory.current", "700\n");
  Write("memory.stat", "anon 300\ninactive_file 150\nactive_file 250\n");
  EXPECT_EQ(CgroupMemoryLeft("0::/\n", mount_), 450);
}

TEST_F(CgroupMemoryLeftTest, TheTightestOfTheGroupsCounts) {
  Write("service/memory.max", "1000\n");
  Write("service/memory.current", "900\n");
  Write("service/worker/memory.max", "5000\n");
  Write("service/worker/memory.current", "100\n");
  EXPECT_EQ(CgroupMemoryLeft("0::/service/worker\n", mount_), 100);
  Write("service/worker/memory.max", "130\n");
  EXPECT_EQ(CgroupMemoryLeft("0::/service/worker\n", mount_), 30);
}

TEST_F(CgroupMemoryLeftTest, MoreThanTheLimitInUseLeavesNothing) {
  Write("memory.max", "1000\n");
  Write("memory.current", "1100\n");
  EXPECT_EQ(CgroupMemoryLeft("0::/\n", mount_), 0);
}

TEST_F(CgroupMemoryLeftTest, V1) {
  Write("memory/pod/memory.limit_in_bytes", "1000\n");
  Write("memory/pod/memory.usage_in_bytes", "600\n");
  Write("memory/pod/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
  EXPECT_EQ(CgroupMemoryLeft("5:cpuset:/\n4:memory:/pod\n", mount_), 500);
}

TEST(PromisedMemoryTest, WhatIsTouchedIsNotPromisedAnyMore) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  auto buffer = AlignedBuffer::Allocate(kBytes);  // mapped, and not touched
  ASSERT_TRUE(buffer.ok());
  const int64_t before = PromisedMemory::Untouched();
  {
    const PromisedMemory promise(buffer->data(), buffer->size());
    if (PromisedMemory::Untouched() == before) {
      GTEST_SKIP() << "mincore() of this kernel calls all memory touched";
    }
    EXPECT_EQ(PromisedMemory::Untouched(), before + kBytes);
    std::memset(buffer->data(), 1, kBytes / 2);
    EXPECT_EQ(PromisedMemory::Untouched(), before + kBytes / 2);
  }
  EXPECT_EQ(PromisedMemory::Untouched(), before);
}

TEST(PromisedMemoryTest, AKvCacheIsPromisedFromTheStart) {
  ModelConfig config;
  config.num_layers = 4;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  const int64_t before = PromisedMemory::Untouched();
  const auto cache = KvCache::Create(config, 64, DType::kF32);
  ASSERT_TRUE(cache.ok()) << cache.status();
  if (PromisedMemory::Untouched() == before) {
    GTEST_SKIP() << "mincore() of this kernel calls all memory touched";
  }
  EXPECT_EQ(PromisedMemory::Untouched() - before, 64 * KvCache::BytesPerBlock(config, DType::kF32));
}

TEST(AvailableMemoryTest, IsSomeOfWhatTheMachineHas) {
  EXPECT_GT(AvailableMemoryBytes(), 0);
  EXPECT_LT(AvailableMemoryBytes(), int64_t{1} << 50);
}

}  // namespace
}  // namespace lacuna
