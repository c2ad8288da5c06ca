#ifndef LACUNA_KERNELS_BASE_AVAILABLE_CPUS_H_
#define LACUNA_KERNELS_BASE_AVAILABLE_CPUS_H_

#include <string>

namespace lacuna {

// CPUs that this process may use: the smaller of its affinity mask and its cgroup's CPU quota,
// rounded up; at least 1.
int AvailableCpus();

// The CPU quota in CPUs, rounded up, of the cgroup that `self_cgroup` (the text of
// /proc/self/cgroup) names and of the groups above it, read below `mount` (/sys/fs/cgroup): cpu.max
// of cgroup v2, cpu.cfs_quota_us of v1. 0 if there is none.
int CgroupCpuLimit(const std::string& self_cgroup, const std::string& mount);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_AVAILABLE_CPUS_H_
