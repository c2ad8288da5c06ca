#include "server/request_validation.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/status.h"

namespace lacuna {
namespace {

constexpr size_t kMaxIdBytes = 128;  // request_id, tenant
constexpr int kMaxMessages = 4096;
constexpr uint32_t kMaxChoices = 16;
constexpr int kMaxLogitBias = 1024;
constexpr int kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr int kMaxStopTokens = 64;
constexpr uint32_t kMaxLogprobs = 20;
constexpr uint32_t kMaxPromptLogprobs = 5;
constexpr uint32_t kMaxStreamInterval = 1024;
constexpr int32_t kMaxPriority = 10;
// More than there are rules, and few enough for the metadata of a response.
constexpr size_t kMaxViolations = 24;

class Violations {
 public:
  void Add(FieldViolation violation) {
    if (list_.size() < kMaxViolations) list_.push_back(std::move(violation));
  }
  void Add(std::string field, std::string description) {
    if (list_.size() < kMaxViolations) list_.push_back({std::move(field), std::move(description)});
  }
  // Refuses NaN and infinities whatever the range. `open_low`: `low` itself is out.
  void CheckRange(const char* field, float value, float low, float high, bool open_low = false) {
    if (std::isfinite(value) && value <= high && (open_low ? value > low : value >= low)) return;
    Add(field,
        absl::StrCat("is ", value, ", must be in ", open_low ? "(" : "[", low, ", ", high, "]"));
  }
  void CheckCount(const char* field, uint64_t value, uint64_t low, uint64_t high) {
    if (value >= low && value <= high) return;
    Add(field, absl::StrCat("is ", value, ", must be in [", low, ", ", high, "]"));
  }
  // Token ids: in the vocabulary.
  template <typename Ids>
  void CheckIds(const char* field, const Ids& ids, int32_t vocab_size) {
    for (uint32_t id : ids) {
      if (id < static_cast<uint32_t>(vocab_size)) continue;
      Add(field, absl::StrCat("has the token id ", id, ", the vocabulary has ", vocab_size));
      return;
    }
  }
  bool empty() const { return list_.empty(); }
  absl::Status ToStatus() const { return InvalidFields(list_); }

