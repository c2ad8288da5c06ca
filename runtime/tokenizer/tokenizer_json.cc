#include "runtime/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/text_steps_json.h"

namespace lacuna {
namespace {

// Bounds what is looked for at every byte of a text.
constexpr size_t kMaxAddedTokens = 1 << 16;

void ReadVocab(JsonReader* reader, BpeSpec* spec) {
  const nlohmann::json* vocab = reader->Find("vocab");
  if (vocab == nullptr || !vocab->is_object()) return reader->Fail("has no object vocab");
  spec->vocab.reserve(vocab->size());
  for (const auto& [token, id] : vocab->items()) {
    spec->vocab.emplace_back(token, reader->ToInt("vocab", id, 0, kMaxTokenId));
    if (!reader->status().ok()) return;
  }
}

// Merges are "a b", or ["a", "b"] where tokens may have spaces.
void ReadMerges(JsonReader* reader, BpeSpec* spec) {
  const nlohmann::json* merges = reader->Find("merges");
  if (merges == nullptr || !merges->is_array()) return reader->Fail("has no list merges");
  spec->merges.reserve(merges->size());
  for (const nlohmann::json& merge : *merges) {
    if (const auto* text = merge.get_ptr<const std::string*>()) {
      if (absl::StartsWith(*text, "#version")) continue;
      const size_t space = text->find(' ');
      if (space == std::string::npos || text->find(' ', space + 1) != std::string::npos) {
        return reader->Fail(absl::StrCat("has the merge ", Quoted(*text), ", expected two tokens"));
      }
      spec->merges.emplace_back(text->substr(0, space), text->substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec->merges.emplace_back(*merge[0].get_ptr<const std::string*>(),
                                *merge[1].get_ptr<const std::string*>());
    } else {
      return reader->Fail(
          absl::StrCat("has a merge, number ", spec->merges.size(), ", that is no pair of tokens"));
    }
  }
}

absl::Status ParseModel(const nlohmann::json& object, const std::string& name, BpeSpec* spec) {
  JsonReader reader(object, name);
  // Old files do not say the type; only BPE has merges.
  const std::string type = reader.String("type", reader.Find("merges") == nullptr ? "" : "BPE");
  if (type != "BPE") {
    reader.Unimplemented(absl::StrCat("type ", Quoted(type), "; \"BPE\" is supported"));
    return reader.status();
  }
  if (reader.Float("dropout", 0.0, 1.0, 0.0f) > 0.0f) reader.Unimplemented("dropout");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!reader.String(key, "").empty()) reader.Unimplemented(key);
  }
  spec->unk_token = reader.String("unk_token", "");
  spec->fuse_unk = reader.Bool("fuse_unk", false);
  spec->byte_fallback = reader.Bool("byte_fallback", false);
  spec->ignore_merges = reader.Bool("ignore_merges", false);
  if (spec->byte_level && spec->byte_fallback) reader.Unimplemented("byte_fallback at byte level");
  ReadVocab(&reader, spec);
  if (reader.status().ok()) ReadMerges(&reader, spec);
  return reader.status();
}

void ReadAddedTokens(JsonReader* reader, std::vector<AddedToken>* tokens) {
  if (reader->Find("added_tokens") == nullptr) return;
  for (const nlohmann::json* object : ObjectsIn("added_tokens", reader)) {
    if (tokens->size() == kMaxAddedTokens) {
      return reader->Fail(absl::StrCat("has more than ", kMaxAddedTokens, " added tokens"));
    }
    JsonReader token(*object, "tokenizer.json: an added token");
    AddedToken added;
    added.content = token.String("content", "");
    added.id = token.Int("id", 0, kMaxTokenId);
    added.special = token.Bool("special", false);
    added.normalized = token.Bool("normalized", true);
    added.lstrip = token.Bool("lstrip", false);
    added.rstrip = token.Bool("rstrip", false);
    added.single_word = token.Bool("single_word", false);
    reader->Update(token.status());
    if (!reader->status().ok()) return;
    tokens->push_back(std::move(added));
  }
}

absl::Status ParseDecoder(const nlohmann::json& object, const std::string& name, bool byte_level,
                          bool* fused, TokenPrinting* printing) {
  JsonReader reader(object, name);
  const std::string type = reader.String("type", "");
  if ((type == "ByteLevel") != byte_level && type != "Sequence") {
    reader.Unimplemented(absl::StrCat(
        "a decoder of type ", Quoted(type),
        byte_level ? " for a pre-tokenizer of type \"ByteLevel\"" : " for another pre-tokenizer"));
  } else if (type == "Sequence") {
    for (const nlohmann::json* step : ObjectsIn("decoders", &reader)) {
      if (!reader.status().ok()) break;
      reader.Update(ParseDecoder(*step, name, byte_level, fused, printing));
    }
  } else if (type == "ByteFallback") {
    printing->byte_fallback = true;
  } else if (type == "Fuse") {
    *fused = true;
  } else if (type == "Metaspace" && !*fused) {
    printing->replacements.emplace_back(ReadSpaceSymbol(&reader), " ");
    if (ReadPrependScheme(&reader) != PrependScheme::kNever) {
      printing->leading_spaces = TokenPrinting::LeadingSpaces::kFirstTokenRemoved;
    }
  } else if (type == "Replace" && !*fused) {
    const nlohmann::json* pattern = reader.Find("pattern");
    const bool literal = pattern != nullptr && pattern->is_object() &&
                         pattern->contains("String") && (*pattern)["String"].is_string();
    std::string from = literal ? (*pattern)["String"].get<std::string>() : "";
    if (from.empty()) reader.Unimplemented("a decoder that replaces anything but a string");
    std::string content = reader.String("content", "");
    if (content.size() > from.size()) reader.Unimplemented("a decoder that makes tokens longer");
    printing->replacements.emplace_back(std::move(from), std::move(content));
  } else if (type == "Strip" && *fused) {
    if (reader.String("content", "") != " " || reader.Int("start", 0, 1 << 20) != 1 ||
        reader.Int("stop", 0, 1 << 20) != 0) {
      reader.Unimplemented("a decoder that strips anything but one leading space");
    }
    printing->leading_spaces = TokenPrinting::LeadingSpaces::kOneRemoved;
  } else if (type != "ByteLevel") {
    reader.Unimplemented(
        absl::StrCat("a decoder of type ", Quoted(type), *fused ? " after \"Fuse\"" : ""));
  }
  return reader.status();
}

// On one side of a text; real ones have one or two.
constexpr size_t kMaxTemplateIds = 64;

// The ids of a special token in a TemplateProcessing object.
void AddTemplateToken(const nlohmann::json& token, JsonReader* reader, std::vector<int32_t>* ids) {
  const JsonReader piece(token, "");
  const nlohmann::json* id = piece.Find("id");
  const nlohmann::json* specials = reader->Find("special_tokens");
  if (id == nullptr || !id->is_string() || specials == nullptr || !specials->is_object()) {
    return reader->Fail("has a special token without id or no object special_tokens");
  }
  const auto& content = *id->get_ptr<const std::string*>();
  const auto special = specials->find(content);
  if (special == specials->end() || !special->is_object() || !special->contains("ids") ||
      !(*special)["ids"].is_array()) {
    return reader->Fail(absl::StrCat("has no ids for the special token ", Quoted(content)));
  }
  if (ids->size() + (*special)["ids"].size() > kMaxTemplateIds) {
    return reader->Fail(absl::StrCat("puts more than ", kMaxTemplateIds, " ids around a text"));
  }
  for (const nlohmann::json& value : (*special)["ids"]) {
    ids->push_back(reader->ToInt("ids", value, 0, kMaxTokenId));
  }
}

absl::Status ParsePostProcessor(const nlohmann::json& object, const std::string& name,
                                BpeTokenizerSpec* spec) {
  JsonReader reader(object, name);
  const std::string type = reader.String("type", "");
  if (type == "Sequence") {
    for (const nlohmann::json* step : ObjectsIn("processors", &reader)) {
      if (reader.status().ok()) reader.Update(ParsePostProcessor(*step, name, spec));
    }
  } else if (type == "TemplateProcessing") {
    if (!spec->prefix_ids.empty() || !spec->suffix_ids.empty()) {
      reader.Unimplemented("two processors of type \"TemplateProcessing\"");
    }
    std::vector<int32_t>* ids = &spec->prefix_ids;
    for (const nlohmann::json* piece : ObjectsIn("single", &reader)) {
      if (piece->contains("Sequence") && ids == &spec->prefix_ids) {
        ids = &spec->suffix_ids;
      } else if (piece->contains("SpecialToken") && (*piece)["SpecialToken"].is_object()) {
        AddTemplateToken((*piece)["SpecialToken"], &reader, ids);
      } else {
        reader.Fail("has a \"single\" that is not special tokens and one sequence");
      }
    }
  } else if (type != "ByteLevel") {  // that one only moves offsets
    reader.Unimplemented(absl::StrCat("a processor of type ", Quoted(type)));
  }
  return reader.status();
}

}  // namespace

