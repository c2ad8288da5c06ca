#include "runtime/tokenizer/text_steps_json.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/bpe_tokenizer.h"
#include "runtime/tokenizer/sentencepiece_model.h"

namespace lacuna {
namespace {

// What a normalizer puts into the text at one place.
constexpr size_t kMaxReplacement = 64;

// "pattern": {"String": ...} or {"Regex": ...}. Nothing if there is no match ever.
std::optional<Regex> ReadPattern(JsonReader* reader) {
  const nlohmann::json* pattern = reader->Find("pattern");
  const auto string_at = [&](const char* key) -> const std::string* {
    if (pattern == nullptr || !pattern->is_object()) return nullptr;
    const auto it = pattern->find(key);
    return it == pattern->end() ? nullptr : it->get_ptr<const std::string*>();
  };
  const std::string* literal = string_at("String");
  const std::string* regex = string_at("Regex");
  if (literal == nullptr && regex == nullptr) {
    reader->Fail("has no pattern {\"String\": ...} or {\"Regex\": ...}");
    return std::nullopt;
  }
  if (literal != nullptr && literal->empty()) return std::nullopt;
  absl::StatusOr<Regex> compiled =
      literal != nullptr ? Regex::Literal(*literal) : Regex::Compile(*regex);
  reader->Update(compiled.status());
  if (!compiled.ok()) return std::nullopt;
  return *std::move(compiled);
}

// A text that is put in, of at most kMaxReplacement bytes.
std::string ReadReplacement(const char* key, JsonReader* reader) {
  std::string text = reader->String(key, "");
  if (text.size() > kMaxReplacement) {
    reader->Fail(
        absl::StrCat("has a ", key, " of ", text.size(), " bytes, the limit is ", kMaxReplacement));
  }
  return text;
}

SplitBehavior ReadBehavior(JsonReader* reader) {
  const std::string behavior = reader->String("behavior", "");
  if (behavior == "Removed") return SplitBehavior::kRemoved;
  if (behavior == "Isolated") return SplitBehavior::kIsolated;
  if (behavior == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (behavior == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (behavior == "Contiguous") return SplitBehavior::kContiguous;
  reader->Unimplemented(absl::StrCat("behavior ", Quoted(behavior)));
  return SplitBehavior::kIsolated;
}

void AddSplit(absl::StatusOr<Regex> pattern, SplitBehavior behavior, bool invert,
              JsonReader* reader, std::vector<SplitStep>* steps) {
  reader->Update(pattern.status());
  if (pattern.ok()) steps->push_back(SplitByPattern(*std::move(pattern), behavior, invert));
}

}  // namespace

std::vector<const nlohmann::json*> ObjectsIn(const char* key, JsonReader* reader) {
  std::vector<const nlohmann::json*> objects;
  const nlohmann::json* list = reader->Find(key);
  if (list == nullptr || !list->is_array()) {
    reader->Fail(absl::StrCat("has no list ", key));
    return objects;
  }
  for (const nlohmann::json& object : *list) {
    if (object.is_object()) {
      objects.push_back(&object);
    } else {
      reader->Fail(absl::StrCat("has something in ", key, " that is not an object"));
    }
  }
  return objects;
}

PrependScheme ReadPrependScheme(JsonReader* reader) {
  const std::string scheme =
      reader->String("prepend_scheme", reader->Bool("add_prefix_space", true) ? "always" : "never");
  if (scheme == "always") return PrependScheme::kAlways;
  if (scheme == "first") return PrependScheme::kFirst;
  if (scheme != "never") reader->Fail(absl::StrCat("has prepend_scheme = ", Quoted(scheme)));
  return PrependScheme::kNever;
}

std::string ReadSpaceSymbol(JsonReader* reader) {
  std::string symbol = reader->String("replacement", kSpaceSymbol);
  if (symbol.empty() || Utf8CharLength(symbol) != static_cast<int>(symbol.size())) {
    reader->Fail(absl::StrCat("has replacement = ", Quoted(symbol), ", expected one character"));
  }
  return symbol;
}

absl::Status ParseNormalizer(const nlohmann::json& object, const std::string& name,
                             std::vector<NormalizeStep>* steps) {
  JsonReader reader(object, name);
  const std::string type = reader.String("type", "");
  if (steps->size() >= kMaxTextSteps) {
    reader.Fail(absl::StrCat("has more than ", kMaxTextSteps, " steps"));
  } else if (type == "Sequence") {
    for (const nlohmann::json* step : ObjectsIn("normalizers", &reader)) {
      if (reader.status().ok()) reader.Update(ParseNormalizer(*step, name, steps));
    }
  } else if (type == "NFC") {
    steps->push_back(UnicodeFormStep(UnicodeForm::kNfc));
  } else if (type == "NFD") {
    steps->push_back(UnicodeFormStep(UnicodeForm::kNfd));
  } else if (type == "NFKC") {
    steps->push_back(UnicodeFormStep(UnicodeForm::kNfkc));
  } else if (type == "NFKD") {
    steps->push_back(UnicodeFormStep(UnicodeForm::kNfkd));
  } else if (type == "Lowercase") {
    steps->push_back(LowercaseStep());
  } else if (type == "Strip") {
    steps->push_back(StripStep(reader.Bool("strip_left", true), reader.Bool("strip_right", true)));
  } else if (type == "Prepend") {
    steps->push_back(PrependStep(ReadReplacement("prepend", &reader)));
  } else if (type == "Replace") {
    std::optional<Regex> pattern = ReadPattern(&reader);
    std::string content = ReadReplacement("content", &reader);
    if (pattern.has_value()) steps->push_back(ReplaceStep(*std::move(pattern), std::move(content)));
  } else {
    reader.Unimplemented(absl::StrCat("a normalizer of type ", Quoted(type)));
  }
  return reader.status();
}

absl::Status ParsePreTokenizer(const nlohmann::json& object, const std::string& name,
                               std::vector<SplitStep>* steps, bool* byte_level) {
  JsonReader reader(object, name);
  const std::string type = reader.String("type", "");
  if (steps->size() >= kMaxTextSteps) {
    reader.Fail(absl::StrCat("has more than ", kMaxTextSteps, " steps"));
  } else if (*byte_level) {
    reader.Unimplemented(
        absl::StrCat("a pre-tokenizer of type ", Quoted(type), " after ByteLevel"));
  } else if (type == "Sequence") {
    for (const nlohmann::json* step : ObjectsIn("pretokenizers", &reader)) {
      if (reader.status().ok()) reader.Update(ParsePreTokenizer(*step, name, steps, byte_level));
    }
  } else if (type == "ByteLevel") {
    *byte_level = true;
    if (reader.Bool("add_prefix_space", true)) steps->push_back(AddPrefixSpace());
    if (reader.Bool("use_regex", true)) {
      AddSplit(Regex::Compile(kGpt2Pattern), SplitBehavior::kIsolated, false, &reader, steps);
    }
  } else if (type == "Split") {
    const SplitBehavior behavior = ReadBehavior(&reader);
    const bool invert = reader.Bool("invert", false);
    std::optional<Regex> pattern = ReadPattern(&reader);
    if (pattern.has_value()) {
      AddSplit(*std::move(pattern), behavior, invert, &reader, steps);
    }
  } else if (type == "Digits") {
    const bool each = reader.Bool("individual_digits", false);
    AddSplit(Regex::Compile("\\p{N}"), each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
             false, &reader, steps);
  } else if (type == "WhitespaceSplit") {
    AddSplit(Regex::Compile("\\s"), SplitBehavior::kRemoved, false, &reader, steps);
  } else if (type == "Metaspace") {
    std::string symbol = ReadSpaceSymbol(&reader);
    const PrependScheme scheme = ReadPrependScheme(&reader);
    const bool split = reader.Bool("split", true);
    if (reader.status().ok()) steps->push_back(SplitAtSpaces(std::move(symbol), scheme, split));
  } else {
    reader.Unimplemented(absl::StrCat("a pre-tokenizer of type ", Quoted(type)));
  }
  return reader.status();
}

}  // namespace lacuna
