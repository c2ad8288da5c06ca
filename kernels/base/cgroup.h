#ifndef LACUNA_KERNELS_BASE_CGROUP_H_
#define LACUNA_KERNELS_BASE_CGROUP_H_

#include <string>
#include <vector>

namespace lacuna {

struct CgroupFolder {
  std::string path;
  bool v2 = true;  // the files are those of cgroup v2, else of v1
};

// Folders of the cgroup that `self_cgroup` (the text of /proc/self/cgroup) names for `controller`
// ("cpu", "memory") and of the groups above it, below `mount` (/sys/fs/cgroup). A limit in any of
// them holds. They need not exist: a container may not see what lies above it.
std::vector<CgroupFolder> CgroupFolders(const std::string& self_cgroup, const std::string& mount,
                                        const std::string& controller);

// All of a file's text; empty if it cannot be read.
std::string ReadSmallFile(const std::string& path);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_CGROUP_H_
