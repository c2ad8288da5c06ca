#include "runtime/tokenizer/gpt2_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"

namespace lacuna {

absl::StatusOr<BpeTokenizerSpec> ParseGpt2Files(std::string_view vocab, std::string_view merges,
                                                bool add_prefix_space) {
  BpeTokenizerSpec spec;
  spec.bpe.byte_level = true;
  const absl::StatusOr<nlohmann::json> object = ParseJsonObject(vocab, "vocab.json");
  if (!object.ok()) return object.status();
  JsonReader reader(*object, "vocab.json");
  for (const auto& [token, id] : object->items()) {
    spec.bpe.vocab.emplace_back(token, reader.ToInt(token.c_str(), id, 0, kMaxTokenId));
    if (!reader.status().ok()) return reader.status();
  }

  for (int64_t number = 1; !merges.empty(); ++number) {
    const size_t end = std::min(merges.find('\n'), merges.size());
    std::string_view line = merges.substr(0, end);
    merges.remove_prefix(std::min(end + 1, merges.size()));
    while (line.ends_with('\r') || line.ends_with(' ')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos ||
        !IsValidUtf8(line)) {
      return absl::InvalidArgumentError(
          absl::StrCat("merges.txt, line ", number, ": ", Quoted(line), " is not two tokens"));
    }
    spec.bpe.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }

  absl::StatusOr<Regex> pattern = Regex::Compile(kGpt2Pattern);
  if (!pattern.ok()) return pattern.status();
  if (add_prefix_space) spec.pre_tokenizers.push_back(AddPrefixSpace());
  spec.pre_tokenizers.push_back(
      SplitByPattern(*std::move(pattern), SplitBehavior::kIsolated, /*invert=*/false));
  return spec;
}

}  // namespace lacuna
