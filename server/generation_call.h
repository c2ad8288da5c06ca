#ifndef LACUNA_SERVER_GENERATION_CALL_H_
#define LACUNA_SERVER_GENERATION_CALL_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/base/mutex.h"
#include "lacuna/v1/generation.pb.h"
#include "runtime/engine/request.h"
#include "server/authenticator.h"
#include "server/model_registry.h"
#include "server/request_validation.h"
#include "server/traffic_metrics.h"
#include "server/worker_pool.h"

namespace lacuna {

class GenerationCall;

// The Generate calls that are open, so that a shutdown can end them. Thread-safe.
class OpenCalls {
 public:
  void Add(const std::shared_ptr<GenerationCall>& call);
  void Remove(GenerationCall* call);
  // Aborts every call that has not ended with `why`; returns how many.
  int AbortAll(const absl::Status& why);
  // Waits until all calls have ended and what they wrote is sent, for `timeout` at most; returns
  // how many have not.
  int WaitUntilNone(absl::Duration timeout);
  // Ends every call whose client has not taken a message for `timeout`.
  void EndStalled(absl::Duration timeout);

 private:
  std::vector<std::shared_ptr<GenerationCall>> All();

  Mutex mu_;
  CondVar none_;
  absl::flat_hash_map<GenerationCall*, std::weak_ptr<GenerationCall>> calls_ ABSL_GUARDED_BY(mu_);
};

// What the handlers share; all borrowed, all outlive every call.
struct ServiceContext {
  ModelRegistry* models = nullptr;
  Traffic* traffic = nullptr;
  WorkerPool* workers = nullptr;          // for prompts
  WorkerPool* tokenize_worker = nullptr;  // for Tokenize and Detokenize
  const Authenticator* authenticator = nullptr;
  OpenCalls* open_calls = nullptr;
  int32_t default_max_tokens = 0;
  int64_t max_prompt_bytes = 0;
  int64_t stream_buffer_bytes = 0;
};

RequestLimits LimitsOf(const ServiceContext& context, ModelHost& host);

// Why a call ends whose client does not wait: DEADLINE_EXCEEDED if `deadline` has passed, else
// CANCELLED.
absl::Status ClientIsGone(absl::Time deadline);

std::string NewRequestId();  // for calls that bring none, or none that is fit

// Metadata with which every answer carries the id of its call. If nothing but an error is
// answered, it is among the trailers: clients and proxies repeat a call only if no headers came.
inline constexpr char kRequestIdKey[] = "x-request-id";

// What a call brought along besides its message.
struct CallMetadata {
  std::string request_id;                        // fit to be logged
  absl::Status request_id_status;                // what is wrong with the one that was sent
  std::string traceparent;                       // empty unless it is well-formed
  std::string authorization;                     // never logged
  absl::Time deadline = absl::InfiniteFuture();  // wall clock
};

// One Generate or GenerateStream call, whatever the transport: checks it, takes a place, tokenizes
// on a worker, submits it to the engine and turns the engine's output into messages.
//
// Exactly one EmitEnd, last; nothing is emitted after it. Methods of TokenSink are called by the
// engine thread, Abort by any thread.
class GenerationCall : public TokenSink, public std::enable_shared_from_this<GenerationCall> {
 public:
  // Returns soon: what takes long happens on a worker.
  void Begin(const v1::GenerateRequest& request);
  // Ends the call with `why` (not OK) and frees its place in the engine within one step; false,
  // and nothing happens, if the call has ended.
  bool Abort(const absl::Status& why);
  // Ends the call with RESOURCE_EXHAUSTED, even if only the writing is left, and cuts the
  // transport, if the write in flight takes longer than `timeout`. Never waits: does nothing while
  // another thread is at work on the call.
  void EndIfStalled(absl::Duration timeout);

  void OnScheduled() override;
  void OnPromptLogprobs(std::vector<TokenInfo> tokens) override;
  void OnDelta(TokenDelta delta) override;
  void OnChoiceFinished(const ChoiceResult& result) override;
  void OnDone(const absl::Status& status) override;

 protected:
  GenerationCall(const ServiceContext* context, Method method, CallMetadata metadata)
      : context_(context), method_(method), metadata_(std::move(metadata)) {}

  // The transport. False: the client reads too slowly, the output does not fit the buffer.
  virtual bool EmitStarted(v1::Started started) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual bool EmitDelta(v1::Delta delta) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual bool EmitFinished(v1::Finished finished) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual void EmitEnd(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // Makes the write in flight fail soon.
  virtual void CutTransport() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;

  // Counts and logs the call: the transport calls it once, when nothing more happens. `sent`: all
  // output and the status went out.
  void Record(bool sent);

  // The transport says that nobody waits for the answer any more.
  void AbortByClient();

  const std::string& request_id() const { return metadata_.request_id; }

  Mutex mu_;
  // Kept by the transport: when the write in flight began, by Clock::Real(); the infinite future if
  // there is none.
  absl::Time write_started_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();

 private:
  absl::Status Admit(const v1::GenerateRequest& request);
  // Ends the call, unless it has ended, before the engine saw it; gives up its place and its model.
  void Reject(absl::Status status);
  void TokenizeAndSubmit();
  absl::Status Tokenize();
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndStalled(absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Ends the call with RESOURCE_EXHAUSTED unless what was just emitted fitted the buffer.
  void EndIfSlow(bool fits) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountSlow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  v1::Started MakeStarted() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  nlohmann::ordered_json LogLine(absl::Duration duration) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ServiceContext* const context_;
  const Method method_;
  const CallMetadata metadata_;
  const absl::Time arrival_ = absl::Now();
  std::string model_name_;  // empty until the model is found
  TrafficMetrics* traffic_ = nullptr;

  // Set by Admit, changed by the worker until the submission. The lease ends with the engine's
  // work.
  ModelRegistry::Lease model_;
  Scheduler::Ticket ticket_;
  ValidatedRequest validated_;
  int32_t prompt_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  CallStage stage_ ABSL_GUARDED_BY(mu_) = CallStage::kAdmission;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  const char* reason_ ABSL_GUARDED_BY(mu_) = nullptr;  // for the log; null: see `status_`
  RequestId submitted_ ABSL_GUARDED_BY(mu_) = 0;       // 0: not yet
  std::vector<ChoiceResult> results_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_GENERATION_CALL_H_
