#include "kernels/base/available_cpus.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "kernels/base/cgroup.h"

namespace lacuna {
namespace {

// CPUs that `quota` microseconds of every `period` are; 0 if either is no positive number.
int QuotaCpus(absl::string_view quota, absl::string_view period) {
  int64_t quota_us, period_us;
  if (!absl::SimpleAtoi(quota, &quota_us) || quota_us <= 0) return 0;
  if (!absl::SimpleAtoi(period, &period_us) || period_us <= 0) return 0;
  return static_cast<int>((quota_us + period_us - 1) / period_us);
}

// The quota of one group; 0 if it has none.
int GroupLimit(const CgroupFolder& group) {
  if (!group.v2) {
    return QuotaCpus(ReadSmallFile(group.path + "/cpu.cfs_quota_us"),
                     ReadSmallFile(group.path + "/cpu.cfs_period_us"));
  }
  const std::vector<std::string> max = absl::StrSplit(ReadSmallFile(group.path + "/cpu.max"), ' ');
  return max.size() == 2 ? QuotaCpus(max[0], max[1]) : 0;
}

}  // namespace

int CgroupCpuLimit(const std::string& self_cgroup, const std::string& mount) {
  int limit = 0;
  for (const CgroupFolder& group : CgroupFolders(self_cgroup, mount, "cpu")) {
    const int group_limit = GroupLimit(group);
    if (group_limit > 0 && (limit == 0 || group_limit < limit)) limit = group_limit;
  }
  return limit;
}

int AvailableCpus() {
  cpu_set_t affinity;
  int cpus = sched_getaffinity(0, sizeof(affinity), &affinity) == 0
                 ? CPU_COUNT(&affinity)
                 : static_cast<int>(std::thread::hardware_concurrency());
  const int limit = CgroupCpuLimit(ReadSmallFile("/proc/self/cgroup"), "/sys/fs/cgroup");
  if (limit > 0) cpus = std::min(cpus, limit);
  return std::max(cpus, 1);
}

}  // namespace lacuna
