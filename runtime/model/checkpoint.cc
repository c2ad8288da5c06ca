#include "runtime/model/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"
#include "runtime/model/float_bits.h"
#include "runtime/model/safetensors.h"

namespace lacuna {
namespace {

// At some 100 bytes an entry, room for 160,000 tensors.
constexpr int64_t kMaxIndexBytes = int64_t{16} << 20;
// Each shard holds a descriptor; the default limit of a process is 1024 of them.
constexpr size_t kMaxShards = 512;
// Elements that are converted at a time: at most 1 MiB stays in the second-level cache, and is a
// large read to RegularFile.
constexpr int64_t kChunk = 256 * 1024;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// A file name that cannot lead out of the directory.
bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c < 0x20 || c == 0x7F || c == '/'; });
}

absl::Status NoSafetensors(const std::string& directory) {
  for (const char* const name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!Exists(absl::StrCat(directory, "/", name))) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        directory,
        " holds pickled PyTorch weights, which can run code and are not read; to write "
        "them as safetensors: cd ",
        directory,
        " && python3 -c \"import glob, torch; "
        "from safetensors.torch import save_file; "
        "save_file({k: v.clone(memory_format=torch.contiguous_format) "
        "for f in sorted(glob.glob('pytorch_model*.bin')) "
        "for k, v in torch.load(f, weights_only=True).items()}, 'model.safetensors')\""));
  }
  return absl::NotFoundError(
      absl::StrCat(directory, " holds neither model.safetensors nor model.safetensors.index.json"));
}

int64_t StoredBytes(StoredType type) { return type == StoredType::kF32 ? 4 : 2; }

// Converts n elements; `in` and `out` need no alignment.
template <typename In, typename Out, typename Convert>
void ConvertRun(const std::byte* in, int64_t n, std::byte* out, Convert convert) {
  for (int64_t i = 0; i < n; ++i) {
    In a;
    std::memcpy(&a, in + i * sizeof(In), sizeof(In));
    const Out b = convert(a);
    std::memcpy(out + i * sizeof(Out), &b, sizeof(Out));
  }
}

void ConvertElements(StoredType type, DType as, const std::byte* in, int64_t n, std::byte* out) {
  if (as == DType::kF32) {
    switch (type) {
      case StoredType::kF16:
        return ConvertRun<uint16_t, float>(in, n, out, F16ToF32);
      case StoredType::kBf16:
        return ConvertRun<uint16_t, float>(in, n, out, Bf16ToF32);
      default:
        std::memcpy(out, in, static_cast<size_t>(n) * 4);
    }
  } else {
    switch (type) {
      case StoredType::kF32:
        return ConvertRun<float, uint16_t>(in, n, out, F32ToBf16);
      case StoredType::kF16:
        return ConvertRun<uint16_t, uint16_t>(in, n, out,
                                              [](uint16_t h) { return F32ToBf16(F16ToF32(h)); });
      default:
        std::memcpy(out, in, static_cast<size_t>(n) * 2);
    }
  }
}

class SafetensorsCheckpoint : public Checkpoint {
 public:
  absl::Status OpenSingle(const std::string& path);
  absl::Status OpenShards(const std::string& directory, const std::string& index_path);

  const TensorInfo* Find(std::string_view name) const override;
  absl::Status ReadRows(const TensorInfo& tensor, int64_t first_row, int64_t rows, DType as,
                        std::byte* out, int64_t row_stride) const override;
  std::vector<std::string_view> names() const override;

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, int> file_of_;  // tensor name -> index in files_
};

absl::Status SafetensorsCheckpoint::OpenSingle(const std::string& path) {
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  for (const auto& [name, tensor] : (*file)->tensors()) file_of_[name] = 0;
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status SafetensorsCheckpoint::OpenShards(const std::string& directory,
                                               const std::string& index_path) {
  absl::StatusOr<std::string> text = ReadFile(index_path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<nlohmann::json> index = ParseJsonObject(*text, index_path);
  if (!index.ok()) return index.status();
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object() || map->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(index_path, " has no weight_map from tensors to files"));
  }
  absl::flat_hash_map<std::string, int> file_index;
  for (const auto& [name, value] : map->items()) {
    const std::string* const file_name = value.get_ptr<const std::string*>();
    if (file_name == nullptr || !IsPlainFileName(*file_name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(index_path, ": tensor ", Quoted(name), " is mapped to ",
                       file_name ? Quoted(*file_name) : "something else",
                       ", which is not the name of a file beside the index"));
    }
    const auto [it, is_new] = file_index.emplace(*file_name, files_.size());
    if (is_new) {
      if (files_.size() == kMaxShards) {
        return absl::InvalidArgumentError(
            absl::StrCat(index_path, " names more than ", kMaxShards, " files"));
      }
      absl::StatusOr<std::unique_ptr<SafetensorsFile>> file =
          SafetensorsFile::Open(absl::StrCat(directory, "/", *file_name));
      if (absl::IsNotFound(file.status())) {
        return absl::NotFoundError(absl::StrCat(
            index_path, " names ", *file_name,
            ", which is not there: the download is not complete, fetch the missing file"));
      }
      if (!file.ok()) return file.status();
      files_.push_back(*std::move(file));
    }
    if (!files_[it->second]->tensors().contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, " says that tensor ", Quoted(name),
                                                     " is in ", *file_name, ", it is not"));
    }
    file_of_[name] = it->second;
  }
  return absl::OkStatus();
}

