#ifndef LACUNA_TESTS_RUNTIME_MODEL_SAFETENSORS_WRITER_H_
#define LACUNA_TESTS_RUNTIME_MODEL_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lacuna {

// A safetensors file with `header` and `data` as they are, right or wrong, and the length of the
// header in front, or `length` if it is given.
inline std::string SafetensorsBytes(std::string_view header, std::string_view data,
                                    int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : static_cast<uint64_t>(length);
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(n >> (8 * i));
  return file.append(header).append(data);
}

// Collects tensors and writes the header that belongs to them.
class SafetensorsWriter {
 public:
  void Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           std::string_view data) {
    entries_.push_back(absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[",
                                    absl::StrJoin(shape, ","), "],\"data_offsets\":[", data_.size(),
                                    ",", data_.size() + data.size(), "]}"));
    data_.append(data);
  }
  template <typename T>
  void Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           const std::vector<T>& values) {
    Add(name, dtype, shape,
        std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
  }

  std::string Bytes() const {
    return SafetensorsBytes(absl::StrCat("{", absl::StrJoin(entries_, ","), "}"), data_);
  }

 private:
  std::vector<std::string> entries_;
  std::string data_;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_RUNTIME_MODEL_SAFETENSORS_WRITER_H_
