#ifndef LACUNA_SERVER_RESPONSE_BUILDER_H_
#define LACUNA_SERVER_RESPONSE_BUILDER_H_

#include <string>

#include "lacuna/v1/generation.pb.h"
#include "runtime/engine/request.h"
#include "runtime/tokenizer/tokenizer.h"
#include "server/model_host.h"

namespace lacuna {

// The engine's results as messages of the API. Pure functions.

// The text of one token, broken UTF-8 replaced by U+FFFD.
std::string TokenText(const Tokenizer& tokenizer, int32_t id);

v1::TokenLogprobs ToProto(const TokenInfo& token, const Tokenizer& tokenizer);
v1::Delta ToProto(TokenDelta delta, bool token_ids, bool logprobs, const Tokenizer& tokenizer);
v1::Finished ToProto(const ChoiceResult& result, bool sparsity_report);

// What GetModel tells about a model that is ready.
v1::Model ToProto(ModelHost& host, int32_t default_max_tokens);

}  // namespace lacuna

#endif  // LACUNA_SERVER_RESPONSE_BUILDER_H_
