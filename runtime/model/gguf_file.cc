#include "runtime/model/gguf_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/model/gguf_reader.h"

namespace lacuna {
namespace {

// Headers without a vocabulary fit.
constexpr int64_t kFirstRead = int64_t{1} << 20;

// How the name of part `no`, counted from 0, ends.
std::string PartSuffix(int32_t no, int32_t count) {
  return absl::StrFormat("-%05d-of-%05d.gguf", no + 1, count);
}

absl::Status Named(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// Of one file, which is split if there are several.
struct Split {
  int32_t no = 0;
  int32_t count = 1;
};

absl::StatusOr<Split> ReadSplit(const std::string& path, const GgufHeader& header) {
  GgufReader reader(header);
  Split split;
  split.count = std::max(reader.Int("split.count", 0, kMaxGgufParts, 1), 1);
  split.no = reader.Int("split.no", 0, split.count - 1, 0);
  if (!reader.status().ok()) return Named(path, reader.status());
  return split;
}

// The path of all parts without PartSuffix.
absl::StatusOr<std::string> PartStem(const std::string& path, const Split& split) {
  const std::string suffix = PartSuffix(split.no, split.count);
  if (!absl::EndsWith(path, suffix)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is part ", split.no + 1, " of ", split.count,
                     ", but its name does not end in ", suffix,
                     ", so the others are not found: give it that name again, or join them with: "
                     "llama-gguf-split --merge FIRST_FILE NEW_FILE"));
  }
  const std::string stem = path.substr(0, path.size() - suffix.size());
  if (split.no != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is part ", split.no + 1, " of ",
                                                   split.count, "; give the first: ", stem,
                                                   PartSuffix(0, split.count)));
  }
  return stem;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  absl::StatusOr<GgufHeader> header = file->OpenPart(path, &file->header_bytes_);
  if (!header.ok()) return header.status();
  file->header_ = *std::move(header);
  const absl::StatusOr<Split> split = ReadSplit(path, file->header_);
  if (!split.ok()) return split.status();
  if (split->count == 1) return file;
  const absl::StatusOr<std::string> stem = PartStem(path, *split);
  if (!stem.ok()) return stem.status();
  absl::Status status = file->OpenOthers(*stem, split->count);
  if (!status.ok()) return status;
  return file;
}

absl::StatusOr<GgufHeader> GgufFile::OpenPart(const std::string& path, std::string* bytes) {
  absl::StatusOr<RegularFile> opened = RegularFile::Open(path);
  if (!opened.ok()) return opened.status();
  const RegularFile& file = parts_.emplace_back(*std::move(opened));
  const int64_t limit = std::min(file.size(), kMaxGgufHeader);
  // How long a header is shows only in parsing it.
  for (int64_t size = std::min(kFirstRead, limit);; size = std::min(size * 4, limit)) {
    bytes->resize(static_cast<size_t>(size));
    absl::Status status = file.Read(0, size, bytes->data());
    if (!status.ok()) return status;
    absl::StatusOr<GgufHeader> header = ParseGgufHeader(*bytes, file.size());
    if (header.ok()) return header;
    if (!absl::IsOutOfRange(header.status())) return Named(path, header.status());
    if (size == limit) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the header has more than ", kMaxGgufHeader, " bytes"));
    }
  }
}

absl::Status GgufFile::OpenOthers(const std::string& stem, int32_t count) {
  for (int32_t no = 1; no < count; ++no) {
    const std::string path = absl::StrCat(stem, PartSuffix(no, count));
    std::string bytes;
    absl::StatusOr<GgufHeader> header = OpenPart(path, &bytes);
    if (absl::IsNotFound(header.status())) {
      return absl::NotFoundError(
          absl::StrCat(path, ", part ", no + 1, " of ", count,
                       ", is not there: the download is not complete, fetch the missing file"));
    }
    if (!header.ok()) return header.status();
    const absl::StatusOr<Split> split = ReadSplit(path, *header);
    if (!split.ok()) return split.status();
    if (split->no != no || split->count != count) {
      return absl::InvalidArgumentError(absl::StrCat(path, " says that it is part ", split->no + 1,
                                                     " of ", split->count, ", not ", no + 1, " of ",
                                                     count));
    }
    for (auto& [name, tensor] : header->tensors) {
      tensor.part = static_cast<size_t>(no);
      if (!header_.tensors.emplace(name, std::move(tensor)).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": tensor ", name, " is in another part, too"));
      }
    }
    if (header_.tensors.size() > kMaxGgufTensors) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": the parts have more than ", kMaxGgufTensors, " tensors"));
    }
  }
  GgufReader reader(header_);
  const auto tensors = static_cast<int64_t>(header_.tensors.size());
  const int32_t expected = reader.Int("split.tensors.count", 0, kMaxGgufTensors, tensors);
  if (expected != tensors) {
    reader.Fail(
        absl::StrCat("key split.tensors.count is ", expected, ", the parts have ", tensors));
  }
  return Named(stem + PartSuffix(0, count), reader.status());
}

}  // namespace lacuna
