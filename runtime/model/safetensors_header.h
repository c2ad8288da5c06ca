#ifndef LACUNA_RUNTIME_MODEL_SAFETENSORS_HEADER_H_
#define LACUNA_RUNTIME_MODEL_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/tensor_info.h"

namespace lacuna {

// The format's own limit on the JSON header, in bytes (MAX_HEADER_SIZE of its crate).
inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;
// Ours, for one file: bounds what a header can make us allocate.
inline constexpr int64_t kMaxSafetensorsTensors = 262'144;

// Parses the JSON header of a safetensors file, whose data starts at byte `data_start` of a file of
// `file_size` bytes. Returns tensors in the order of their data, which they cover exactly.
// INVALID_ARGUMENT says what is wrong; DATA_LOSS that the data reaches beyond the file.
absl::StatusOr<std::vector<TensorInfo>> ParseSafetensorsHeader(std::string_view json,
                                                               int64_t data_start,
                                                               int64_t file_size);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_SAFETENSORS_HEADER_H_
