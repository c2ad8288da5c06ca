#include "kernels/base/available_cpus.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace lacuna {
namespace {

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// CPUs that `quota` microseconds of every `period` are; 0 if either is no positive number.
int QuotaCpus(absl::string_view quota, absl::string_view period) {
  int64_t quota_us, period_us;
  if (!absl::SimpleAtoi(quota, &quota_us) || quota_us <= 0) return 0;
  if (!absl::SimpleAtoi(period, &period_us) || period_us <= 0) return 0;
  return static_cast<int>((quota_us + period_us - 1) / period_us);
}

// The quota of the one group in folder `group`.
int GroupLimit(const std::string& group, bool v2) {
  if (!v2) {
    return QuotaCpus(ReadFile(group + "/cpu.cfs_quota_us"), ReadFile(group + "/cpu.cfs_period_us"));
  }
  const std::vector<std::string> max = absl::StrSplit(ReadFile(group + "/cpu.max"), ' ');
  return max.size() == 2 ? QuotaCpus(max[0], max[1]) : 0;
}

}  // namespace

int CgroupCpuLimit(const std::string& self_cgroup, const std::string& mount) {
  int limit = 0;
  for (absl::string_view line : absl::StrSplit(self_cgroup, '\n', absl::SkipEmpty())) {
    // "0::/path" of v2, or "4:cpu,cpuacct:/path" of v1.
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool v2 = fields[1].empty();
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    if (!v2 && std::count(controllers.begin(), controllers.end(), "cpu") == 0) continue;
    const std::string root = v2 ? mount : mount + "/cpu";
    std::string path = fields[2] == "/" ? "" : fields[2];
    while (true) {
      const int group_limit = GroupLimit(root + path, v2);
      if (group_limit > 0 && (limit == 0 || group_limit < limit)) limit = group_limit;
      if (path.empty()) break;
      path.resize(std::min(path.size() - 1, path.rfind('/')));
    }
  }
  return limit;
}

int AvailableCpus() {
  cpu_set_t affinity;
  int cpus = sched_getaffinity(0, sizeof(affinity), &affinity) == 0
                 ? CPU_COUNT(&affinity)
                 : static_cast<int>(std::thread::hardware_concurrency());
  const int limit = CgroupCpuLimit(ReadFile("/proc/self/cgroup"), "/sys/fs/cgroup");
  if (limit > 0) cpus = std::min(cpus, limit);
  return std::max(cpus, 1);
}

}  // namespace lacuna
