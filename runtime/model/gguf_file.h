#ifndef LACUNA_RUNTIME_MODEL_GGUF_FILE_H_
#define LACUNA_RUNTIME_MODEL_GGUF_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/file.h"
#include "runtime/model/gguf_header.h"

namespace lacuna {

// Descriptors that a split model may hold; the default limit of a process is 1024.
inline constexpr int32_t kMaxGgufParts = 512;

// A GGUF file: GGML's container of metadata, vocabulary and tensors. As SafetensorsFile, it checks
// the whole header before anything is used, and reads weights with pread. Immutable and thread-safe
// after Open.
//
// llama-gguf-split cuts a file into NAME-00001-of-00003.gguf and so on: the first has the metadata,
// split.count among it, the others only split.no, split.count and tensors. Together they are one
// GgufFile.
class GgufFile {
 public:
  // `path` names the file, or the first of its parts; the others are found beside it. As
  // ParseGgufHeader, naming the file, and RegularFile::Open. NOT_FOUND names a part that is
  // missing. Takes no more memory than twice the largest header's, at most kMaxGgufHeader, however
  // large the file says that something is.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  // The metadata of the first part and the tensors of all.
  const GgufHeader& header() const { return header_; }

  // Reads `size` bytes of `tensor`, the first at `begin`. DATA_LOSS, naming file and offset, if the
  // file has become shorter.
  absl::Status Read(const GgufTensor& tensor, int64_t begin, int64_t size, std::byte* out) const {
    return parts_[tensor.part].Read(tensor.offset + begin, size, out);
  }

 private:
  GgufFile() = default;

  // Reads and parses the header of the file at `path`, which becomes the last of parts_. `bytes`
  // are what the header refers to.
  absl::StatusOr<GgufHeader> OpenPart(const std::string& path, std::string* bytes);
  // Opens the other parts of `count`, whose paths begin with `stem`, and adds their tensors to
  // header_.
  absl::Status OpenOthers(const std::string& stem, int32_t count);

  std::vector<RegularFile> parts_;
  std::string header_bytes_;
  GgufHeader header_;  // refers to header_bytes_
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_FILE_H_
