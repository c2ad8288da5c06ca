#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/utf8.h"
#include "runtime/tokenizer/tokenizer_json.h"
#include "tests/fuzz/fuzz_check.h"

// Input: a tokenizer.json.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto is_expected = [](const absl::Status& status) {
    return status.code() == absl::StatusCode::kInvalidArgument ||
           status.code() == absl::StatusCode::kUnimplemented;
  };
  auto spec = lacuna::ParseTokenizerJson(
      std::string_view(reinterpret_cast<const char*>(data), size), "tokenizer.json");
  if (!spec.ok()) {
    FUZZ_CHECK(is_expected(spec.status()));
    return 0;
  }
  const auto tokenizer = lacuna::MakeBpeTokenizer(*std::move(spec));
  if (!tokenizer.ok()) {
    FUZZ_CHECK(is_expected(tokenizer.status()));
    return 0;
  }
  const lacuna::Tokenizer& t = **tokenizer;
  for (const std::string_view text :
       {"", "a", "  the house  x\u00E9\u65E5\U0001F600<s></s>\t\n", "aaaaaaaaaaaaaaaa", "\uFB01"}) {
    const auto ids = t.Encode(text, /*add_special=*/true);
    const auto markup = t.EncodeMarkup(text, {});
    if (!ids.ok()) {  // a hostile pattern or normalizer
      FUZZ_CHECK(is_expected(ids.status()));
      continue;
    }
    for (const int32_t id : *ids) FUZZ_CHECK(id >= 0 && id < t.vocab_size());
    if (markup.ok()) {
      for (const int32_t id : *markup) FUZZ_CHECK(id >= 0 && id < t.vocab_size());
    }
    const auto decoded = t.Decode(*ids);
    FUZZ_CHECK(decoded.ok() && lacuna::IsValidUtf8(*decoded));
  }
  std::vector<int32_t> all;
  for (int32_t id = 0; id < std::min(t.vocab_size(), 2000); ++id) {
    FUZZ_CHECK(t.TokenBytes(id).size() <= 4096);
    all.push_back(id);
  }
  const auto decoded = t.Decode(all);
  FUZZ_CHECK(decoded.ok() && lacuna::IsValidUtf8(*decoded));
  return 0;
}
