#include "runtime/model/gguf_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

constexpr size_t kMaxNameBytes = 1024;  // of a key or a tensor
constexpr uint32_t kMaxDimensions = 4;  // GGML's
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = int64_t{1} << 20;
constexpr char kAlignmentKey[] = "general.alignment";

// Bytes of a number; 0 for strings, arrays and what is no type.
uint64_t NumberBytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      break;
  }
  return 0;
}

// Walks through the header. After the first error everything returns false.
class Parser {
 public:
  Parser(std::string_view bytes, int64_t file_size)
      : bytes_(bytes), file_size_(static_cast<uint64_t>(file_size)) {}

  absl::StatusOr<GgufHeader> Parse() {
    const bool ok = ParseCounts() && ParseMetadata() && ParseTensors() && PlaceTensors();
    if (!ok) return status_;
    return std::move(header_);
  }

 private:
  bool Fail(absl::Status status) {
    status_.Update(status);
    return false;
  }
  template <typename... Args>
  bool Invalid(const Args&... what) {
    return Fail(absl::InvalidArgumentError(absl::StrCat(what...)));
  }

  uint64_t left_in_file() const { return file_size_ - at_; }

  // The next `n` bytes, of `what`.
  bool TakeBytes(uint64_t n, absl::string_view what, std::string_view* out) {
    if (n > left_in_file()) {
      return Fail(
          absl::DataLossError(absl::StrCat(what, " takes ", n, " bytes at byte ", at_,
                                           ", the file has only ", left_in_file(), " more")));
    }
    if (n > bytes_.size() - at_) return Fail(absl::OutOfRangeError("the header goes on"));
    *out = bytes_.substr(at_, n);
    at_ += n;
    return true;
  }

