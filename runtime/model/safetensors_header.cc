#include "runtime/model/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

constexpr size_t kMaxRank = 8;           // model weights have 1 or 2
constexpr size_t kMaxTensorName = 1024;  // bytes

struct DtypeInfo {
  const char* name;
  int bits;
  StoredType type;
};

// Every type of the format (enum Dtype of its crate), so that a file with some tensors of a
// type that nobody asks for still loads.
constexpr DtypeInfo kDtypes[] = {
    {"F32", 32, StoredType::kF32},      {"F16", 16, StoredType::kF16},
    {"BF16", 16, StoredType::kBf16},    {"BOOL", 8, StoredType::kOther},
    {"U8", 8, StoredType::kOther},      {"I8", 8, StoredType::kOther},
    {"F8_E5M2", 8, StoredType::kOther}, {"F8_E4M3", 8, StoredType::kOther},
    {"F8_E8M0", 8, StoredType::kOther}, {"F4", 4, StoredType::kOther},
    {"F6_E2M3", 6, StoredType::kOther}, {"F6_E3M2", 6, StoredType::kOther},
    {"I16", 16, StoredType::kOther},    {"U16", 16, StoredType::kOther},
    {"I32", 32, StoredType::kOther},    {"U32", 32, StoredType::kOther},
    {"F64", 64, StoredType::kOther},    {"I64", 64, StoredType::kOther},
    {"U64", 64, StoredType::kOther},    {"C64", 64, StoredType::kOther},
};

const DtypeInfo* FindDtype(const std::string& name) {
  for (const DtypeInfo& dtype : kDtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

// Bytes of a tensor of this shape, or -1 if there is no such tensor: a product that overflows, or
// bits that do not fill whole bytes.
int64_t TensorBytes(const std::vector<int64_t>& shape, int bits) {
  int64_t product = bits;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(product, dim, &product)) return -1;
  }
  return product % 8 == 0 ? product / 8 : -1;
}

