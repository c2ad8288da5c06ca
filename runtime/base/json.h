#ifndef LACUNA_RUNTIME_BASE_JSON_H_
#define LACUNA_RUNTIME_BASE_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lacuna {

// Objects and arrays inside each other; the files that are read need 4.
inline constexpr int kMaxJsonDepth = 32;

// Parses a JSON object from an untrusted file. INVALID_ARGUMENT, starting with `what`, if it is
// not one, is nested more than kMaxJsonDepth deep, or has a key twice in one object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, absl::string_view what);

// Typed access to the keys of one object. A key that is missing and one that is null are the same
// thing in these files. The first error wins; after it, reads return whatever is at hand.
class JsonReader {
 public:
  // `name` starts the messages, for example "config.json". `object` must outlive the reader.
  JsonReader(const nlohmann::json& object, std::string name)
      : object_(object), name_(std::move(name)) {}

  const absl::Status& status() const { return status_; }
  void Fail(absl::string_view what);           // INVALID_ARGUMENT "<name> <what>"
  void Unimplemented(absl::string_view what);  // UNIMPLEMENTED "<name> asks for <what>"
  void Update(const absl::Status& status) { status_.Update(status); }

  // Null if the key is missing or null.
  const nlohmann::json* Find(const char* key) const;

  // Numbers must be in [min, max]. Without `missing` the key is required.
  int32_t Int(const char* key, int64_t min, int64_t max, std::optional<int32_t> missing = {});
  float Float(const char* key, double min, double max, std::optional<float> missing = {});
  bool Bool(const char* key, bool missing);
  std::string String(const char* key, absl::string_view missing);

  // As Int, of a value found elsewhere, for example in a list under `key`.
  int32_t ToInt(const char* key, const nlohmann::json& value, int64_t min, int64_t max);

 private:
  void FailType(const char* key, const nlohmann::json& value, absl::string_view expected);

  const nlohmann::json& object_;
  const std::string name_;
  absl::Status status_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_BASE_JSON_H_
