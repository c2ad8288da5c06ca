#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace lacuna {

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
  int64_t done = 0;
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
