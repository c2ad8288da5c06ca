#include "server/generation_call.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "proto/status.h"
#include "server/logger.h"
#include "server/response_builder.h"

namespace lacuna {
namespace {

// Advice to clients that were refused for load: steps take milliseconds, requests seconds.
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

uint64_t RandomNumber() {
  thread_local std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

absl::Status WithRetryIfBusy(absl::Status status) {
  const bool busy = status.code() == absl::StatusCode::kResourceExhausted ||
                    status.code() == absl::StatusCode::kUnavailable;
  return busy && !RetryAfter(status).has_value() ? WithRetryAfter(std::move(status), kRetryDelay)
                                                 : status;
}

bool IsCancellation(absl::StatusCode code) {
  return code == absl::StatusCode::kCancelled || code == absl::StatusCode::kDeadlineExceeded;
}

}  // namespace

void OpenCalls::Add(const std::shared_ptr<GenerationCall>& call) {
  MutexLock lock(&mu_);
  calls_.emplace(call.get(), call);
}

void OpenCalls::Remove(GenerationCall* call) {
  MutexLock lock(&mu_);
  calls_.erase(call);
}

int OpenCalls::AbortAll(const absl::Status& why) {
  std::vector<std::shared_ptr<GenerationCall>> calls;
  {
    MutexLock lock(&mu_);
    for (const auto& [pointer, weak] : calls_) {
      if (auto call = weak.lock()) calls.push_back(std::move(call));
    }
  }
  int aborted = 0;
  for (const auto& call : calls) aborted += call->Abort(why) ? 1 : 0;
  return aborted;
}

std::string NewRequestId() { return absl::StrFormat("%016x", RandomNumber()); }

RequestLimits LimitsOf(const ServiceContext& context, const ModelHost& host) {
  const ModelConfig& config = host.model().config();
  return {config.max_context, std::min(config.vocab_size, host.tokenizer().vocab_size()),
          context.default_max_tokens, context.max_prompt_bytes};
}

void GenerationCall::Begin(const v1::GenerateRequest& request) {
  traffic_ = context_->traffic->Get(context_->models->Resolve(request.model()));
  traffic_->OnStarted(method_);
  traffic_->OnOpened();
  context_->open_calls->Add(shared_from_this());
  absl::Status status = Admit(request);
  if (status.ok()) {
    if (context_->workers->Run([self = shared_from_this()] { self->TokenizeAndSubmit(); })) return;
    status = absl::ResourceExhaustedError("too many requests wait for the tokenizer");
  }
  Reject(std::move(status));
}

void GenerationCall::Reject(absl::Status status) {
  ticket_ = {};
  status = WithRetryIfBusy(std::move(status));
  traffic_->OnRejected(status);
  MutexLock lock(&mu_);
  End(status);
}

absl::Status GenerationCall::Admit(const v1::GenerateRequest& request) {
  // Before anything else, so that the log has an id for whatever happens.
  const bool in_message = !request.request_id().empty();
  const std::string& id = in_message ? request.request_id() : metadata_.request_id;
  const absl::Status id_status = CheckRequestId(in_message ? "request_id" : "x-request-id", id);
  request_id_ = id_status.ok() ? id : NewRequestId();

  if (auto status = context_->authenticator->Check(metadata_.authorization); !status.ok()) {
    return status;
  }
  if (!id_status.ok()) return id_status;
  absl::StatusOr<ModelRegistry::Lease> model = context_->models->Find(request.model());
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  absl::StatusOr<ValidatedRequest> validated =
      ValidateGenerate(request, LimitsOf(*context_, *model_), RandomNumber());
  if (!validated.ok()) return validated.status();
  validated_ = *std::move(validated);
  absl::StatusOr<Scheduler::Ticket> ticket = model_->scheduler().Reserve(validated_.request.n);
  if (!ticket.ok()) return ticket.status();
  ticket_ = *std::move(ticket);
  return absl::OkStatus();
}

absl::Status GenerationCall::Tokenize() {
  GenerationRequest& request = validated_.request;
  if (request.prompt.empty()) {
    absl::StatusOr<std::vector<int32_t>> ids =
        model_->tokenizer().Encode(validated_.prompt_text, /*add_special=*/true);
    if (!ids.ok()) return ids.status();
    request.prompt = *std::move(ids);
    validated_.prompt_text = {};
  }
  prompt_tokens_ = static_cast<int32_t>(request.prompt.size());
  return BoundByContext(prompt_tokens_, LimitsOf(*context_, *model_), &validated_.effective);
}

void GenerationCall::TokenizeAndSubmit() {
  if (absl::Status status = Tokenize(); !status.ok()) return Reject(std::move(status));
  {
    MutexLock lock(&mu_);
    if (ended_) {  // aborted meanwhile
      ticket_ = {};
      return;
    }
    stage_ = CallStage::kQueue;
    EmitStarted(MakeStarted());
  }
  GenerationRequest& request = validated_.request;
  request.id = request_id_;
  request.deadline = Clock::Real()->Now() + (metadata_.deadline - absl::Now());
  request.queue_deadline =
      Clock::Real()->Now() + validated_.queue_timeout - (absl::Now() - arrival_);
  request.sink = shared_from_this();
  absl::StatusOr<RequestId> id = model_->scheduler().Submit(std::move(ticket_), std::move(request));
  if (!id.ok()) return Reject(id.status());
  MutexLock lock(&mu_);
  submitted_ = *id;
  if (ended_) model_->scheduler().Cancel(submitted_, absl::CancelledError("the call has ended"));
}

v1::Started GenerationCall::MakeStarted() const {
  v1::Started started;
  started.set_request_id(request_id_);
  started.set_model(model_->name());
  started.set_seed(validated_.request.sampling.seed);
  *started.mutable_effective() = validated_.effective;
  started.set_prompt_tokens(prompt_tokens_);
  return started;
}

bool GenerationCall::Abort(const absl::Status& why) {
  MutexLock lock(&mu_);
  if (ended_) return false;
  End(why);
  return true;
}

void GenerationCall::AbortByClient() {
  Abort(absl::Now() >= metadata_.deadline
            ? absl::DeadlineExceededError("the deadline of the call has passed")
            : absl::CancelledError("the client cancelled the call or went away"));
}

void GenerationCall::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  status_ = status;
  if (!status.ok() && submitted_ != 0) model_->scheduler().Cancel(submitted_, status);
  EmitEnd(status);
}

void GenerationCall::EndIfSlow(bool fits) {
  if (fits) return;
  traffic_->OnSlowConsumer();
  End(WithRetryIfBusy(absl::ResourceExhaustedError(
      absl::StrCat("the client reads too slowly: more than ", context_->stream_buffer_bytes,
                   " bytes of output wait"))));
}

void GenerationCall::OnScheduled() {
  MutexLock lock(&mu_);
  stage_ = CallStage::kPrefill;
}

void GenerationCall::OnPromptLogprobs(std::vector<TokenInfo> tokens) {
  v1::Delta delta;
  for (const TokenInfo& token : tokens) {
    *delta.add_prompt_logprobs() = ToProto(token, model_->tokenizer());
  }
  MutexLock lock(&mu_);
  if (!ended_) EndIfSlow(EmitDelta(std::move(delta)));
}

void GenerationCall::OnDelta(TokenDelta delta) {
  const v1::OutputParams& output = validated_.effective.output();
  v1::Delta message = ToProto(std::move(delta), output.return_token_ids(), output.has_logprobs(),
                              model_->tokenizer());
  MutexLock lock(&mu_);
  stage_ = CallStage::kDecode;
  if (!ended_) EndIfSlow(EmitDelta(std::move(message)));
}

void GenerationCall::OnChoiceFinished(const ChoiceResult& result) {
  v1::Finished message = ToProto(result, validated_.effective.sparsity().report());
  MutexLock lock(&mu_);
  results_.push_back(result);
  if (!ended_) EndIfSlow(EmitFinished(std::move(message)));
}

void GenerationCall::OnDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  if (status.ok()) stage_ = CallStage::kWrite;
  End(WithRetryIfBusy(status));
}

