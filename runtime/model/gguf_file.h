#ifndef LACUNA_RUNTIME_MODEL_GGUF_FILE_H_
#define LACUNA_RUNTIME_MODEL_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/file.h"
#include "runtime/model/gguf_header.h"

namespace lacuna {

// One GGUF file: GGML's container of metadata, vocabulary and tensors. As SafetensorsFile, it
// checks the whole header before anything is used, and reads weights with pread. Immutable and
// thread-safe after Open.
class GgufFile {
 public:
  // As ParseGgufHeader, naming the file, and RegularFile::Open. Takes no more memory than twice the
  // header's, at most kMaxGgufHeader, however large the file says that something is.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return file_.path(); }
  const GgufHeader& header() const { return header_; }

  // Reads `size` bytes at `offset`. DATA_LOSS, naming file and offset, if the file is shorter.
  absl::Status Read(int64_t offset, int64_t size, std::byte* out) const {
    return file_.Read(offset, size, out);
  }

 private:
  explicit GgufFile(RegularFile file) : file_(std::move(file)) {}

  RegularFile file_;
  std::string header_bytes_;
  GgufHeader header_;  // refers to header_bytes_
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_FILE_H_
