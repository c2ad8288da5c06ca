#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "runtime/model/safetensors.h"
#include "tests/fuzz/fuzz_check.h"

// Input: a safetensors file.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = memfd_create("input", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0 && write(fd, data, size) == static_cast<ssize_t>(size));
  const auto file = lacuna::SafetensorsFile::Open("/proc/self/fd/" + std::to_string(fd));
  close(fd);
  if (!file.ok()) {
    FUZZ_CHECK(file.status().code() == absl::StatusCode::kInvalidArgument ||
               file.status().code() == absl::StatusCode::kDataLoss);
    return 0;
  }
  int64_t total = 0;
  for (const auto& [name, tensor] : (*file)->tensors()) {
    FUZZ_CHECK(tensor.offset >= 8 && tensor.bytes > 0);
    std::vector<std::byte> bytes(tensor.bytes);
    FUZZ_CHECK((*file)->Read(tensor.offset, tensor.bytes, bytes.data()).ok());
    total += tensor.bytes;
  }
  FUZZ_CHECK(total <= static_cast<int64_t>(size));
  return 0;
}