void GenerationCall::Record(bool sent) {
  context_->open_calls->Remove(this);
  const absl::Duration duration = absl::Now() - arrival_;
  MutexLock lock(&mu_);
  if (status_.ok() && !sent) status_ = absl::CancelledError("the client went away");
  const absl::StatusCode code = status_.code();
  const char* finish_reason = "none";
  if (code == absl::StatusCode::kOk) {
    finish_reason = FinishReasonName(results_.front().reason);
  } else if (code == absl::StatusCode::kCancelled) {
    finish_reason = FinishReasonName(FinishReason::kCancelled);
  }
  if (IsCancellation(code)) traffic_->OnCancelled(stage_);
  traffic_->OnEnded(method_, code, finish_reason);
  traffic_->OnClosed(duration);

  nlohmann::ordered_json line = {{"request_id", request_id_},
                                 {"method", MethodName(method_)},
                                 {"model", model_ != nullptr ? model_->name() : ""},
                                 {"code", std::string(StatusCodeName(code))},
                                 {"finish_reason", finish_reason},
                                 {"stage", CallStageName(stage_)},
                                 {"prompt_tokens", prompt_tokens_},
                                 {"total_ms", absl::ToDoubleMilliseconds(duration)}};
  if (!metadata_.traceparent.empty()) line["traceparent"] = metadata_.traceparent;
  if (!results_.empty()) {
    int32_t completion_tokens = 0;
    for (const ChoiceResult& result : results_) completion_tokens += result.completion_tokens;
    const RequestTimings& timings = results_.front().timings;
    line["choices"] = results_.size();
    line["completion_tokens"] = completion_tokens;
    line["cached_tokens"] = results_.front().cached_tokens;
    line["queue_ms"] = absl::ToDoubleMilliseconds(timings.queue);
    line["prefill_ms"] = absl::ToDoubleMilliseconds(timings.prefill);
    line["ttft_ms"] = absl::ToDoubleMilliseconds(timings.ttft);
    line["decode_ms"] = absl::ToDoubleMilliseconds(timings.decode);
    line["ffn_sparsity"] = results_.front().ffn_sparsity;
  }
  // Other messages may quote the client; this one is ours.
  if (code == absl::StatusCode::kInternal) line["message"] = std::string(status_.message());
  Log(code == absl::StatusCode::kInternal ? LogLevel::kError : LogLevel::kInfo, "request", line);
}

}  // namespace lacuna