  template <typename T>
  bool Take(absl::string_view what, T* out) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::string_view raw;
    if (!TakeBytes(sizeof(T), what, &raw)) return false;
    std::memcpy(out, raw.data(), sizeof(T));
    return true;
  }

  bool TakeString(absl::string_view what, std::string_view* out) {
    uint64_t length = 0;
    return Take(what, &length) && TakeBytes(length, what, out);
  }

  bool TakeName(absl::string_view what, std::string_view* out) {
    if (!TakeString(what, out)) return false;
    if (out->empty() || out->size() > kMaxNameBytes) {
      return Invalid(what, " has ", out->size(), " bytes, expected 1 to ", kMaxNameBytes);
    }
    if (std::any_of(out->begin(), out->end(),
                    [](unsigned char c) { return c < 0x20 || c == 0x7F; })) {
      return Invalid(what, " holds control characters: ", Quoted(*out));
    }
    return true;
  }

  bool ParseCounts() {
    std::string_view magic;
    if (!TakeBytes(4, "the magic of a GGUF file", &magic)) return false;
    header_.powerinfer = magic == "PWRI";
    if (magic != "GGUF" && !header_.powerinfer) {
      return Invalid("starts with ", Quoted(magic), ", not with GGUF");
    }
    uint32_t version = 0;
    if (!Take("the version", &version)) return false;
    if (version != 0 && (version & 0xFFFF) == 0) {
      return Fail(absl::UnimplementedError(
          "a big-endian GGUF file; convert it with: gguf-convert-endian FILE little"));
    }
    if (version != 2 && version != 3) {
      return Fail(absl::UnimplementedError(
          absl::StrCat("version ", version, " of GGUF, this build reads 2 and 3")));
    }
    if (!Take("the number of tensors", &num_tensors_) || !Take("the number of keys", &num_keys_)) {
      return false;
    }
    if (num_tensors_ > kMaxGgufTensors) {
      return Invalid("is said to have ", num_tensors_, " tensors, the limit is ", kMaxGgufTensors);
    }
    if (num_keys_ > kMaxGgufKeys) {
      return Invalid("is said to have ", num_keys_, " keys, the limit is ", kMaxGgufKeys);
    }
    return true;
  }

  bool ParseMetadata() {
    for (uint64_t i = 0; i < num_keys_; ++i) {
      std::string_view key;
      if (!TakeName(absl::StrCat("key ", i), &key)) return false;
      GgufValue value;
      if (!TakeValue(absl::StrCat("the value of ", Quoted(key)), &value)) return false;
      if (!header_.metadata.emplace(key, value).second) {
        return Invalid("key ", Quoted(key), " is there twice");
      }
    }
    const auto it = header_.metadata.find(std::string_view(kAlignmentKey));
    if (it == header_.metadata.end()) return true;
    uint32_t alignment = 0;
    if (it->second.type == GgufValueType::kUint32 && !it->second.is_array) {
      std::memcpy(&alignment, it->second.bytes.data(), sizeof(alignment));
    }
    if (alignment == 0 || alignment > kMaxAlignment || (alignment & (alignment - 1)) != 0) {
      return Invalid(kAlignmentKey, " is no power of two in [1, ", kMaxAlignment, "]");
    }
    alignment_ = alignment;
    return true;
  }

  bool TakeValue(const std::string& what, GgufValue* value) {
    if (!Take(what, &value->type)) return false;
    if (value->type == GgufValueType::kArray) {
      value->is_array = true;
      if (!Take(what, &value->type) || !Take(what, &value->count)) return false;
      if (value->type == GgufValueType::kArray) {
        return Fail(absl::UnimplementedError(absl::StrCat(what, " is an array of arrays")));
      }
    }
    if (value->type == GgufValueType::kString) return TakeStrings(what, value);
    const uint64_t size = NumberBytes(value->type);
    if (size == 0) {
      return Invalid(what, " has the unknown type ", static_cast<uint32_t>(value->type));
    }
    if (value->count > left_in_file() / size) return TooMany(what, *value);
    return TakeBytes(value->count * size, what, &value->bytes);
  }

  bool TakeStrings(const std::string& what, GgufValue* value) {
    if (value->count > left_in_file() / sizeof(uint64_t)) return TooMany(what, *value);
    const size_t begin = at_;
    std::string_view text;
    for (uint64_t i = 0; i < value->count; ++i) {
      if (!TakeString(what, &text)) return false;
    }
    value->bytes = bytes_.substr(begin, at_ - begin);
    return true;
  }

  bool TooMany(const std::string& what, const GgufValue& value) {
    return Fail(absl::DataLossError(absl::StrCat(what, " is said to have ", value.count,
                                                 " elements, the file has only ", left_in_file(),
                                                 " more bytes")));
  }

  bool ParseTensors() {
    for (uint64_t i = 0; i < num_tensors_; ++i) {
      std::string_view name;
      if (!TakeName(absl::StrCat("the name of tensor ", i), &name)) return false;
      GgufTensor tensor;
      tensor.name = std::string(name);
      if (!ParseTensor(absl::StrCat("tensor ", Quoted(name)), &tensor)) return false;
      if (!header_.tensors.emplace(name, std::move(tensor)).second) {
        return Invalid("tensor ", Quoted(name), " is there twice");
      }
    }
    return true;
  }

  // All but the offset is checked here.
  bool ParseTensor(const std::string& what, GgufTensor* tensor) {
    uint32_t dimensions = 0;
    if (!Take(what, &dimensions)) return false;
    if (dimensions < 1 || dimensions > kMaxDimensions) {
      return Invalid(what, " has ", dimensions, " dimensions, expected 1 to ", kMaxDimensions);
    }
    for (uint32_t d = 0; d < dimensions; ++d) {
      int64_t size = 0;
      if (!Take(what, &size)) return false;
      if (size < 1) {
        return Invalid(what, " has a dimension of ", static_cast<uint64_t>(size));
      }
      tensor->shape.insert(tensor->shape.begin(), size);
    }
    uint32_t type = 0;
    if (!Take(what, &type) || !Take(what, &tensor->offset)) return false;
    tensor->type = FindGgufType(type);
    if (tensor->type == nullptr || !tensor->type->is_read()) {
      return Fail(absl::UnimplementedError(absl::StrCat(
          what, " is stored as type ", type, tensor->type == nullptr ? "" : " (",
          tensor->type == nullptr ? "" : tensor->type->name, tensor->type == nullptr ? "" : ")",
          ", this build reads ", ReadableGgufTypes(),
          "; convert the file with: llama-quantize --allow-requantize FILE NEW_FILE Q8_0")));
    }
    const int64_t block = tensor->type->block_elements;
    if (tensor->cols() % block != 0) {
      return Invalid(what, " has rows of ", tensor->cols(), " elements, blocks of ",
                     tensor->type->name, " have ", block);
    }
    tensor->bytes = tensor->cols() / block;
    bool overflow =
        __builtin_mul_overflow(tensor->bytes, int64_t{tensor->type->block_bytes}, &tensor->bytes);
    for (size_t d = 0; d + 1 < tensor->shape.size(); ++d) {
      overflow |= __builtin_mul_overflow(tensor->bytes, tensor->shape[d], &tensor->bytes);
    }
    if (overflow) {
      return Invalid(what, " has shape [", absl::StrJoin(tensor->shape, ", "),
                     "], which takes more than 2^63 bytes");
    }
    return true;
  }

  // Makes offsets count from the start of the file and checks that tensors lie in it, apart.
  bool PlaceTensors() {
    if (header_.tensors.empty()) return true;
    const int64_t file_size = static_cast<int64_t>(file_size_);
    // Less than 2^28 + 2^20.
    const int64_t data = (static_cast<int64_t>(at_) + alignment_ - 1) / alignment_ * alignment_;
    const int64_t available = std::max<int64_t>(file_size - data, 0);
    std::vector<const GgufTensor*> in_order;
    for (auto& [name, tensor] : header_.tensors) {
      if (tensor.offset < 0 || tensor.offset % alignment_ != 0) {
        return Invalid("tensor ", Quoted(name), " begins at byte ",
                       static_cast<uint64_t>(tensor.offset), " of the data, no multiple of ",
                       alignment_);
      }
      if (tensor.offset > available || tensor.bytes > available - tensor.offset) {
        return Fail(absl::DataLossError(
            absl::StrCat("tensor ", Quoted(name), " has ", tensor.bytes, " bytes at byte ",
                         tensor.offset, " of the data, the file has only ", available)));
      }
      tensor.offset += data;
      in_order.push_back(&tensor);
    }
    std::sort(in_order.begin(), in_order.end(),
              [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < in_order.size(); ++i) {
      const GgufTensor& before = *in_order[i - 1];
      if (in_order[i]->offset < before.offset + before.bytes) {
        return Invalid("tensors ", Quoted(before.name), " and ", Quoted(in_order[i]->name),
                       " overlap");
      }
    }
    return true;
  }

  const std::string_view bytes_;
  const uint64_t file_size_;
  uint64_t at_ = 0;  // never beyond bytes_
  uint64_t num_tensors_ = 0;
  uint64_t num_keys_ = 0;
  int64_t alignment_ = kDefaultAlignment;
  absl::Status status_;
  GgufHeader header_;
};

}  // namespace

absl::StatusOr<GgufHeader> ParseGgufHeader(std::string_view bytes, int64_t file_size) {
  return Parser(bytes, file_size).Parse();
}

}  // namespace lacuna
