#ifndef LACUNA_RUNTIME_CHAT_CHAT_TEMPLATE_H_
#define LACUNA_RUNTIME_CHAT_CHAT_TEMPLATE_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/byte_range.h"
#include "runtime/chat/ast.h"

namespace lacuna {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // UTF-8
};

// A conversation as the model was trained to see it.
struct ChatPrompt {
  std::string text;
  std::vector<ByteRange> content;  // what comes out of messages; sorted, disjoint
};

// The Jinja template with which a model turns conversations into prompts, in the subset that chat
// templates use, with Hugging Face's settings. A template comes from a model's files, so it is not
// trusted: what it may do is bounded. Immutable and thread-safe.
class ChatTemplate {
 public:
  // `special_tokens` are its variables bos_token, eos_token, ... INVALID_ARGUMENT, with the line,
  // says what is broken; UNIMPLEMENTED names what is not supported.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(
      std::string_view source, std::map<std::string, std::string> special_tokens);

  // The prompt for the answer to `messages`. INVALID_ARGUMENT if the template raises an exception,
  // does something that is not supported, or takes too much work for so much text.
  absl::StatusOr<ChatPrompt> Render(const std::vector<ChatMessage>& messages) const;

 private:
  ChatTemplate() = default;

  jinja::Block block_;
  size_t source_bytes_ = 0;
  std::map<std::string, std::string> special_tokens_;
};

// The chat template of a Hugging Face directory: chat_template.jinja, else chat_template of
// tokenizer_config.json (of several, the one called "default"). NOT_FOUND if there is none; other
// errors, which name the file, as for Create.
absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadChatTemplate(const std::string& model_directory);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_CHAT_CHAT_TEMPLATE_H_
