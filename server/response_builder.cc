#include "server/response_builder.h"

#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/utf8.h"
#include "runtime/model/activation_name.h"

namespace lacuna {
namespace {

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return v1::EOS;
    case FinishReason::kStopString:
      return v1::STOP_STRING;
    case FinishReason::kStopToken:
      return v1::STOP_TOKEN;
    case FinishReason::kLength:
      return v1::LENGTH;
    case FinishReason::kContextLimit:
      return v1::CONTEXT_LIMIT;
    case FinishReason::kTimeLimit:
      return v1::TIME_LIMIT;
    case FinishReason::kCancelled:
      return v1::CANCELLED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

std::string TokenText(const Tokenizer& tokenizer, int32_t id) {
  const auto bytes = tokenizer.TokenBytes(id);
  std::string_view rest(bytes.data(), bytes.size());
  std::string text;
  while (!rest.empty()) {
    const int length = Utf8CharLength(rest);
    if (length > 0) {
      text.append(rest.substr(0, length));
      rest.remove_prefix(length);
    } else {
      text.append(kReplacementCharacter);
      rest.remove_prefix(1);
    }
  }
  return text;
}

v1::TokenLogprobs ToProto(const TokenInfo& token, const Tokenizer& tokenizer) {
  const auto fill = [&](int32_t id, float logprob, v1::Logprob* out) {
    out->set_token_id(id);
    out->set_text(TokenText(tokenizer, id));
    out->set_logprob(logprob);
  };
  v1::TokenLogprobs out;
  fill(token.token_id, token.logprob, out.mutable_token());
  for (const TokenLogprob& top : token.top) fill(top.token_id, top.logprob, out.add_top());
  return out;
}

v1::Delta ToProto(TokenDelta delta, bool token_ids, bool logprobs, const Tokenizer& tokenizer) {
  v1::Delta out;
  out.set_index(delta.index);
  out.set_text(std::move(delta.text));
  for (const TokenInfo& token : delta.tokens) {
    if (token_ids) out.add_token_ids(token.token_id);
    if (logprobs) *out.add_logprobs() = ToProto(token, tokenizer);
  }
  return out;
}

v1::Finished ToProto(const ChoiceResult& result, bool sparsity_report) {
  v1::Finished out;
  out.set_index(result.index);
  out.set_reason(ToProto(result.reason));
  if (result.reason == FinishReason::kStopString) {
    out.set_stop(result.matched_stop);
  } else if (result.matched_stop_token >= 0) {
    out.set_stop_token_id(result.matched_stop_token);
  }
  out.mutable_usage()->set_prompt_tokens(result.prompt_tokens);
  out.mutable_usage()->set_completion_tokens(result.completion_tokens);
  out.mutable_usage()->set_cached_tokens(result.cached_tokens);
  v1::Timings& timings = *out.mutable_timings();
  timings.set_queue_ms(absl::ToDoubleMilliseconds(result.timings.queue));
  timings.set_prefill_ms(absl::ToDoubleMilliseconds(result.timings.prefill));
  timings.set_ttft_ms(absl::ToDoubleMilliseconds(result.timings.ttft));
  timings.set_decode_ms(absl::ToDoubleMilliseconds(result.timings.decode));
  timings.set_total_ms(absl::ToDoubleMilliseconds(result.timings.total));
  if (sparsity_report) out.mutable_sparsity()->set_activation_sparsity(result.ffn_sparsity);
  return out;
}

v1::Model ToProto(ModelHost& host, int32_t default_max_tokens) {
  const ModelConfig& config = host.model().config();
  const ModelFacts& facts = host.model().facts();
  v1::Model out;
  out.set_name(host.name());
  out.set_state(host.scheduler().GetLoad().draining ? v1::Model::DRAINING : v1::Model::READY);
  out.set_architecture(config.architecture);
  out.set_activation(ActivationKindName(config.activation.kind));
  if (config.activation.kind == ActivationKind::kFatRelu) {
    out.set_activation_threshold(config.activation.threshold);
  }
  out.set_sparse(config.activation.has_zeros());
  out.set_context_length(host.max_length());
  out.set_vocab_size(config.vocab_size);
  out.set_num_layers(config.num_layers);
  out.set_hidden_size(config.hidden_size);
  out.set_ffn_size(config.ffn_size);
  out.set_num_heads(config.num_heads);
  out.set_num_kv_heads(config.num_kv_heads);
  out.set_parameters(facts.parameters);
  out.set_weight_bytes(facts.weight_bytes);
  out.set_weights(facts.weights);
  out.set_device(facts.device);
  out.set_isa(facts.isa);
  out.set_threads(facts.threads);
  if (config.bos_id >= 0) out.set_bos_token_id(config.bos_id);
  for (int32_t id : config.eos_ids) out.add_eos_token_ids(id);
  out.set_default_max_tokens(default_max_tokens);
  out.set_has_predictor(facts.has_predictor);
  out.set_has_chat_template(host.chat_template().ok());
  out.set_gated(config.gated);
  out.set_head_dim(config.head_dim);
  out.set_tokenizer(host.tokenizer().kind());
  out.set_tokenizer_ids(host.tokenizer().vocab_size());
  out.set_kv_bytes_per_1000_tokens(KvCache::BytesFor(config, facts.kv_type, 1000));
  for (const std::string& warning : host.warnings()) out.add_warnings(warning);
  out.set_measured_sparsity(host.metrics().MeasuredSparsity());
  return out;
}

}  // namespace lacuna
