#ifndef LACUNA_RUNTIME_MODEL_GGUF_READER_H_
#define LACUNA_RUNTIME_MODEL_GGUF_READER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/model/gguf_header.h"

namespace lacuna {

// Typed access to the metadata of a GGUF file, as JsonReader to a JSON object: the first error
// wins; after it, reads return whatever is at hand.
class GgufReader {
 public:
  // `header` must outlive the reader and the texts that it returns.
  explicit GgufReader(const GgufHeader& header) : header_(header) {}

  const absl::Status& status() const { return status_; }
  void Fail(absl::string_view what);           // INVALID_ARGUMENT
  void Unimplemented(absl::string_view what);  // UNIMPLEMENTED "the file asks for <what>"
  void Update(const absl::Status& status) { status_.Update(status); }

  bool Has(const std::string& key) const { return Find(key) != nullptr; }

  // Numbers, of any integer or float type, must be in [min, max]. Without `missing` the key is
  // required. An array whose elements are equal is that number (some keys are there per layer);
  // others are UNIMPLEMENTED.
  int32_t Int(const std::string& key, int64_t min, int64_t max,
              std::optional<int32_t> missing = {});
  float Float(const std::string& key, double min, double max, std::optional<float> missing = {});
  bool Bool(const std::string& key, bool missing);
  std::string_view String(const std::string& key, std::string_view missing);

  // Whole arrays; empty if the key is missing. An empty text takes twice the memory here that it
  // takes in the file, hence the limit, kMaxGgufTexts; numbers take as much.
  std::vector<std::string_view> Strings(const std::string& key);
  std::vector<float> Floats(const std::string& key);  // of kFloat32
  std::vector<int32_t> Ints(const std::string& key);  // of kInt32 or kUint32; must fit

 private:
  const GgufValue* Find(const std::string& key) const;
  void FailType(const std::string& key, absl::string_view expected);

  const GgufHeader& header_;
  absl::Status status_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GGUF_READER_H_
