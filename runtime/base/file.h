#ifndef LACUNA_RUNTIME_BASE_FILE_H_
#define LACUNA_RUNTIME_BASE_FILE_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lacuna {

// A regular file open for reading; symbolic links are followed. Owns the descriptor. Movable;
// reading is thread-safe.
class RegularFile {
 public:
  // NOT_FOUND or PERMISSION_DENIED; INVALID_ARGUMENT for a directory, FIFO or device, which it
  // never waits for.
  static absl::StatusOr<RegularFile> Open(const std::string& path);
  ~RegularFile();
  RegularFile(RegularFile&& other) noexcept { *this = std::move(other); }
  RegularFile& operator=(RegularFile&& other) noexcept;

  const std::string& path() const { return path_; }
  // Bytes at the time of Open.
  int64_t size() const { return size_; }

  // Reads exactly `size` bytes at `offset`. DATA_LOSS, naming file and offset, if the file has
  // become shorter or the disk fails. A large piece that the page cache does not hold is read past
  // it, where the file system can: that spares the kernel a copy and a page for every one that is
  // read once and never again.
  absl::Status Read(int64_t offset, int64_t size, void* out) const;

 private:
  RegularFile() = default;
  // Whether the page cache holds most of a range. To those who neither own nor may write the file
  // the kernel always says yes.
  bool IsCached(int64_t offset, int64_t size) const;
  // How many bytes from `offset` were read past the page cache: 0 where that cannot be done.
  int64_t ReadDirectly(int64_t offset, int64_t size, char* out) const;

  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// The contents of a regular file of at most `max_bytes`: INVALID_ARGUMENT if it is longer.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_BASE_FILE_H_
