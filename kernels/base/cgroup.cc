#include "kernels/base/cgroup.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/str_split.h"

namespace lacuna {

std::vector<CgroupFolder> CgroupFolders(const std::string& self_cgroup, const std::string& mount,
                                        const std::string& controller) {
  std::vector<CgroupFolder> folders;
  for (absl::string_view line : absl::StrSplit(self_cgroup, '\n', absl::SkipEmpty())) {
    // "0::/path" of v2, or "4:cpu,cpuacct:/path" of v1.
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool v2 = fields[1].empty();
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    if (!v2 && std::count(controllers.begin(), controllers.end(), controller) == 0) continue;
    const std::string root = v2 ? mount : mount + "/" + controller;
    std::string path = fields[2] == "/" ? "" : fields[2];
    while (true) {
      folders.push_back({root + path, v2});
      if (path.empty()) break;
      path.resize(std::min(path.size() - 1, path.rfind('/')));
    }
  }
  return folders;
}

std::string ReadSmallFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

}  // namespace lacuna
