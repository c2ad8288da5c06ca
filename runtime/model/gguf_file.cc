#include "runtime/model/gguf_file.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lacuna {
namespace {

// Headers without a vocabulary fit.
constexpr int64_t kFirstRead = int64_t{1} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  absl::StatusOr<RegularFile> opened = RegularFile::Open(path);
  if (!opened.ok()) return opened.status();
  std::unique_ptr<GgufFile> file(new GgufFile(*std::move(opened)));
  const int64_t limit = std::min(file->file_.size(), kMaxGgufHeader);
  // How long a header is shows only in parsing it.
  for (int64_t size = std::min(kFirstRead, limit);; size = std::min(size * 4, limit)) {
    file->header_bytes_.resize(static_cast<size_t>(size));
    absl::Status status = file->file_.Read(0, size, file->header_bytes_.data());
    if (!status.ok()) return status;
    absl::StatusOr<GgufHeader> header = ParseGgufHeader(file->header_bytes_, file->file_.size());
    if (header.ok()) {
      file->header_ = *std::move(header);
      return file;
    }
    if (!absl::IsOutOfRange(header.status())) {
      return absl::Status(header.status().code(),
                          absl::StrCat(path, ": ", header.status().message()));
    }
    if (size == limit) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the header has more than ", kMaxGgufHeader, " bytes"));
    }
  }
}

}  // namespace lacuna