// Reads the one shape of document that a header may have, straight into TensorInfo, so that memory
// stays within a small multiple of the header:
//   {"__metadata__": {string: string, ...},
//    name: {"dtype": string, "shape": [number, ...], "data_offsets": [begin, end]}, ...}
// Offsets in `tensors` are relative to the data.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<TensorInfo>& tensors() { return tensors_; }
  const std::string& error() const { return error_; }

  bool null() override { return UnexpectedValue("null"); }
  bool boolean(bool) override { return UnexpectedValue("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return UnexpectedValue(absl::StrCat(value));
  }
  bool number_float(number_float_t, const string_t& text) override { return UnexpectedValue(text); }
  bool binary(binary_t&) override { return UnexpectedValue("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return UnexpectedValue(absl::StrCat(value));
    }
    const int64_t number = static_cast<int64_t>(value);
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() == kMaxRank) {
        return Fail(absl::StrCat(" has more than ", kMaxRank, " dimensions"));
      }
      if (number == 0) return Fail(" has a dimension of 0");
      tensor_.shape.push_back(number);
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offsets_ == 2) return Fail(" has more than two data_offsets");
      (offsets_++ == 0 ? tensor_.offset : end_) = number;
      return true;
    }
    return UnexpectedValue(absl::StrCat(value));
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || key_ != "dtype") return UnexpectedValue(Quoted(value));
    dtype_ = FindDtype(value);
    if (dtype_ == nullptr) return Fail(absl::StrCat(" has unknown dtype ", Quoted(value)));
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return UnexpectedValue("an object");
    place_ = in_metadata_ ? Place::kMetadata : Place::kTensor;
    keys_.clear();
    return true;
  }

  bool end_object() override {
    const bool tensor_ends = place_ == Place::kTensor;
    place_ = place_ == Place::kTop ? Place::kStart : Place::kTop;
    return !tensor_ends || AddTensor();
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && key_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return UnexpectedValue("an array");
    }
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kTop) return StartEntry(name);
    if (!keys_.insert(name).second) return Fail(absl::StrCat(" has key ", Quoted(name), " twice"));
    if (place_ == Place::kMetadata) return true;
    if (name != "dtype" && name != "shape" && name != "data_offsets") {
      return Fail(absl::StrCat(" has unknown key ", Quoted(name)));
    }
    key_ = name;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("the header is not valid JSON: error at its byte ", position);
    return false;
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool Fail(absl::string_view what) {
    error_ = absl::StrCat(in_metadata_ ? "" : "tensor ", Quoted(tensor_.name), what);
    return false;
  }

  bool UnexpectedValue(absl::string_view value) {
    if (place_ == Place::kStart || place_ == Place::kTop) {
      error_ = absl::StrCat("the header holds ", value, " where an object must be");
      return false;
    }
    return Fail(absl::StrCat(" has the unexpected value ", value));
  }

  bool StartEntry(const std::string& name) {
    if (name.size() > kMaxTensorName) {
      error_ =
          absl::StrCat("a tensor name has ", name.size(), " bytes, the limit is ", kMaxTensorName);
      return false;
    }
    if (name.empty() || std::any_of(name.begin(), name.end(),
                                    [](unsigned char c) { return c < 0x20 || c == 0x7F; })) {
      error_ = absl::StrCat("tensor name ", Quoted(name), " is empty or holds control characters");
      return false;
    }
    if (!names_.insert(name).second) {
      error_ = absl::StrCat("tensor ", Quoted(name), " is listed twice");
      return false;
    }
    if (names_.size() > static_cast<size_t>(kMaxSafetensorsTensors)) {
      error_ = absl::StrCat("more than ", kMaxSafetensorsTensors, " tensors");
      return false;
    }
    in_metadata_ = name == "__metadata__";
    tensor_ = TensorInfo{.name = name};
    dtype_ = nullptr;
    offsets_ = 0;
    return true;
  }

  bool AddTensor() {
    for (const char* const key : {"dtype", "shape", "data_offsets"}) {
      if (!keys_.contains(key)) return Fail(absl::StrCat(" has no ", key));
    }
    if (offsets_ != 2) return Fail(absl::StrCat(" has ", offsets_, " data_offsets, not two"));
    if (end_ < tensor_.offset) {
      return Fail(absl::StrCat(" begins at ", tensor_.offset, " and ends before, at ", end_));
    }
    tensor_.dtype = dtype_->name;
    tensor_.type = dtype_->type;
    tensor_.bytes = TensorBytes(tensor_.shape, dtype_->bits);
    if (tensor_.bytes != end_ - tensor_.offset) {
      return Fail(absl::StrCat(" of type ", tensor_.dtype, " and shape [",
                               absl::StrJoin(tensor_.shape, ","), "] does not fill its ",
                               end_ - tensor_.offset, " bytes"));
    }
    tensors_.push_back(std::move(tensor_));
    return true;
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;                // the entry being read is __metadata__
  std::string key_;                         // last key of the tensor being read
  absl::flat_hash_set<std::string> keys_;   // of the entry being read
  absl::flat_hash_set<std::string> names_;  // of all entries so far
  TensorInfo tensor_;                       // being read
  const DtypeInfo* dtype_ = nullptr;        // of tensor_
  int offsets_ = 0;                         // how many data_offsets were read
  int64_t end_ = 0;                         // the second of them
  std::vector<TensorInfo> tensors_;
  std::string error_;
};

}  // namespace

absl::StatusOr<std::vector<TensorInfo>> ParseSafetensorsHeader(std::string_view json,
                                                               int64_t data_start,
                                                               int64_t file_size) {
  if (json.empty() || json.front() != '{') {
    return absl::InvalidArgumentError("the header does not begin with '{'");
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    return absl::InvalidArgumentError(reader.error());
  }
  std::vector<TensorInfo>& tensors = reader.tensors();
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.offset < b.offset; });
  const int64_t data_bytes = file_size - data_start;
  int64_t end = 0;
  for (TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(tensor.name), " begins at byte ", tensor.offset,
                       " of the data, the one before it ends at ", end,
                       tensor.offset < end ? ": they overlap" : ": there is a hole"));
    }
    end += tensor.bytes;
    if (end > data_bytes) {
      return absl::DataLossError(absl::StrCat("tensor ", Quoted(tensor.name), " ends at byte ", end,
                                              " of the data, the file has only ", data_bytes));
    }
    tensor.offset += data_start;
  }
  if (end < data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(data_bytes - end, " bytes follow the last tensor, which nothing describes"));
  }
  return std::move(tensors);
}

}  // namespace lacuna
