#ifndef LACUNA_RUNTIME_BASE_MEMORY_H_
#define LACUNA_RUNTIME_BASE_MEMORY_H_

#include <cstdint>

namespace lacuna {

// Bytes that this process can still take without swapping or meeting the OOM killer: what the
// machine has available, or its cgroup (v2) has left if that is less. File cache that can be
// dropped counts as available.
int64_t AvailableMemoryBytes();

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_BASE_MEMORY_H_
