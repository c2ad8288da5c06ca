#ifndef LACUNA_RUNTIME_BASE_MEMORY_H_
#define LACUNA_RUNTIME_BASE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace lacuna {

// Bytes that can still be taken without swapping or meeting the OOM killer: what the machine has
// available, or what one of this process's cgroups has left if that is less; without what
// PromisedMemory has still to take. File cache that can be dropped counts as available.
int64_t AvailableMemoryBytes();

// What is left of the memory limits of the cgroup that `self_cgroup` (the text of
// /proc/self/cgroup) names and of the groups above it, read below `mount` (/sys/fs/cgroup), v1 or
// v2. Without a limit, more than any machine has.
int64_t CgroupMemoryLeft(const std::string& self_cgroup, const std::string& mount);

// While it lives, the memory [data, data + bytes), which is mapped and will be touched little by
// little, is not available to others. It must stay mapped. Thread-safe.
class PromisedMemory {
 public:
  PromisedMemory(const std::byte* data, int64_t bytes);
  ~PromisedMemory();
  PromisedMemory(const PromisedMemory&) = delete;
  PromisedMemory& operator=(const PromisedMemory&) = delete;

  // Bytes that all that live have still to take.
  static int64_t Untouched();
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_BASE_MEMORY_H_