 private:
  std::vector<FieldViolation> list_;
};

// The checks that bound the work of all others.
void CheckSizes(const v1::GenerateRequest& in, const RequestLimits& limits,
                Violations* violations) {
  const auto check = [violations](const char* field, int64_t size, int64_t limit,
                                  const char* unit) {
    if (size <= limit) return;
    violations->Add(field, absl::StrCat("has ", size, " ", unit, ", the limit is ", limit));
  };
  if (in.has_text()) {
    check("prompt", static_cast<int64_t>(in.text().size()), limits.max_prompt_bytes, "bytes");
  }
  if (in.has_messages()) {
    const auto violation = CheckMessages("prompt.messages", in.messages(), limits.max_prompt_bytes);
    if (violation.has_value()) violations->Add(*violation);
  }
  check("prompt", in.token_ids().ids_size(), limits.context - 1, "tokens");
  check("sampling.logit_bias", in.sampling().logit_bias_size(), kMaxLogitBias, "entries");
  check("stopping.stop", in.stopping().stop_size(), kMaxStopStrings, "strings");
  check("stopping.stop_token_ids", in.stopping().stop_token_ids_size(), kMaxStopTokens, "ids");
  check("tenant", static_cast<int64_t>(in.tenant().size()), kMaxIdBytes, "bytes");
  if (in.stopping().stop_size() > kMaxStopStrings) return;
  for (const std::string& stop : in.stopping().stop()) {
    if (!stop.empty() && stop.size() <= kMaxStopBytes) continue;
    violations->Add("stopping.stop", absl::StrCat("has a string of ", stop.size(),
                                                  " bytes, must be 1 to ", kMaxStopBytes));
    return;
  }
}

void FillPrompt(const v1::GenerateRequest& in, const RequestLimits& limits, Violations* violations,
                ValidatedRequest* out) {
  switch (in.prompt_case()) {
    case v1::GenerateRequest::kText:
      if (in.text().empty()) {
        violations->Add("prompt", "is empty");
      } else {
        out->prompt_text = in.text();
      }
      return;
    case v1::GenerateRequest::kTokenIds:
      if (in.token_ids().ids().empty()) {
        violations->Add("prompt", "is empty");
      } else {
        violations->CheckIds("prompt.token_ids", in.token_ids().ids(), limits.vocab_size);
        out->request.prompt.assign(in.token_ids().ids().begin(), in.token_ids().ids().end());
      }
      return;
    case v1::GenerateRequest::kMessages:  // CheckSizes has checked them
      out->messages = FromProto(in.messages());
      return;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      violations->Add("prompt", "is needed: text, token_ids or messages");
      return;
  }
}

void FillSampling(const v1::SamplingParams& in, const RequestLimits& limits, uint64_t seed,
                  Violations* violations, ValidatedRequest* out) {
  v1::SamplingParams& effective = *out->effective.mutable_sampling();
  effective = in;
  if (!in.has_temperature()) effective.set_temperature(1.0f);
  if (!in.has_top_p()) effective.set_top_p(1.0f);
  if (!in.has_top_k()) effective.set_top_k(0);
  if (!in.has_min_p()) effective.set_min_p(0.0f);
  if (!in.has_presence_penalty()) effective.set_presence_penalty(0.0f);
  if (!in.has_frequency_penalty()) effective.set_frequency_penalty(0.0f);
  if (!in.has_repetition_penalty()) effective.set_repetition_penalty(1.0f);
  if (!in.has_seed()) effective.set_seed(seed);
  if (!in.has_n()) effective.set_n(1);

  violations->CheckRange("sampling.temperature", effective.temperature(), 0, 2);
  violations->CheckRange("sampling.top_p", effective.top_p(), 0, 1, /*open_low=*/true);
  violations->CheckRange("sampling.min_p", effective.min_p(), 0, 1);
  violations->CheckRange("sampling.presence_penalty", effective.presence_penalty(), -2, 2);
  violations->CheckRange("sampling.frequency_penalty", effective.frequency_penalty(), -2, 2);
  violations->CheckRange("sampling.repetition_penalty", effective.repetition_penalty(), 0, 10,
                         /*open_low=*/true);
  violations->CheckCount("sampling.n", effective.n(), 1,
                         std::min<uint64_t>(kMaxChoices, limits.max_choices));

  SamplingParams& sampling = out->request.sampling;
  for (const auto& [id, bias] : in.logit_bias()) {
    if (id >= static_cast<uint32_t>(limits.vocab_size)) {
      violations->Add(
          "sampling.logit_bias",
          absl::StrCat("has the token id ", id, ", the vocabulary has ", limits.vocab_size));
      break;
    }
    if (!std::isfinite(bias) || std::abs(bias) > 100.0f) {
      violations->Add("sampling.logit_bias",
                      absl::StrCat("is ", bias, " for token ", id, ", must be in [-100, 100]"));
      break;
    }
    sampling.logit_bias.emplace_back(static_cast<int32_t>(id), bias);
  }
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end());
  sampling.temperature = effective.temperature();
  sampling.top_p = effective.top_p();
  // More than the vocabulary is as good as off.
  sampling.top_k =
      effective.top_k() >= static_cast<uint32_t>(limits.vocab_size) ? 0 : effective.top_k();
  sampling.min_p = effective.min_p();
  sampling.presence_penalty = effective.presence_penalty();
  sampling.frequency_penalty = effective.frequency_penalty();
  sampling.repetition_penalty = effective.repetition_penalty();
  sampling.seed = effective.seed();
  out->request.n = static_cast<int32_t>(effective.n());
}

void FillStopping(const v1::StoppingParams& in, const RequestLimits& limits, Violations* violations,
                  ValidatedRequest* out) {
  v1::StoppingParams& effective = *out->effective.mutable_stopping();
  effective = in;
  if (!in.has_max_tokens()) effective.set_max_tokens(limits.default_max_tokens);
  if (!in.has_min_tokens()) effective.set_min_tokens(0);
  if (!in.has_include_stop()) effective.set_include_stop(false);
  if (!in.has_ignore_eos()) effective.set_ignore_eos(false);

  if (effective.max_tokens() == 0) violations->Add("stopping.max_tokens", "is 0, must be >= 1");
  if (effective.min_tokens() > effective.max_tokens()) {
    violations->Add("stopping.min_tokens",
                    absl::StrCat("is ", effective.min_tokens(), ", must be at most max_tokens, ",
                                 effective.max_tokens()));
  }
  if (in.has_time_limit_ms() && in.time_limit_ms() == 0) {
    violations->Add("stopping.time_limit_ms", "is 0, must be >= 1");
  }
  violations->CheckIds("stopping.stop_token_ids", in.stop_token_ids(), limits.vocab_size);

  StoppingParams& stopping = out->request.stopping;
  // No choice gets longer than the context, so the engine need not see larger numbers.
  const auto context = static_cast<uint32_t>(limits.context);
  stopping.max_tokens = static_cast<int32_t>(std::min(effective.max_tokens(), context));
  stopping.min_tokens = static_cast<int32_t>(std::min(effective.min_tokens(), context));
  stopping.stop_strings.assign(in.stop().begin(), in.stop().end());
  stopping.stop_token_ids.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  stopping.include_stop = effective.include_stop();
  stopping.ignore_eos = effective.ignore_eos();
  if (in.has_time_limit_ms()) stopping.time_limit = absl::Milliseconds(in.time_limit_ms());
}

void FillOutput(const v1::OutputParams& in, Violations* violations, ValidatedRequest* out) {
  v1::OutputParams& effective = *out->effective.mutable_output();
  effective = in;
  if (!in.has_return_token_ids()) effective.set_return_token_ids(false);
  if (!in.has_stream_interval()) effective.set_stream_interval(1);
  violations->CheckCount("output.logprobs", effective.logprobs(), 0, kMaxLogprobs);
  violations->CheckCount("output.prompt_logprobs", effective.prompt_logprobs(), 0,
                         kMaxPromptLogprobs);
  violations->CheckCount("output.stream_interval", effective.stream_interval(), 1,
                         kMaxStreamInterval);
  if (in.has_logprobs()) {
    out->request.logprobs = static_cast<int32_t>(in.logprobs());
    // 16 choices of one request take a step together. A log-probability takes some 25 bytes, so
    // what they say at a time stays below the 1 MiB that may wait for a client
    // (--stream_buffer_kb).
    const int64_t most = std::max<int64_t>(2048 / (int64_t{in.logprobs()} + 1), 1);
    effective.set_stream_interval(
        static_cast<uint32_t>(std::min<int64_t>(effective.stream_interval(), most)));
  }
  if (in.has_prompt_logprobs()) {
    out->request.prompt_logprobs = static_cast<int32_t>(in.prompt_logprobs());
  }
  out->request.stream_interval = static_cast<int32_t>(effective.stream_interval());
}

void FillSparsity(const v1::SparsityParams& in, Violations* violations, ValidatedRequest* out) {
  v1::SparsityParams& effective = *out->effective.mutable_sparsity();
  effective.set_report(in.report());
  effective.set_mode(in.mode());
  switch (in.mode()) {
    case v1::SparsityParams::MODE_UNSPECIFIED:
    case v1::SparsityParams::AUTO:
      effective.set_mode(v1::SparsityParams::AUTO);
      out->request.ffn_mode = FfnMode::kAuto;
      return;
    case v1::SparsityParams::DENSE:
      out->request.ffn_mode = FfnMode::kDense;
      return;
    case v1::SparsityParams::SPARSE:
      out->request.ffn_mode = FfnMode::kSparse;
      return;
    default:
      violations->Add("sparsity.mode",
                      absl::StrCat("is ", static_cast<int>(in.mode()), ", which is not a mode"));
  }
}

}  // namespace

