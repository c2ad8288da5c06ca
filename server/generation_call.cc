#include "server/generation_call.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "proto/status.h"
#include "runtime/engine/engine.h"
#include "server/chat_prompt.h"
#include "server/logger.h"
#include "server/response_builder.h"

namespace lacuna {
namespace {

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

// The transport cancels a call at its deadline by a clock of its own, which may be this much early.
constexpr absl::Duration kDeadlineGrace = absl::Milliseconds(10);

// For the log: why a call that was admitted did not end well. Fixed values only.
const char* EndReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
      return "client_cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kUnavailable:
      return "server_stops";
    default:
      return "engine_error";
  }
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
  if (calls_.empty()) none_.NotifyAll();
}

int OpenCalls::WaitUntilNone(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  MutexLock lock(&mu_);
  while (!calls_.empty()) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    none_.WaitFor(&mu_, absl::ToChronoNanoseconds(left));
  }
  return static_cast<int>(calls_.size());
}

std::vector<std::shared_ptr<GenerationCall>> OpenCalls::All() {
  std::vector<std::shared_ptr<GenerationCall>> calls;
  MutexLock lock(&mu_);
  for (const auto& [pointer, weak] : calls_) {
    if (auto call = weak.lock()) calls.push_back(std::move(call));
  }
  return calls;
}

int OpenCalls::AbortAll(const absl::Status& why) {
  int aborted = 0;
  for (const auto& call : All()) aborted += call->Abort(why) ? 1 : 0;
  return aborted;
}

void OpenCalls::EndStalled(absl::Duration timeout) {
  for (const auto& call : All()) call->EndIfStalled(timeout);
}

absl::Status ClientIsGone(absl::Time deadline) {
  return absl::Now() + kDeadlineGrace >= deadline
             ? absl::DeadlineExceededError("the deadline of the call has passed")
             : absl::CancelledError("the client cancelled the call or went away");
}

std::string NewRequestId() { return absl::StrFormat("%016x", RandomNumber()); }

RequestLimits LimitsOf(const ServiceContext& context, ModelHost& host) {
  const EngineLoad load = host.scheduler().GetLoad();
  RequestLimits limits;
  limits.context = host.max_length();
  limits.vocab_size = UsableVocabSize(host.model(), host.tokenizer());
  limits.default_max_tokens = context.default_max_tokens;
  // A token stands for at most the bytes of the longest piece, so longer text does not fit; text
  // that would only because a normalizer shrinks it, or merges unknown characters, is refused with
  // it.
  limits.max_prompt_bytes =
      std::min(context.max_prompt_bytes, limits.context * host.longest_piece_bytes());
  limits.max_choices = load.max_concurrent + load.max_queue;
  return limits;
}

void GenerationCall::Begin(const v1::GenerateRequest& request) {
  traffic_ = context_->traffic->Get(context_->models->Resolve(request.model()));
  traffic_->OnStarted(method_);
  traffic_->OnOpened();
  context_->open_calls->Add(shared_from_this());
  absl::Status status = Admit(request);
  if (status.ok()) {
    status = context_->workers->Run([self = shared_from_this()] { self->TokenizeAndSubmit(); });
  }
  if (!status.ok()) Reject(std::move(status));
}

void GenerationCall::Reject(absl::Status status) {
  const char* const reason = RejectReason(status.code(), /*model_found=*/model_ != nullptr);
  ticket_ = {};
  model_ = nullptr;
  MutexLock lock(&mu_);
  if (ended_) return;  // aborted meanwhile
  reason_ = reason;
  traffic_->OnRejected(reason);
  End(WithRetryIfBusy(std::move(status)));
}

absl::Status GenerationCall::Admit(const v1::GenerateRequest& request) {
  if (auto status = context_->authenticator->Check(metadata_.authorization); !status.ok()) {
    return status;
  }
  if (!metadata_.request_id_status.ok()) return metadata_.request_id_status;
  absl::StatusOr<ModelRegistry::Lease> model = context_->models->Find(request.model());
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  model_name_ = model_->name();
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
  const RequestLimits limits = LimitsOf(*context_, *model_);
  if (request.prompt.empty()) {
    absl::StatusOr<std::vector<int32_t>> ids =
        validated_.messages.empty()
            ? model_->tokenizer().Encode(validated_.prompt_text, /*add_special=*/true)
            : EncodeMessages(*model_, "prompt.messages", validated_.messages,
                             limits.max_prompt_bytes);
    if (!ids.ok()) return ids.status();
    if (ids->empty()) return InvalidFields({{"prompt", "has no tokens"}});
    request.prompt = *std::move(ids);
    validated_.prompt_text = {};
    validated_.messages = {};
  }
  const auto prompt_tokens = static_cast<int32_t>(request.prompt.size());
  const absl::Status status = BoundByContext(prompt_tokens, limits, &validated_.effective);
  if (!status.ok()) return status;
  return CheckAnswerFits(prompt_tokens, method_ == Method::kGenerateStream, validated_.effective);
}

