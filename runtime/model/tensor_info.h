#ifndef LACUNA_RUNTIME_MODEL_TENSOR_INFO_H_
#define LACUNA_RUNTIME_MODEL_TENSOR_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lacuna {

// kQuantized: blocks of a GGUF file. kOther: a type of the format that this build lists but does
// not read.
enum class StoredType : uint8_t { kF32, kF16, kBf16, kQuantized, kOther };

// One tensor of a file; offsets are already checked against the file.
struct TensorInfo {
  std::string name;
  StoredType type = StoredType::kOther;
  const char* dtype = "";      // as the file spells it, "BF16" or "I64"; static storage
  std::vector<int64_t> shape;  // each > 0; empty for a scalar
  int64_t offset = 0;          // bytes from the start of the file
  int64_t bytes = 0;           // product(shape) * size of type
  bool transposed = false;     // stored with rows and columns exchanged; so is `shape`
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_TENSOR_INFO_H_