std::optional<FieldViolation> CheckMessages(const std::string& name,
                                            const v1::ChatMessages& messages, int64_t max_bytes) {
  if (messages.messages().empty() || messages.messages_size() > kMaxMessages) {
    return FieldViolation{name, absl::StrCat("has ", messages.messages_size(),
                                             " messages, must be 1 to ", kMaxMessages)};
  }
  int64_t bytes = 0;
  for (int i = 0; i < messages.messages_size(); ++i) {
    const std::string& role = messages.messages(i).role();
    if (role != "system" && role != "user" && role != "assistant") {
      return FieldViolation{absl::StrCat(name, "[", i, "].role"),
                            "must be system, user or assistant"};
    }
    bytes += static_cast<int64_t>(messages.messages(i).content().size());
  }
  if (bytes <= max_bytes) return std::nullopt;
  return FieldViolation{name, absl::StrCat("has ", bytes, " bytes, the limit is ", max_bytes)};
}

std::vector<ChatMessage> FromProto(const v1::ChatMessages& messages) {
  std::vector<ChatMessage> out;
  for (const v1::ChatMessage& message : messages.messages()) {
    out.push_back({message.role(), message.content()});
  }
  return out;
}

absl::StatusOr<ValidatedRequest> ValidateGenerate(const v1::GenerateRequest& in,
                                                  const RequestLimits& limits, uint64_t seed) {
  Violations violations;
  CheckSizes(in, limits, &violations);
  if (!violations.empty()) return violations.ToStatus();
  ValidatedRequest out;
  FillPrompt(in, limits, &violations, &out);
  FillSampling(in.sampling(), limits, seed, &violations, &out);
  FillStopping(in.stopping(), limits, &violations, &out);
  FillOutput(in.output(), &violations, &out);
  FillSparsity(in.sparsity(), &violations, &out);
  if (std::abs(int64_t{in.priority()}) > kMaxPriority) {
    violations.Add("priority", absl::StrCat("is ", in.priority(), ", must be in [-10, 10]"));
  }
  if (in.has_queue_timeout_ms() && in.queue_timeout_ms() == 0) {
    violations.Add("queue_timeout_ms", "is 0, must be >= 1");
  }
  if (!violations.empty()) return violations.ToStatus();
  out.effective.DiscardUnknownFields();
  out.request.priority = in.priority();
  out.request.tenant = in.tenant();
  if (in.has_queue_timeout_ms()) out.queue_timeout = absl::Milliseconds(in.queue_timeout_ms());
  return out;
}

