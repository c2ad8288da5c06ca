// Preloaded into a server: while the file that LACUNA_TEST_HOLD names exists, pread blocks, as it
// does on storage that hangs.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

extern "C" ssize_t pread(int fd, void* buffer, size_t count, off_t offset) {
  static const auto real =
      reinterpret_cast<ssize_t (*)(int, void*, size_t, off_t)>(dlsym(RTLD_NEXT, "pread"));
  const char* hold = std::getenv("LACUNA_TEST_HOLD");
  while (hold != nullptr && access(hold, F_OK) == 0) usleep(10'000);
  return real(fd, buffer, count, offset);
}

extern "C" ssize_t pread64(int fd, void* buffer, size_t count, off_t offset) {
  return pread(fd, buffer, count, offset);
}