const TensorInfo* SafetensorsCheckpoint::Find(std::string_view name) const {
  const auto it = file_of_.find(absl::string_view(name.data(), name.size()));
  return it == file_of_.end() ? nullptr : &files_[it->second]->tensors().at(it->first);
}

absl::Status SafetensorsCheckpoint::ReadRows(const TensorInfo& tensor, int64_t first_row,
                                             int64_t rows, DType as, std::byte* out,
                                             int64_t row_stride) const {
  if (tensor.type == StoredType::kOther) {
    return absl::UnimplementedError(absl::StrCat("tensor ", Quoted(tensor.name), " is stored as ",
                                                 tensor.dtype, "; F32, F16 and BF16 are read"));
  }
  if (absl::Status status = CheckRows(tensor, first_row, rows); !status.ok()) return status;
  const int64_t cols = tensor.shape.back();
  const SafetensorsFile& file = *files_[file_of_.at(tensor.name)];
  const int64_t in_bytes = StoredBytes(tensor.type);
  const int64_t out_bytes = RowBytes(as, 1);
  const int64_t begin = first_row * cols;
  const int64_t end = begin + rows * cols;
  const bool same_type = (as == DType::kF32 && tensor.type == StoredType::kF32) ||
                         (as == DType::kBf16 && tensor.type == StoredType::kBf16);
  if (same_type && (row_stride == cols * out_bytes || rows <= 1)) {
    return file.Read(tensor.offset + begin * in_bytes, (end - begin) * in_bytes, out);
  }
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(end - begin, kChunk) * in_bytes));
  for (int64_t chunk = begin; chunk < end; chunk += kChunk) {
    const int64_t chunk_end = std::min(chunk + kChunk, end);
    absl::Status status =
        file.Read(tensor.offset + chunk * in_bytes, (chunk_end - chunk) * in_bytes, buffer.data());
    if (!status.ok()) return status;
    for (int64_t i = chunk; i < chunk_end;) {  // one run of one row at a time
      const int64_t row = i / cols;
      const int64_t run_end = std::min((row + 1) * cols, chunk_end);
      ConvertElements(tensor.type, as, buffer.data() + (i - chunk) * in_bytes, run_end - i,
                      out + (row - first_row) * row_stride + (i - row * cols) * out_bytes);
      i = run_end;
    }
  }
  return absl::OkStatus();
}

std::vector<std::string_view> SafetensorsCheckpoint::names() const {
  std::vector<std::string_view> names;
  names.reserve(file_of_.size());
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  struct stat info;
  if (stat(directory.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", directory));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(directory, " is not a directory"));
  }
  const std::string single = absl::StrCat(directory, "/model.safetensors");
  const std::string index = absl::StrCat(directory, "/model.safetensors.index.json");
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>();
  absl::Status status;
  if (Exists(single)) {
    status = checkpoint->OpenSingle(single);
  } else if (Exists(index)) {
    status = checkpoint->OpenShards(directory, index);
  } else {
    status = NoSafetensors(directory);
  }
  if (!status.ok()) return status;
  return checkpoint;
}

absl::Status CheckRows(const TensorInfo& tensor, int64_t first_row, int64_t rows) {
  if (tensor.shape.empty() || tensor.shape.size() > 2) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor.name), " has shape [",
                                                   absl::StrJoin(tensor.shape, ","),
                                                   "], neither a matrix nor a vector"));
  }
  const int64_t all_rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  if (first_row < 0 || rows < 0 || first_row > all_rows || rows > all_rows - first_row) {
    return absl::InvalidArgumentError(absl::StrCat("rows ", first_row, " to ", first_row, " + ",
                                                   rows, " of tensor ", Quoted(tensor.name),
                                                   ", which has ", all_rows));
  }
  return absl::OkStatus();
}

}  // namespace lacuna
