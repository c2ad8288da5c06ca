#ifndef LACUNA_RUNTIME_MODEL_SAFETENSORS_H_
#define LACUNA_RUNTIME_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/file.h"
#include "runtime/model/tensor_info.h"

namespace lacuna {

// One safetensors file. The header is validated completely before anything is used: length,
// UTF-8 JSON of bounded depth, no duplicate names, known types, products without overflow, ranges
// inside the file, without overlap, hole or trailing bytes. Weights are read with pread, not
// mapped: a file that shrinks under a running server gives DATA_LOSS instead of SIGBUS.
// Immutable and thread-safe after Open.
class SafetensorsFile {
 public:
  // INVALID_ARGUMENT, naming the file and what is wrong; DATA_LOSS if the file is shorter than its
  // header says; otherwise as RegularFile::Open.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const absl::flat_hash_map<std::string, TensorInfo>& tensors() const { return tensors_; }

  // Reads `size` bytes at `offset`. DATA_LOSS, naming file and offset, if the file is shorter.
  absl::Status Read(int64_t offset, int64_t size, std::byte* out) const {
    return file_.Read(offset, size, out);
  }

 private:
  SafetensorsFile(RegularFile file, absl::flat_hash_map<std::string, TensorInfo> tensors)
      : file_(std::move(file)), tensors_(std::move(tensors)) {}

  RegularFile file_;
  absl::flat_hash_map<std::string, TensorInfo> tensors_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_SAFETENSORS_H_
