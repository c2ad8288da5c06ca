#include "runtime/base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <map>
#include <sstream>
#include <vector>

#include "kernels/base/cgroup.h"
#include "kernels/base/mutex.h"

namespace lacuna {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number at the start of a one-line file such as memory.max; -1 if absent or not a number.
int64_t ReadNumber(const std::string& path) {
  std::istringstream text(ReadSmallFile(path));
  int64_t number = -1;
  return text >> number ? number : -1;
}

// The number after `key` in a file of "key number" lines; 0 if absent.
int64_t ReadKey(const std::string& path, const std::string& key) {
  std::istringstream text(ReadSmallFile(path));
  std::string line;
  for (std::string word; text >> word; std::getline(text, line)) {
    int64_t number = 0;
    if (word == key) return text >> number ? number : 0;
  }
  return 0;
}

int64_t GroupLeft(const CgroupFolder& group) {
  const auto file = [&](const char* v2, const char* v1) {
    return group.path + (group.v2 ? v2 : v1);
  };
  const int64_t limit = ReadNumber(file("/memory.max", "/memory.limit_in_bytes"));
  const int64_t used = ReadNumber(file("/memory.current", "/memory.usage_in_bytes"));
  if (limit < 0 || used < 0) return kNoLimit;
  const int64_t cache =
      ReadKey(group.path + "/memory.stat", group.v2 ? "inactive_file" : "total_inactive_file");
  return std::max<int64_t>(0, limit - std::max<int64_t>(0, used - cache));
}

// Bytes of the pages that [data, data + bytes) covers and that are not in memory.
int64_t UntouchedBytes(const std::byte* data, int64_t bytes) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const auto begin = reinterpret_cast<uintptr_t>(data) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(data) + bytes;
  std::vector<unsigned char> in_memory((end - begin + page - 1) / page);
  if (mincore(reinterpret_cast<void*>(begin), end - begin, in_memory.data()) != 0) return 0;
  return page * std::count_if(in_memory.begin(), in_memory.end(),
                              [](unsigned char state) { return (state & 1) == 0; });
}

struct Promises {
  Mutex mu;
  std::map<const PromisedMemory*, std::pair<const std::byte*, int64_t>> all ABSL_GUARDED_BY(mu);

  static Promises& Get() {
    static Promises& promises = *new Promises;  // outlives every user
    return promises;
  }
};

}  // namespace

PromisedMemory::PromisedMemory(const std::byte* data, int64_t bytes) {
  Promises& promises = Promises::Get();
  MutexLock lock(&promises.mu);
  promises.all[this] = {data, bytes};
}

PromisedMemory::~PromisedMemory() {
  Promises& promises = Promises::Get();
  MutexLock lock(&promises.mu);
  promises.all.erase(this);
}

int64_t PromisedMemory::Untouched() {
  Promises& promises = Promises::Get();
  MutexLock lock(&promises.mu);
  int64_t bytes = 0;
  for (const auto& [promise, range] : promises.all)
    bytes += UntouchedBytes(range.first, range.second);
  return bytes;
}

int64_t CgroupMemoryLeft(const std::string& self_cgroup, const std::string& mount) {
  int64_t left = kNoLimit;
  for (const CgroupFolder& group : CgroupFolders(self_cgroup, mount, "memory")) {
    left = std::min(left, GroupLeft(group));
  }
  return left;
}

int64_t AvailableMemoryBytes() {
  const int64_t kib = ReadKey("/proc/meminfo", "MemAvailable:");
  const int64_t free =
      std::min(kib > 0 ? kib * 1024 : kNoLimit,
               CgroupMemoryLeft(ReadSmallFile("/proc/self/cgroup"), "/sys/fs/cgroup"));
  return std::max<int64_t>(0, free - PromisedMemory::Untouched());
}

}  // namespace lacuna
