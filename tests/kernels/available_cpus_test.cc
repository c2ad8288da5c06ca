#include "kernels/base/available_cpus.h"

#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "tests/fakes/cgroup_files.h"

namespace lacuna {
namespace {

using CgroupCpuLimitTest = CgroupFilesTest;

TEST_F(CgroupCpuLimitTest, NoneWithoutFiles) { EXPECT_EQ(CgroupCpuLimit("0::/\n", mount_), 0); }

TEST_F(CgroupCpuLimitTest, V2QuotaIsRoundedUp) {
  Write("pod/cpu.max", "150000 100000\n");
  EXPECT_EQ(CgroupCpuLimit("0::/pod\n", mount_), 2);
}

TEST_F(CgroupCpuLimitTest, V2MaxIsNoLimit) {
  Write("cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupCpuLimit("0::/\n", mount_), 0);
}

TEST_F(CgroupCpuLimitTest, GroupsAboveCount) {
  Write("pod/cpu.max", "300000 100000\n");
  Write("pod/container/cpu.max", "800000 100000\n");
  EXPECT_EQ(CgroupCpuLimit("0::/pod/container\n", mount_), 3);
}

TEST_F(CgroupCpuLimitTest, V1Quota) {
  Write("cpu/pod/cpu.cfs_quota_us", "400000\n");
  Write("cpu/pod/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuLimit("5:cpuset:/\n4:cpu,cpuacct:/pod\n0::/\n", mount_), 4);
}

TEST_F(CgroupCpuLimitTest, V1UnlimitedIsNoLimit) {
  Write("cpu/cpu.cfs_quota_us", "-1\n");
  Write("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuLimit("1:cpu:/\n", mount_), 0);
}

TEST_F(CgroupCpuLimitTest, GarbageIsNoLimit) {
  Write("cpu.max", "many few\n");
  EXPECT_EQ(CgroupCpuLimit("nonsense\n0::\n0::relative\n", mount_), 0);
}

TEST(AvailableCpusTest, AtLeastOneAndAtMostAll) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_LE(AvailableCpus(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace lacuna
