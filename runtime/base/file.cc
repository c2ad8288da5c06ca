#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lacuna {
namespace {

// Of memory, offsets and lengths of direct reads: the largest that file systems ask for.
constexpr int64_t kDirectAlignment = 4096;
// Direct reads pass through a buffer of this size, which stays in the second-level cache.
constexpr int64_t kDirectBytes = int64_t{1} << 20;
// Shorter reads take about as long as finding out what is cached.
constexpr int64_t kLargeBytes = int64_t{256} << 10;

}  // namespace

absl::StatusOr<RegularFile> RegularFile::Open(const std::string& path) {
  RegularFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  file.fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file.fd_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  struct stat info;
  if (fstat(file.fd_, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  file.size_ = info.st_size;
  return file;
}

RegularFile::~RegularFile() {
  if (fd_ >= 0) close(fd_);
}

RegularFile& RegularFile::operator=(RegularFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

absl::Status RegularFile::Read(int64_t offset, int64_t size, void* out) const {
  char* const bytes = static_cast<char*>(out);
  const bool directly = size >= kLargeBytes && !IsCached(offset, size);
  int64_t done = directly ? ReadDirectly(offset, size, bytes) : 0;
  while (done < size) {
    const ssize_t n = pread(fd_, bytes + done, static_cast<size_t>(size - done), offset + done);
    if (n > 0) {
      done += n;
    } else if (n == 0) {
      return absl::DataLossError(absl::StrCat(path_, " ends at byte ", offset + done, ", ",
                                              size - done, " bytes short of what is needed"));
    } else if (errno != EINTR) {
      return absl::DataLossError(absl::StrCat("cannot read ", path_, " at byte ", offset + done,
                                              ": ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

bool RegularFile::IsCached(int64_t offset, int64_t size) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = offset / page * page;
  const auto bytes = static_cast<size_t>(offset + size - begin);
  void* const map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_, begin);
  if (map == MAP_FAILED) return true;
  std::vector<unsigned char> pages((bytes + page - 1) / page);
  const bool known = mincore(map, bytes, pages.data()) == 0;
  munmap(map, bytes);
  const auto cached = std::count_if(pages.begin(), pages.end(),
                                    [](unsigned char flags) { return (flags & 1) != 0; });
  return !known || 2 * cached >= static_cast<int64_t>(pages.size());
}

int64_t RegularFile::ReadDirectly(int64_t offset, int64_t size, char* out) const {
  const std::unique_ptr<void, decltype(&std::free)> buffer(
      std::aligned_alloc(kDirectAlignment, kDirectBytes), &std::free);
  if (buffer == nullptr) return 0;
  // The path may name another file by now.
  const std::string same_file = absl::StrCat("/proc/self/fd/", fd_);
  const int fd = open(same_file.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0) return 0;
  int64_t done = 0;
  while (done < size) {
    const int64_t at = offset + done;
    const int64_t begin = at / kDirectAlignment * kDirectAlignment;
    const ssize_t n = pread(fd, buffer.get(), kDirectBytes, begin);
    if (n <= at - begin) break;  // the end of the file, or an error
    const int64_t count = std::min(n - (at - begin), size - done);
    std::memcpy(out + done, static_cast<const char*>(buffer.get()) + (at - begin),
                static_cast<size_t>(count));
    done += count;
    // A read that does not end at a boundary has reached the end of the file.
    if (n % kDirectAlignment != 0) break;
  }
  close(fd);
  return done;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  absl::StatusOr<RegularFile> file = RegularFile::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", file->size(), " bytes, the limit is ", max_bytes));
  }
  std::string contents(static_cast<size_t>(file->size()), '\0');
  if (absl::Status status = file->Read(0, file->size(), contents.data()); !status.ok()) {
    return status;
  }
  return contents;
}

}  // namespace lacuna
