#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"
#include "tests/fuzz/fuzz_check.h"

// Input: a tokenizer.model.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tokenizer = lacuna::MakeSentencePieceTokenizer(
      std::string_view(reinterpret_cast<const char*>(data), size));
  if (!tokenizer.ok()) {
    FUZZ_CHECK(tokenizer.status().code() == absl::StatusCode::kInvalidArgument ||
               tokenizer.status().code() == absl::StatusCode::kUnimplemented);
    return 0;
  }
  const lacuna::Tokenizer& t = **tokenizer;
  FUZZ_CHECK(t.bos_id() < t.vocab_size() && t.eos_id() < t.vocab_size());
  for (const std::string_view text :
       {"", "a", "  the house  x\u00E9\u65E5\U0001F600<s></s>\t\n", "aaaaaaaaaaaaaaaa", "\uFB01"}) {
    const auto ids = t.Encode(text, /*add_special=*/true);
    FUZZ_CHECK(ids.ok());
    for (const int32_t id : *ids) FUZZ_CHECK(id >= 0 && id < t.vocab_size());
    const auto decoded = t.Decode(*ids);
    FUZZ_CHECK(decoded.ok() && lacuna::IsValidUtf8(*decoded));
  }
  std::vector<int32_t> all;
  for (int32_t id = 0; id < std::min(t.vocab_size(), 2000); ++id) {
    FUZZ_CHECK(t.TokenBytes(id).size() <= 1024);
    all.push_back(id);
  }
  const auto decoded = t.Decode(all);
  FUZZ_CHECK(decoded.ok() && lacuna::IsValidUtf8(*decoded));
  return 0;
}
