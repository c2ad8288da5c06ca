#include "runtime/chat/chat_template.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/file.h"
#include "runtime/base/json.h"
#include "runtime/base/utf8.h"
#include "runtime/chat/evaluator.h"
#include "runtime/tokenizer/tokenizer_config.h"

namespace lacuna {
namespace {

// The longest of a family under test has 2,317.
constexpr size_t kMaxTemplateBytes = 256 << 10;

// Steps and bytes that a rendering may take: a few thousand steps are usual, and the template under
// test that copies most, Qwen3's, makes between 8 and 12 bytes of each byte of the conversation.
constexpr int64_t kFreeWork = 4 << 20;
constexpr int64_t kWorkPerByte = 32;

// The text of chat_template: a string, or a list of {"name": ..., "template": ...}.
const std::string* TemplateText(const nlohmann::json& value) {
  if (!value.is_array()) return value.get_ptr<const std::string*>();
  for (const nlohmann::json& named : value) {
    if (!named.is_object() || !named.contains("name") || !named.contains("template")) continue;
    if (named["name"] == "default") return named["template"].get_ptr<const std::string*>();
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(
    std::string_view source, std::map<std::string, std::string> special_tokens) {
  if (source.size() > kMaxTemplateBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template has ", source.size(),
                                                   " bytes, the limit is ", kMaxTemplateBytes));
  }
  if (!IsValidUtf8(source)) return absl::InvalidArgumentError("the chat template is not UTF-8");
  absl::StatusOr<jinja::Block> block = jinja::Parse(source);
  if (!block.ok()) {
    return absl::Status(block.status().code(),
                        absl::StrCat("the chat template, ", block.status().message()));
  }
  std::unique_ptr<ChatTemplate> chat_template(new ChatTemplate);
  chat_template->block_ = *std::move(block);
  chat_template->source_bytes_ = source.size();
  chat_template->special_tokens_ = std::move(special_tokens);
  return chat_template;
}

absl::StatusOr<ChatPrompt> ChatTemplate::Render(const std::vector<ChatMessage>& messages) const {
  using jinja::Value;
  std::map<std::string, Value> variables;
  for (const auto& [name, token] : special_tokens_) variables[name] = Value::Of(token);
  size_t bytes = source_bytes_;
  jinja::List list;
  for (const ChatMessage& message : messages) {
    if (!IsValidUtf8(message.content)) {
      return absl::InvalidArgumentError(
          absl::StrCat("message ", list.size(), " is not valid UTF-8"));
    }
    bytes += message.content.size();
    list.push_back(
        Value::Of(jinja::Dict{{"role", Value::Of(message.role)},
                              {"content", Value(jinja::Text(message.content, /*marked=*/true))}}));
  }
  variables["messages"] = Value::Of(std::move(list));
  variables["add_generation_prompt"] = Value(true);
  variables["tools"] = Value(jinja::None());
  variables["documents"] = Value(jinja::None());
  const absl::StatusOr<jinja::Text> text = jinja::Evaluate(
      block_, std::move(variables), kFreeWork + kWorkPerByte * static_cast<int64_t>(bytes));
  if (!text.ok()) {
    return absl::Status(text.status().code(),
                        absl::StrCat("the chat template, ", text.status().message()));
  }
  ChatPrompt prompt;
  prompt.text = text->bytes();
  for (size_t i = 0; i < text->size(); ++i) {
    if (!text->marked(i)) continue;
    if (prompt.content.empty() || prompt.content.back().end != i) prompt.content.push_back({i, i});
    prompt.content.back().end = i + 1;
  }
  return prompt;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> LoadChatTemplate(const std::string& model_directory) {
  const absl::StatusOr<TokenizerConfig> config = ReadTokenizerConfig(model_directory);
  if (!config.ok()) return config.status();
  std::map<std::string, std::string> special_tokens;
  for (const auto& [name, token] : config->named_tokens) special_tokens.emplace(name, token);

  std::string path = model_directory + "/chat_template.jinja";
  absl::StatusOr<std::string> source = ReadFile(path, kMaxTemplateBytes);
  if (absl::IsNotFound(source.status())) {
    path = model_directory + "/tokenizer_config.json";
    const absl::StatusOr<std::string> text = ReadFile(path, kMaxTokenizerConfig);
    if (absl::IsNotFound(text.status())) return absl::NotFoundError("there is no chat template");
    if (!text.ok()) return text.status();
    const absl::StatusOr<nlohmann::json> object = ParseJsonObject(*text, path);
    if (!object.ok()) return object.status();
    const auto value = object->find("chat_template");
    if (value == object->end() || value->is_null()) {
      return absl::NotFoundError("there is no chat template");
    }
    const std::string* found = TemplateText(*value);
    if (found == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has a chat_template that is no text and has none called default"));
    }
    source = *found;
  }
  if (!source.ok()) return source.status();
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template =
      ChatTemplate::Create(*source, std::move(special_tokens));
  if (chat_template.ok()) return chat_template;
  return absl::Status(chat_template.status().code(),
                      absl::StrCat(path, ": ", chat_template.status().message()));
}

}  // namespace lacuna
