#include <string_view>

#include "runtime/base/utf8.h"
#include "runtime/chat/chat_template.h"
#include "tests/fuzz/fuzz_check.h"

// Input: a chat template.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto is_expected = [](const absl::Status& status) {
    return status.code() == absl::StatusCode::kInvalidArgument ||
           status.code() == absl::StatusCode::kUnimplemented;
  };
  const auto chat_template =
      lacuna::ChatTemplate::Create(std::string_view(reinterpret_cast<const char*>(data), size),
                                   {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  if (!chat_template.ok()) {
    FUZZ_CHECK(is_expected(chat_template.status()));
    return 0;
  }
  const auto prompt = (*chat_template)
                          ->Render({{"system", "be brief"},
                                    {"user", "h\u00E9llo {{ 1 }} </s>\n"},
                                    {"assistant", "<think>\nx\n</think> a, b"},
                                    {"user", ""}});
  if (!prompt.ok()) {
    FUZZ_CHECK(is_expected(prompt.status()));
    return 0;
  }
  FUZZ_CHECK(lacuna::IsValidUtf8(prompt->text));
  size_t end = 0;
  for (const lacuna::ByteRange& range : prompt->content) {
    FUZZ_CHECK(range.begin >= end && range.begin < range.end && range.end <= prompt->text.size());
    end = range.end;
  }
  return 0;
}
