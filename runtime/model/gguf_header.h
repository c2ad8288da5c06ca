#ifndef LACUNA_RUNTIME_MODEL_GGUF_HEADER_H_
#define LACUNA_RUNTIME_MODEL_GGUF_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/model/gguf_types.h"

namespace lacuna {

// Limits of ours on what a header can make us allocate. A vocabulary of 262,144 tokens with merges
// takes some 20 MB; models have tens of keys and up to some thousands of tensors.
inline constexpr int64_t kMaxGgufHeader = int64_t{128} << 20;  // bytes
inline constexpr uint64_t kMaxGgufKeys = 16'384;
inline constexpr uint64_t kMaxGgufTensors = 65'536;
// Of an array: as many as a tokenizer may have tokens.
inline constexpr uint64_t kMaxGgufTexts = uint64_t{1} << 20;

// The numbers are those of the format.
enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// A value of the metadata, still encoded: little-endian numbers, strings after their 64-bit length.
struct GgufValue {
  GgufValueType type = GgufValueType::kUint8;  // of the elements, if it is an array
  bool is_array = false;                       // of scalars or strings
  uint64_t count = 1;
  std::string_view bytes;  // exactly `count` values
};

struct GgufTensor {
  std::string name;
  const GgufType* type = nullptr;  // one that is read
  std::vector<int64_t> shape;      // 1 to 4 dimensions, each > 0, that of a row last
  int64_t offset = 0;              // bytes from the start of the file
  int64_t bytes = 0;
  size_t part = 0;  // number of that file, if the model is split into several

  int64_t cols() const { return shape.back(); }
  int64_t row_bytes() const { return cols() / type->block_elements * type->block_bytes; }
};

// What stands before the data of a GGUF file; all is checked against the file's size.
struct GgufHeader {
  // Written by PowerInfer, which has a magic of its own, PWRI, and some tensors (GgufCheckpoint).
  bool powerinfer = false;
  absl::flat_hash_map<std::string_view, GgufValue> metadata;  // refers to what was parsed
  absl::flat_hash_map<std::string, GgufTensor> tensors;
};

// Parses the header of a GGUF file (version 2 or 3, little-endian) of `file_size` bytes from its
// first bytes. OUT_OF_RANGE if they end inside the header: try again with more of them.
// INVALID_ARGUMENT says what is wrong; DATA_LOSS that the file is shorter than it says;
// UNIMPLEMENTED names a version, a byte order or a tensor's type that is not read.
absl::StatusOr<GgufHeader> ParseGgufHeader(std::string_view bytes, int64_t file_size);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_HEADER_H_
