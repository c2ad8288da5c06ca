#include "runtime/tokenizer/load_tokenizer.h"

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"

namespace lacuna {
namespace {

// Real ones hold little more than the added tokens.
constexpr int64_t kMaxTokenizerConfig = int64_t{16} << 20;

// add_bos_token of a tokenizer_config.json; true without the key or the file.
absl::StatusOr<bool> ReadAddBos(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxTokenizerConfig);
  if (absl::IsNotFound(text.status())) return true;
  if (!text.ok()) return text.status();
  absl::StatusOr<nlohmann::json> config = ParseJsonObject(*text, path);
  if (!config.ok()) return config.status();
  JsonReader reader(*config, path);
  const bool add_bos = reader.Bool("add_bos_token", true);
  if (!reader.status().ok()) return reader.status();
  return add_bos;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_directory) {
  const absl::StatusOr<bool> add_bos =
      ReadAddBos(absl::StrCat(model_directory, "/tokenizer_config.json"));
  if (!add_bos.ok()) return add_bos.status();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadSentencePieceTokenizer(absl::StrCat(model_directory, "/tokenizer.model"), *add_bos);
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer;
  if (RegularFile::Open(absl::StrCat(model_directory, "/tokenizer.json")).ok()) {
    return absl::UnimplementedError(
        absl::StrCat(model_directory,
                     " has tokenizer.json but no tokenizer.model; this build reads the latter"));
  }
  return absl::NotFoundError(absl::StrCat(model_directory, " has no tokenizer.model"));
}

}  // namespace lacuna
