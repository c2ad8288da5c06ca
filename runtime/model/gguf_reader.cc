#include "runtime/model/gguf_reader.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

template <typename T>
T Element(const GgufValue& value, uint64_t i) {
  T element;
  std::memcpy(&element, value.bytes.data() + i * sizeof(T), sizeof(T));
  return element;
}

// Element i of numbers; a 64-bit one that does not fit is the nearest that does. Empty for other
// types.
std::optional<int64_t> Integer(const GgufValue& value, uint64_t i) {
  switch (value.type) {
    case GgufValueType::kUint8:
      return Element<uint8_t>(value, i);
    case GgufValueType::kInt8:
      return Element<int8_t>(value, i);
    case GgufValueType::kUint16:
      return Element<uint16_t>(value, i);
    case GgufValueType::kInt16:
      return Element<int16_t>(value, i);
    case GgufValueType::kUint32:
      return Element<uint32_t>(value, i);
    case GgufValueType::kInt32:
      return Element<int32_t>(value, i);
    case GgufValueType::kInt64:
      return Element<int64_t>(value, i);
    case GgufValueType::kUint64: {
      const uint64_t number = Element<uint64_t>(value, i);
      constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
      return number > static_cast<uint64_t>(kMax) ? kMax : static_cast<int64_t>(number);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> Real(const GgufValue& value, uint64_t i) {
  if (value.type == GgufValueType::kFloat32) return Element<float>(value, i);
  if (value.type == GgufValueType::kFloat64) return Element<double>(value, i);
  const std::optional<int64_t> integer = Integer(value, i);
  return integer.has_value() ? std::optional<double>(static_cast<double>(*integer)) : std::nullopt;
}

bool ElementsAreEqual(const GgufValue& value) {
  const size_t size = value.bytes.size() / value.count;
  return std::memcmp(value.bytes.data(), value.bytes.data() + size, value.bytes.size() - size) == 0;
}

}  // namespace

void GgufReader::Fail(absl::string_view what) { status_.Update(absl::InvalidArgumentError(what)); }

void GgufReader::Unimplemented(absl::string_view what) {
  status_.Update(absl::UnimplementedError(absl::StrCat("the file asks for ", what)));
}

void GgufReader::FailType(const std::string& key, absl::string_view expected) {
  Fail(absl::StrCat("key ", Quoted(key), " is not ", expected));
}

const GgufValue* GgufReader::Find(const std::string& key) const {
  const auto it = header_.metadata.find(key);
  return it == header_.metadata.end() ? nullptr : &it->second;
}

int32_t GgufReader::Int(const std::string& key, int64_t min, int64_t max,
                        std::optional<int32_t> missing) {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    if (!missing.has_value()) Fail(absl::StrCat("there is no key ", Quoted(key)));
    return missing.value_or(0);
  }
  const std::optional<int64_t> number = value->count == 0 ? std::nullopt : Integer(*value, 0);
  if (!number.has_value()) {
    FailType(key, "a whole number");
    return 0;
  }
  if (!ElementsAreEqual(*value)) {
    Unimplemented(absl::StrCat("layers that differ in ", Quoted(key)));
    return 0;
  }
  if (*number < min || *number > max) {
    Fail(absl::StrCat("key ", Quoted(key), " is ", *number, ", expected a number in [", min, ", ",
                      max, "]"));
    return 0;
  }
  return static_cast<int32_t>(*number);
}

float GgufReader::Float(const std::string& key, double min, double max,
                        std::optional<float> missing) {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    if (!missing.has_value()) Fail(absl::StrCat("there is no key ", Quoted(key)));
    return missing.value_or(0.0f);
  }
  const std::optional<double> number = value->is_array ? std::nullopt : Real(*value, 0);
  if (!number.has_value()) {
    FailType(key, "a number");
    return 0;
  }
  if (!(*number >= min && *number <= max)) {
    Fail(absl::StrCat("key ", Quoted(key), " is ", *number, ", expected a number in [", min, ", ",
                      max, "]"));
    return 0;
  }
  return static_cast<float>(*number);
}

bool GgufReader::Bool(const std::string& key, bool missing) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return missing;
  if (value->type != GgufValueType::kBool || value->is_array) {
    FailType(key, "true or false");
    return missing;
  }
  return Element<uint8_t>(*value, 0) != 0;
}

std::string_view GgufReader::String(const std::string& key, std::string_view missing) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return missing;
  if (value->type != GgufValueType::kString || value->is_array) {
    FailType(key, "a text");
    return missing;
  }
  return value->bytes.substr(sizeof(uint64_t));
}

std::vector<std::string_view> GgufReader::Strings(const std::string& key) {
  std::vector<std::string_view> texts;
  const GgufValue* value = Find(key);
  if (value == nullptr) return texts;
  if (value->type != GgufValueType::kString || !value->is_array) {
    FailType(key, "an array of texts");
    return texts;
  }
  if (value->count > kMaxGgufTexts) {
    Fail(absl::StrCat("key ", Quoted(key), " lists ", value->count, " texts, the limit is ",
                      kMaxGgufTexts));
    return texts;
  }
  texts.reserve(value->count);
  for (std::string_view rest = value->bytes; !rest.empty();) {
    uint64_t length = 0;
    std::memcpy(&length, rest.data(), sizeof(length));
    texts.push_back(rest.substr(sizeof(length), length));
    rest.remove_prefix(sizeof(length) + length);
  }
  return texts;
}

std::vector<float> GgufReader::Floats(const std::string& key) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return {};
  if (value->type != GgufValueType::kFloat32 || !value->is_array) {
    FailType(key, "an array of 32-bit floats");
    return {};
  }
  std::vector<float> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) numbers[i] = Element<float>(*value, i);
  return numbers;
}

std::vector<int32_t> GgufReader::Ints(const std::string& key) {
  const GgufValue* value = Find(key);
  if (value == nullptr) return {};
  if ((value->type != GgufValueType::kInt32 && value->type != GgufValueType::kUint32) ||
      !value->is_array) {
    FailType(key, "an array of 32-bit whole numbers");
    return {};
  }
  std::vector<int32_t> numbers(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const int64_t number = *Integer(*value, i);
    if (number > std::numeric_limits<int32_t>::max()) {
      FailType(key, "an array of numbers below 2^31");
      return {};
    }
    numbers[i] = static_cast<int32_t>(number);
  }
  return numbers;
}

}  // namespace lacuna
