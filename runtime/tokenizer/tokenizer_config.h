#ifndef LACUNA_RUNTIME_TOKENIZER_TOKENIZER_CONFIG_H_
#define LACUNA_RUNTIME_TOKENIZER_TOKENIZER_CONFIG_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/added_tokens.h"

namespace lacuna {

// Real ones hold little more than the added tokens and a chat template.
inline constexpr int64_t kMaxTokenizerConfig = int64_t{16} << 20;

// What tokenizer_config.json, special_tokens_map.json and added_tokens.json of a directory say
// about its tokenizer.
struct TokenizerConfig {
  std::optional<bool> add_bos_token;
  bool add_prefix_space = false;
  std::string bos_token;  // empty: not said
  std::string eos_token;
  std::vector<std::string> special_tokens;          // the two and others: <pad>, <|im_end|> ...
  std::map<std::string, std::string> named_tokens;  // of these, by key: bos_token, unk_token ...
  std::vector<AddedToken> added_tokens;             // ids and contents may repeat
};

// Files that are missing say nothing. INVALID_ARGUMENT names the file that is broken.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& directory);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_TOKENIZER_CONFIG_H_
