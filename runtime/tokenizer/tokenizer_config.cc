#include "runtime/tokenizer/tokenizer_config.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/bpe_model.h"

namespace lacuna {
namespace {

// An empty object if there is no such file.
absl::StatusOr<nlohmann::json> ReadJsonIfThere(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxTokenizerConfig);
  if (absl::IsNotFound(text.status())) return nlohmann::json::object();
  if (!text.ok()) return text.status();
  return ParseJsonObject(*text, path);
}

// A special token is a string or an added token's object. Empty if it is not there.
std::string TokenContent(const char* key, const nlohmann::json& value, JsonReader* reader) {
  const nlohmann::json* content = &value;
  if (value.is_object() && value.contains("content")) content = &value["content"];
  const auto* text = content->get_ptr<const std::string*>();
  if (text == nullptr) reader->Fail(absl::StrCat("has a ", key, " that is not a token"));
  return text == nullptr ? std::string() : *text;
}

void ReadSpecialTokens(JsonReader* reader, TokenizerConfig* config) {
  const auto read = [&](const char* key) -> std::string {
    const nlohmann::json* value = reader->Find(key);
    // Some files say false.
    if (value == nullptr || value->is_boolean()) return "";
    std::string token = TokenContent(key, *value, reader);
    if (!token.empty()) {
      config->special_tokens.push_back(token);
      config->named_tokens.emplace(key, token);
    }
    return token;
  };
  const std::string bos = read("bos_token");
  const std::string eos = read("eos_token");
  if (config->bos_token.empty()) config->bos_token = bos;
  if (config->eos_token.empty()) config->eos_token = eos;
  for (const char* key : {"unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
    read(key);
  }
  const nlohmann::json* others = reader->Find("additional_special_tokens");
  if (others == nullptr || !others->is_array()) return;
  for (const nlohmann::json& other : *others) {
    config->special_tokens.push_back(TokenContent("additional_special_tokens", other, reader));
  }
}

// "added_tokens_decoder": {"32000": {"content": "<|im_end|>", "special": true}}.
void ReadAddedTokensDecoder(JsonReader* reader, TokenizerConfig* config) {
  const nlohmann::json* decoder = reader->Find("added_tokens_decoder");
  if (decoder == nullptr) return;
  if (!decoder->is_object()) return reader->Fail("has no object added_tokens_decoder");
  for (const auto& [key, value] : decoder->items()) {
    int32_t id = -1;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || id > kMaxTokenId || !value.is_object()) {
      return reader->Fail(absl::StrCat("has no token in added_tokens_decoder for ", Quoted(key)));
    }
    JsonReader token(value, "tokenizer_config.json: an added token");
    config->added_tokens.push_back({.content = token.String("content", ""),
                                    .id = id,
                                    .special = token.Bool("special", false),
                                    .normalized = token.Bool("normalized", true),
                                    .lstrip = token.Bool("lstrip", false),
                                    .rstrip = token.Bool("rstrip", false),
                                    .single_word = token.Bool("single_word", false)});
    reader->Update(token.status());
  }
}

}  // namespace

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& directory) {
  TokenizerConfig config;
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string path = absl::StrCat(directory, "/", file);
    const absl::StatusOr<nlohmann::json> object = ReadJsonIfThere(path);
    if (!object.ok()) return object.status();
    JsonReader reader(*object, path);
    if (reader.Find("add_bos_token") != nullptr) {
      config.add_bos_token = reader.Bool("add_bos_token", false);
    }
    config.add_prefix_space |= reader.Bool("add_prefix_space", false);
    ReadSpecialTokens(&reader, &config);
    ReadAddedTokensDecoder(&reader, &config);
    if (!reader.status().ok()) return reader.status();
  }
  // {"<|im_end|>": 32000}
  const std::string path = directory + "/added_tokens.json";
  const absl::StatusOr<nlohmann::json> added = ReadJsonIfThere(path);
  if (!added.ok()) return added.status();
  JsonReader reader(*added, path);
  for (const auto& [content, id] : added->items()) {
    config.added_tokens.push_back(
        {.content = content, .id = reader.ToInt(content.c_str(), id, 0, kMaxTokenId)});
  }
  if (!reader.status().ok()) return reader.status();
  return config;
}

}  // namespace lacuna
