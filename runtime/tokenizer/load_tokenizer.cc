#include "runtime/tokenizer/load_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/file.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/bpe_tokenizer.h"
#include "runtime/tokenizer/gpt2_files.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"
#include "runtime/tokenizer/tokenizer_config.h"
#include "runtime/tokenizer/tokenizer_json.h"

namespace lacuna {
namespace {

// GPT-2's has 0.5 MB.
constexpr int64_t kMaxMergesFile = int64_t{32} << 20;

// Adds what the configuration knows of control tokens, BOS and EOS.
void ApplyConfig(const TokenizerConfig& config, BpeTokenizerSpec* spec) {
  absl::flat_hash_map<std::string, int32_t> ids;
  for (const AddedToken& token : spec->added_tokens) ids.emplace(token.content, token.id);
  absl::flat_hash_map<std::string_view, int32_t> vocab;
  for (const auto& [token, id] : spec->bpe.vocab) vocab.emplace(token, id);
  const auto find = [&](const std::string& token) {
    if (const auto it = ids.find(token); it != ids.end()) return it->second;
    const auto it = vocab.find(token);
    return it == vocab.end() ? -1 : it->second;
  };
  absl::flat_hash_set<int32_t> special_ids;
  for (const std::string& special : config.special_tokens) {
    const int32_t id = find(special);
    if (id < 0) continue;  // named in the configuration only
    if (ids.emplace(special, id).second) {
      spec->added_tokens.push_back({.content = special, .id = id});
    }
    special_ids.insert(id);
  }
  for (AddedToken& token : spec->added_tokens) token.special |= special_ids.contains(token.id);
  spec->bos_id = find(config.bos_token);
  spec->eos_id = find(config.eos_token);
  if (!config.add_bos_token.has_value() || spec->bos_id < 0) return;
  std::vector<int32_t>& prefix = spec->prefix_ids;
  const bool has_bos = !prefix.empty() && prefix.front() == spec->bos_id;
  if (*config.add_bos_token && !has_bos) prefix.insert(prefix.begin(), spec->bos_id);
  if (!*config.add_bos_token && has_bos) prefix.erase(prefix.begin());
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeNamed(BpeTokenizerSpec spec,
                                                     const std::string& name) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeBpeTokenizer(std::move(spec));
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(name, ": ", tokenizer.status().message()));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(const std::string& path,
                                                             const TokenizerConfig& config) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxTokenizerJson);
  if (!text.ok()) return text.status();
  absl::StatusOr<BpeTokenizerSpec> spec = ParseTokenizerJson(*text, path);
  if (!spec.ok()) return spec.status();
  ApplyConfig(config, &*spec);
  return MakeNamed(*std::move(spec), path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGpt2Files(const std::string& directory,
                                                         TokenizerConfig config) {
  constexpr char kEndOfText[] = "<|endoftext|>";
  const absl::StatusOr<std::string> vocab = ReadFile(directory + "/vocab.json", kMaxTokenizerJson);
  if (!vocab.ok()) return vocab.status();
  const absl::StatusOr<std::string> merges = ReadFile(directory + "/merges.txt", kMaxMergesFile);
  if (!merges.ok()) return merges.status();
  absl::StatusOr<BpeTokenizerSpec> spec = ParseGpt2Files(*vocab, *merges, config.add_prefix_space);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(),
                        absl::StrCat(directory, ": ", spec.status().message()));
  }
  absl::flat_hash_map<std::string, AddedToken> added;  // tokenizer_config.json comes first
  for (const AddedToken& token : config.added_tokens) added.emplace(token.content, token);
  for (auto& [content, token] : added) spec->added_tokens.push_back(std::move(token));
  if (config.special_tokens.empty()) {
    config.special_tokens = {kEndOfText};
    config.bos_token = config.eos_token = kEndOfText;
  }
  ApplyConfig(config, &*spec);
  return MakeNamed(*std::move(spec), directory);
}

// The first added token that is not among `size` ids, or null.
const AddedToken* FirstBeyond(const TokenizerConfig& config, int32_t size) {
  const auto it = std::find_if(config.added_tokens.begin(), config.added_tokens.end(),
                               [size](const AddedToken& token) { return token.id >= size; });
  return it == config.added_tokens.end() ? nullptr : &*it;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory) {
  absl::StatusOr<TokenizerConfig> config = ReadTokenizerConfig(model_directory);
  if (!config.ok()) return config.status();
  const std::string model = model_directory + "/tokenizer.model";
  const std::string json = model_directory + "/tokenizer.json";
  absl::flat_hash_set<std::string> control(config->special_tokens.begin(),
                                           config->special_tokens.end());
  for (const AddedToken& token : config->added_tokens) {
    if (token.special) control.insert(token.content);
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadSentencePieceTokenizer(model, config->add_bos_token.value_or(true), control);
  if (tokenizer.ok()) {
    const AddedToken* beyond = FirstBeyond(*config, (*tokenizer)->vocab_size());
    if (beyond == nullptr) return tokenizer;
    tokenizer = LoadTokenizerJson(json, *config);
    if (!absl::IsNotFound(tokenizer.status())) return tokenizer;
    return absl::InvalidArgumentError(absl::StrCat(
        model, " has no token ", beyond->id, ", which another file adds as ",
        Quoted(beyond->content), "; a tokenizer.json, which would have it, is not there"));
  }
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer;
  tokenizer = LoadTokenizerJson(json, *config);
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer;
  tokenizer = LoadGpt2Files(model_directory, *std::move(config));
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer;
  return absl::NotFoundError(
      absl::StrCat(model_directory,
                   " has no tokenizer.model, no tokenizer.json, and not both vocab.json and "
                   "merges.txt"));
}

}  // namespace lacuna
