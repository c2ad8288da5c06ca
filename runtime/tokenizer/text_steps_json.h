#ifndef LACUNA_RUNTIME_TOKENIZER_TEXT_STEPS_JSON_H_
#define LACUNA_RUNTIME_TOKENIZER_TEXT_STEPS_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/json.h"
#include "runtime/tokenizer/text_steps.h"

namespace lacuna {

// Steps, patterns and tokens are few in real files; a hostile one is refused beyond this.
inline constexpr size_t kMaxTextSteps = 32;

// Appends the steps of a "normalizer" or "pre_tokenizer" object of a tokenizer.json. `name` starts
// the messages. INVALID_ARGUMENT says what is broken, UNIMPLEMENTED, by its type, what is not
// supported.
absl::Status ParseNormalizer(const nlohmann::json& object, const std::string& name,
                             std::vector<NormalizeStep>* steps);
// `*byte_level`: the words are bytes to be spelt in GPT-2's alphabet.
absl::Status ParsePreTokenizer(const nlohmann::json& object, const std::string& name,
                               std::vector<SplitStep>* steps, bool* byte_level);

// The elements of list `key`, each an object; fails `reader` if it is anything else.
std::vector<const nlohmann::json*> ObjectsIn(const char* key, JsonReader* reader);

// `prepend_scheme` of a Metaspace object, or add_prefix_space of older files.
PrependScheme ReadPrependScheme(JsonReader* reader);

// The symbol that stands for a space: "replacement" of a Metaspace object.
std::string ReadSpaceSymbol(JsonReader* reader);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_TEXT_STEPS_JSON_H_
