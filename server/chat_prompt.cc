#include "server/chat_prompt.h"

#include "absl/strings/str_cat.h"
#include "proto/status.h"

namespace lacuna {

absl::StatusOr<std::vector<int32_t>> EncodeMessages(const ModelHost& host, const std::string& name,
                                                    const std::vector<ChatMessage>& messages,
                                                    int64_t max_bytes) {
  const auto& chat_template = host.chat_template();
  if (!chat_template.ok()) {
    return InvalidFields({{name, absl::StrCat("the model ", host.name(), " takes no messages: ",
                                              chat_template.status().message())}});
  }
  const absl::StatusOr<ChatPrompt> prompt = (*chat_template)->Render(messages);
  if (!prompt.ok()) return InvalidFields({{name, std::string(prompt.status().message())}});
  if (static_cast<int64_t>(prompt->text.size()) > max_bytes) {
    return InvalidFields({{name, absl::StrCat("make a prompt of ", prompt->text.size(),
                                              " bytes, the limit is ", max_bytes)}});
  }
  return host.tokenizer().EncodeMarkup(prompt->text, prompt->content);
}

}  // namespace lacuna
