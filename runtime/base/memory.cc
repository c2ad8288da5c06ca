#include "runtime/base/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace lacuna {
namespace {

// The number at the start of a one-line file such as memory.max; -1 if absent or not a number.
int64_t ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t number = -1;
  return file >> number ? number : -1;
}

// The number after `key` in a file of "key number" lines; -1 if absent.
int64_t ReadKey(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  for (std::string word; file >> word; std::getline(file, line)) {
    int64_t number = -1;
    if (word == key) return file >> number ? number : -1;
  }
  return -1;
}

}  // namespace

int64_t AvailableMemoryBytes() {
  const int64_t kib = ReadKey("/proc/meminfo", "MemAvailable:");
  int64_t available = kib < 0 ? std::numeric_limits<int64_t>::max() : kib * 1024;
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max");
  const int64_t used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) {
    const int64_t cache =
        std::max<int64_t>(0, ReadKey("/sys/fs/cgroup/memory.stat", "inactive_file"));
    available = std::min(available, std::max<int64_t>(0, limit - (used - cache)));
  }
  return available;
}

}  // namespace lacuna
