#include "runtime/base/json.h"

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

// Walks a document without building it and stops at the first thing that ParseJsonObject refuses.
class JsonChecker : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::string& error() const { return error_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(std::size_t) override { return Enter(); }
  bool start_object(std::size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool end_object() override { return Leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    error_ = absl::StrCat("has key ", Quoted(name), " twice in one object");
    return false;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("is not valid JSON: error at byte ", position);
    return false;
  }

 private:
  bool Enter() {
    if (keys_.size() == kMaxJsonDepth) {
      error_ = absl::StrCat("is nested deeper than ", kMaxJsonDepth, " levels");
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<absl::flat_hash_set<std::string>> keys_;  // of each open object; empty for arrays
  std::string error_;
};

// A value for a message.
std::string Printed(const nlohmann::json& value) {
  if (const auto* text = value.get_ptr<const std::string*>()) return Quoted(*text);
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return value.dump();
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, absl::string_view what) {
  JsonChecker checker;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &checker)) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", checker.error()));
  }
  nlohmann::json document = nlohmann::json::parse(text.begin(), text.end(), nullptr,
                                                  /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is not a JSON object"));
  }
  return document;
}

void JsonReader::Fail(absl::string_view what) {
  status_.Update(absl::InvalidArgumentError(absl::StrCat(name_, " ", what)));
}

void JsonReader::Unimplemented(absl::string_view what) {
  status_.Update(absl::UnimplementedError(absl::StrCat(name_, " asks for ", what)));
}

void JsonReader::FailType(const char* key, const nlohmann::json& value,
                          absl::string_view expected) {
  Fail(absl::StrCat("has ", key, " = ", Printed(value), ", expected ", expected));
}

const nlohmann::json* JsonReader::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

int32_t JsonReader::Int(const char* key, int64_t min, int64_t max, std::optional<int32_t> missing) {
  if (const nlohmann::json* value = Find(key)) return ToInt(key, *value, min, max);
  if (!missing.has_value()) Fail(absl::StrCat("has no ", key));
  return missing.value_or(0);
}

int32_t JsonReader::ToInt(const char* key, const nlohmann::json& value, int64_t min, int64_t max) {
  if (value.is_number_integer()) {
    // A number beyond int64 is beyond every bound as well.
    const bool huge = value.is_number_unsigned() &&
                      value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()};
    const int64_t number = huge ? 0 : value.get<int64_t>();
    if (!huge && number >= min && number <= max) return static_cast<int32_t>(number);
  }
  FailType(key, value, absl::StrCat("an integer in [", min, ", ", max, "]"));
  return 0;
}

float JsonReader::Float(const char* key, double min, double max, std::optional<float> missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!missing.has_value()) Fail(absl::StrCat("has no ", key));
    return missing.value_or(0.0f);
  }
  const double number = value->is_number() ? value->get<double>() : min - 1;
  if (!(number >= min && number <= max)) {
    FailType(key, *value, absl::StrCat("a number in [", min, ", ", max, "]"));
    return 0.0f;
  }
  return static_cast<float>(number);
}

bool JsonReader::Bool(const char* key, bool missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return missing;
  if (!value->is_boolean()) FailType(key, *value, "true or false");
  return value->is_boolean() && value->get<bool>();
}

std::string JsonReader::String(const char* key, absl::string_view missing) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::string(missing);
  const auto* text = value->get_ptr<const std::string*>();
  if (text == nullptr) FailType(key, *value, "a string");
  return text == nullptr ? std::string() : *text;
}

}  // namespace lacuna