absl::StatusOr<BpeTokenizerSpec> ParseTokenizerJson(std::string_view text,
                                                    const std::string& name) {
  const absl::StatusOr<nlohmann::json> document = ParseJsonObject(text, name);
  if (!document.ok()) return document.status();
  JsonReader reader(*document, name);
  // Null where there is none.
  const auto object = [&](const char* key) -> const nlohmann::json* {
    const nlohmann::json* value = reader.Find(key);
    if (value != nullptr && !value->is_object()) reader.Fail(absl::StrCat("has no object ", key));
    return value != nullptr && value->is_object() ? value : nullptr;
  };
  BpeTokenizerSpec spec;
  if (const nlohmann::json* normalizer = object("normalizer")) {
    reader.Update(ParseNormalizer(*normalizer, name + ": normalizer", &spec.normalizers));
  }
  if (const nlohmann::json* pre_tokenizer = object("pre_tokenizer")) {
    reader.Update(ParsePreTokenizer(*pre_tokenizer, name + ": pre_tokenizer", &spec.pre_tokenizers,
                                    &spec.bpe.byte_level));
  }
  if (const nlohmann::json* decoder = object("decoder")) {
    bool fused = false;
    reader.Update(
        ParseDecoder(*decoder, name + ": decoder", spec.bpe.byte_level, &fused, &spec.printing));
  } else {
    reader.Unimplemented("no decoder, which would put a space between any two tokens");
  }
  if (const nlohmann::json* processor = object("post_processor")) {
    reader.Update(ParsePostProcessor(*processor, name + ": post_processor", &spec));
  }
  ReadAddedTokens(&reader, &spec.added_tokens);
  const nlohmann::json* model = object("model");
  if (model == nullptr) reader.Fail("has no object model");
  if (!reader.status().ok()) return reader.status();
  if (absl::Status status = ParseModel(*model, name + ": model", &spec.bpe); !status.ok()) {
    return status;
  }
  return spec;
}

}  // namespace lacuna