absl::Status BoundByContext(int32_t prompt_tokens, const RequestLimits& limits,
                            v1::EffectiveParams* effective) {
  if (prompt_tokens >= limits.context) {
    return InvalidFields({{"prompt", absl::StrCat("has ", prompt_tokens, " tokens, the limit is ",
                                                  limits.context - 1)}});
  }
  v1::StoppingParams& stopping = *effective->mutable_stopping();
  const auto room = static_cast<uint32_t>(limits.context - prompt_tokens);
  stopping.set_max_tokens(std::min(stopping.max_tokens(), room));
  stopping.set_min_tokens(std::min(stopping.min_tokens(), room));
  return absl::OkStatus();
}

absl::Status CheckAnswerFits(int32_t prompt_tokens, bool streams,
                             const v1::EffectiveParams& effective) {
  // An id, a float and a few bytes of text with their headers.
  static constexpr int64_t kLogprobBytes = 24;
  static constexpr int64_t kTextBytes = 4;  // of a token of English
  static constexpr int64_t kIdBytes = 3;    // as a varint, below 2^21
  const v1::OutputParams& output = effective.output();
  const auto too_large = [](const char* field, int64_t bytes) {
    return InvalidFields({{field, absl::StrCat("could make a message of about ", bytes,
                                               " bytes, the limit is ", kMaxMessageBytes)}});
  };
  const int64_t prompt_bytes =
      output.has_prompt_logprobs()
          ? int64_t{prompt_tokens} * (output.prompt_logprobs() + 1) * kLogprobBytes
          : 0;
  if (prompt_bytes > kMaxMessageBytes) return too_large("output.prompt_logprobs", prompt_bytes);
  if (streams) return absl::OkStatus();
  int64_t token_bytes = kTextBytes;
  if (output.return_token_ids()) token_bytes += kIdBytes;
  if (output.has_logprobs()) token_bytes += (int64_t{output.logprobs()} + 1) * kLogprobBytes;
  const int64_t tokens = int64_t{effective.sampling().n()} * effective.stopping().max_tokens();
  const int64_t bytes = prompt_bytes + tokens * token_bytes;
  if (bytes <= kMaxMessageBytes) return absl::OkStatus();
  if (prompt_bytes > bytes / 2) return too_large("output.prompt_logprobs", bytes);
  return too_large(output.has_logprobs() ? "output.logprobs" : "stopping.max_tokens", bytes);
}

absl::Status CheckRequestId(const std::string& field, std::string_view id) {
  if (id.size() > kMaxIdBytes) {
    return InvalidFields(
        {{field, absl::StrCat("has ", id.size(), " bytes, the limit is ", kMaxIdBytes)}});
  }
  if (!std::all_of(id.begin(), id.end(), [](char c) { return c >= 0x20 && c < 0x7f; })) {
    return InvalidFields({{field, "has characters that are not printable ASCII"}});
  }
  return absl::OkStatus();
}

}  // namespace lacuna
