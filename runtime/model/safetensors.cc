#include "runtime/model/safetensors.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/model/safetensors_header.h"

namespace lacuna {
namespace {

// A file starts with the length of the JSON header, little-endian.
constexpr int64_t kPrefixBytes = 8;

absl::StatusOr<std::vector<TensorInfo>> ReadHeader(const RegularFile& file) {
  if (file.size() < kPrefixBytes) {
    return absl::DataLossError(absl::StrCat("the file has ", file.size(), " bytes, the smallest ",
                                            "safetensors file has ", kPrefixBytes + 2));
  }
  uint8_t prefix[kPrefixBytes];
  if (absl::Status status = file.Read(0, kPrefixBytes, prefix); !status.ok()) return status;
  uint64_t length = 0;
  for (int i = kPrefixBytes - 1; i >= 0; --i) length = length << 8 | prefix[i];
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeader)) {
    return absl::InvalidArgumentError(absl::StrCat("the header is said to have ", length,
                                                   " bytes, the limit is ", kMaxSafetensorsHeader));
  }
  const int64_t header_bytes = static_cast<int64_t>(length);
  if (header_bytes > file.size() - kPrefixBytes) {
    return absl::DataLossError(absl::StrCat("the header is said to have ", header_bytes,
                                            " bytes, the file has ", file.size()));
  }
  std::string json(static_cast<size_t>(header_bytes), '\0');
  if (absl::Status status = file.Read(kPrefixBytes, header_bytes, json.data()); !status.ok()) {
    return status;
  }
  return ParseSafetensorsHeader(json, kPrefixBytes + header_bytes, file.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  absl::StatusOr<RegularFile> file = RegularFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::vector<TensorInfo>> header = ReadHeader(*file);
  if (!header.ok()) {
    return absl::Status(header.status().code(),
                        absl::StrCat(path, ": ", header.status().message()));
  }
  absl::flat_hash_map<std::string, TensorInfo> tensors;
  tensors.reserve(header->size());
  for (TensorInfo& tensor : *header) {
    std::string name = tensor.name;
    tensors.emplace(std::move(name), std::move(tensor));
  }
  return std::unique_ptr<SafetensorsFile>(
      new SafetensorsFile(*std::move(file), std::move(tensors)));
}

}  // namespace lacuna