void GenerationCall::TokenizeAndSubmit() {
  // Of its own, as the engine may be done with the call before Submit returns.
  const ModelRegistry::Lease model = model_;
  bool aborted = false;
  {
    MutexLock lock(&mu_);
    aborted = ended_;
  }
  const absl::Status status = aborted ? absl::CancelledError("no longer wanted") : Tokenize();
  if (!status.ok()) return Reject(status);
  {
    MutexLock lock(&mu_);
    aborted = ended_;
    prompt_tokens_ = static_cast<int32_t>(validated_.request.prompt.size());
    if (!aborted) {
      stage_ = CallStage::kQueue;
      EmitStarted(MakeStarted());
    }
  }
  if (aborted) return Reject(absl::CancelledError("no longer wanted"));
  GenerationRequest& request = validated_.request;
  request.id = request_id();
  request.deadline = Clock::Real()->Now() + (metadata_.deadline - absl::Now());
  request.arrived = Clock::Real()->Now() - (absl::Now() - arrival_);
  request.queue_deadline = request.arrived + validated_.queue_timeout;
  request.sink = shared_from_this();
  absl::StatusOr<RequestId> id = model->scheduler().Submit(std::move(ticket_), std::move(request));
  if (!id.ok()) return Reject(id.status());
  MutexLock lock(&mu_);
  submitted_ = *id;
  if (ended_) model->scheduler().Cancel(submitted_, absl::CancelledError("the call has ended"));
}

v1::Started GenerationCall::MakeStarted() const {
  v1::Started started;
  started.set_request_id(request_id());
  started.set_model(model_name_);
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

void GenerationCall::AbortByClient() { Abort(ClientIsGone(metadata_.deadline)); }

void GenerationCall::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  status_ = status;
  if (!status.ok() && submitted_ != 0) model_->scheduler().Cancel(submitted_, status);
  EmitEnd(status);
}

void GenerationCall::EndIfSlow(bool fits) {
  if (fits) return;
  CountSlow();
  End(WithRetryIfBusy(absl::ResourceExhaustedError(
      absl::StrCat("the client reads too slowly: more than ", context_->stream_buffer_bytes,
                   " bytes of output wait"))));
}

void GenerationCall::CountSlow() {
  reason_ = "slow_consumer";
  traffic_->OnSlowConsumer();
}

void GenerationCall::EndIfStalled(absl::Duration timeout) {
  // The watchdog calls this. It must not wait for an engine that is stuck with the lock: then it
  // could not report that.
  if (!mu_.TryLock()) return;
  if (Clock::Real()->Now() - write_started_ > timeout) EndStalled(timeout);
  mu_.Unlock();
}

void GenerationCall::EndStalled(absl::Duration timeout) {
  if (status_.ok()) {  // else it is counted
    CountSlow();
    const absl::Status slow = WithRetryIfBusy(absl::ResourceExhaustedError(absl::StrCat(
        "the client reads too slowly: a message waits for ", absl::FormatDuration(timeout))));
    End(slow);
    status_ = slow;  // also if all but the writing was done
  }
  CutTransport();
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
  model_ = nullptr;
}

void GenerationCall::Record(bool sent) {
  context_->open_calls->Remove(this);
  const absl::Duration duration = absl::Now() - arrival_;
  nlohmann::ordered_json line;
  LogLevel level = LogLevel::kInfo;
  {
    MutexLock lock(&mu_);
    if (status_.ok() && !sent) status_ = ClientIsGone(metadata_.deadline);
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
    line = LogLine(duration);
    line["finish_reason"] = finish_reason;
    if (code == absl::StatusCode::kInternal) level = LogLevel::kError;
  }
  Log(level, "request", line);  // a log that is not read must not hold up the engine
}

nlohmann::ordered_json GenerationCall::LogLine(absl::Duration duration) const {
  nlohmann::ordered_json line = {{"request_id", request_id()},
                                 {"method", MethodName(method_)},
                                 {"model", model_name_},
                                 {"code", std::string(StatusCodeName(status_.code()))},
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
  if (status_.ok()) return line;
  line["reason"] = reason_ != nullptr ? reason_ : EndReason(status_.code());
  // The names of fields are ours, the descriptions may quote the client.
  const std::vector<FieldViolation> violations = FieldViolations(status_);
  if (!violations.empty()) {
    line["fields"] = absl::StrJoin(violations, ",", [](std::string* out, const auto& violation) {
      out->append(violation.field);
    });
  }
  // Other messages may quote the client; this one is ours.
  if (status_.code() == absl::StatusCode::kInternal) {
    line["message"] = std::string(status_.message());
  }
  return line;
}

}  // namespace lacuna
