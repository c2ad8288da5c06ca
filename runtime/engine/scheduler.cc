#include "runtime/engine/scheduler.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/mutex.h"
#include "runtime/engine/engine.h"

namespace lacuna {
namespace {

class NoMetrics : public EngineMetrics {
 public:
  void OnStep(const StepReport&) override {}
  void OnScheduled(absl::Duration) override {}
  void OnFirstToken(absl::Duration, absl::Duration) override {}
  void OnNextToken(absl::Duration) override {}
  void OnChoiceFinished(absl::Duration, int32_t) override {}
  void OnPrompt(int32_t, int32_t, bool) override {}
  void OnPreemption() override {}
  void OnLoad(const EngineLoad&) override {}
};

EngineMetrics* OrNoMetrics(EngineMetrics* metrics) {
  static NoMetrics* const none = new NoMetrics;
  return metrics != nullptr ? metrics : none;
}

}  // namespace

// The thread-safe shell of the Engine: what other threads ask for waits in `inbox_` and
// `cancels_` until the engine thread's next step.
class Scheduler::Impl {
 public:
  Impl(const SchedulerOptions& options, Model* model, KvCache* cache, const Tokenizer* tokenizer,
       EngineMetrics* metrics, Clock* clock)
      : options_(options),
        vocab_size_(UsableVocabSize(*model, *tokenizer)),
        max_context_(model->config().max_context),
        cache_tokens_(int64_t{cache->num_blocks()} * KvCache::kBlockSize),
        metrics_(OrNoMetrics(metrics)),
        clock_(clock),
        engine_(options, model, cache, tokenizer, metrics_, clock) {
    load_.kv_blocks_total = cache->num_blocks();
    load_.max_concurrent = options.max_concurrent;
    load_.max_queue = options.max_queue;
  }

  ~Impl() {
    {
      MutexLock lock(&mu_);
      stopping_ = true;
      wake_.NotifyOne();
    }
    if (thread_.joinable()) {
      thread_.join();
    } else {
      Stop();
    }
  }

  void Start() {
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "engine");  // in top -H and in stack dumps
      Loop();
    });
  }

  absl::Status TakePlaces(int32_t sequences) {
    MutexLock lock(&mu_);
    if (draining_) return absl::UnavailableError("the engine is draining");
    const int64_t limit = int64_t{options_.max_concurrent} + options_.max_queue;
    const int64_t taken = reserved_ + in_flight();
    if (taken + sequences > limit) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the queue is full: ", taken, " of ", limit, " places (max_concurrent ",
                       options_.max_concurrent, " + max_queue ", options_.max_queue,
                       ") are taken, ", sequences, " more asked for"));
    }
    reserved_ += sequences;
    return absl::OkStatus();
  }

  void GiveBackPlaces(int32_t sequences) {
    MutexLock lock(&mu_);
    reserved_ -= sequences;
    NotifyIfIdle();
  }

  absl::Status Validate(const GenerationRequest& request) const;

  // The places of a valid request become those of its sequences.
  RequestId Submit(GenerationRequest request) {
    if (request.arrived == absl::InfinitePast()) request.arrived = clock_->Now();
    MutexLock lock(&mu_);
    const RequestId id = ++last_id_;
    reserved_ -= request.n;
    submitted_sequences_ += request.n;
    live_.insert(id);
    inbox_.push_back({id, std::move(request)});
    wake_.NotifyOne();
    return id;
  }

  void Cancel(RequestId id, absl::Status why) {
    assert(!why.ok());
    MutexLock lock(&mu_);
    if (live_.contains(id)) cancels_.try_emplace(id, std::move(why));
  }

  void Drain() {
    MutexLock lock(&mu_);
    draining_ = true;
  }

  bool WaitIdle(absl::Duration timeout) {
    // The clock of CondVar is real, whatever clock the engine runs on.
    const absl::Time end = Clock::Real()->Now() + timeout;
    MutexLock lock(&mu_);
    while (!idle()) {
      const absl::Duration left = end - Clock::Real()->Now();
      if (left <= absl::ZeroDuration()) return false;
      idle_.WaitFor(&mu_, absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
    }
    return true;
  }

  EngineLoad GetLoad() {
    MutexLock lock(&mu_);
    return Load();
  }

  bool RunStep();

 private:
  struct Submission {
    RequestId id;
    GenerationRequest request;
  };

  void Loop();
  // Moves what other threads asked for into the engine; false if nothing is in flight.
  bool TakeInbox();
  // Tells the rest of the world what the engine did, then the owners of ended requests.
  void Publish();
  // Ends everything, on the engine thread or in its stead.
  void Stop();

  int64_t in_flight() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return submitted_sequences_ - ended_sequences_;
  }
  bool idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return reserved_ == 0 && live_.empty() && undelivered_ == 0;
  }
  void NotifyIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (idle()) idle_.NotifyAll();
  }
  EngineLoad Load() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    EngineLoad load = load_;
    load.waiting = static_cast<int32_t>(in_flight()) - load.running;
    load.draining = draining_;
    return load;
  }

  const SchedulerOptions options_;
  const int32_t vocab_size_;
  const int32_t max_context_;
  const int64_t cache_tokens_;
  EngineMetrics* const metrics_;
  Clock* const clock_;

  Engine engine_;  // engine thread only
  std::thread thread_;

  Mutex mu_;
  CondVar wake_;  // the engine thread: inbox or stop
  CondVar idle_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  RequestId last_id_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t reserved_ ABSL_GUARDED_BY(mu_) = 0;  // places of tickets, in sequences
  int64_t submitted_sequences_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t ended_sequences_ ABSL_GUARDED_BY(mu_) = 0;
  size_t undelivered_ ABSL_GUARDED_BY(mu_) = 0;  // requests that have ended but for their OnDone
  absl::flat_hash_set<RequestId> live_ ABSL_GUARDED_BY(mu_);  // submitted and not ended
  std::vector<Submission> inbox_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<RequestId, absl::Status> cancels_ ABSL_GUARDED_BY(mu_);
  EngineLoad load_ ABSL_GUARDED_BY(mu_);  // but for `waiting` and `draining`
};

absl::Status Scheduler::Impl::Validate(const GenerationRequest& request) const {
  const auto check_id = [this](int32_t id, const char* what) {
    if (id >= 0 && id < vocab_size_) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", id, " is not in the vocabulary of ", vocab_size_, " tokens"));
  };
  if (request.sink == nullptr) return absl::InvalidArgumentError("the request has no sink");
  if (request.prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
  if (request.stopping.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", request.stopping.max_tokens, ", it must be at least 1"));
  }
  for (const std::string& stop : request.stopping.stop_strings) {
    if (stop.empty()) return absl::InvalidArgumentError("a stop string is empty");
  }
  absl::Status status;
  for (const int32_t id : request.prompt) status.Update(check_id(id, "prompt token"));
  for (const int32_t id : request.stopping.stop_token_ids) {
    status.Update(check_id(id, "stop token"));
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    status.Update(check_id(id, "biased token"));
  }
  if (!status.ok()) return status;
  const int64_t length = static_cast<int64_t>(request.prompt.size());
  if (length >= max_context_) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt has ", length, " tokens, the limit is ", max_context_ - 1));
  }
  if (length > cache_tokens_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("prompt has ", length, " tokens, the KV cache has room for ", cache_tokens_));
  }
  return absl::OkStatus();
}

bool Scheduler::Impl::TakeInbox() {
  std::vector<Submission> inbox;
  absl::flat_hash_map<RequestId, absl::Status> cancels;
  {
    MutexLock lock(&mu_);
    inbox.swap(inbox_);
    cancels.swap(cancels_);
  }
  for (Submission& s : inbox) engine_.Add(s.id, std::move(s.request));
  const bool work = !engine_.idle();
  for (const auto& [id, why] : cancels) engine_.End(id, why);
  return work;
}

bool Scheduler::Impl::RunStep() {
  if (!TakeInbox()) return false;
  if (!engine_.idle()) engine_.Step();
  Publish();
  return true;
}

void Scheduler::Impl::Publish() {
  const std::vector<std::unique_ptr<ActiveRequest>> ended = engine_.TakeEnded();
  EngineLoad load;
  {
    MutexLock lock(&mu_);
    for (const auto& request : ended) {
      live_.erase(request->id);
      cancels_.erase(request->id);
    }
    undelivered_ = ended.size();
    ended_sequences_ = engine_.ended_sequences();
    load_.running = engine_.running();
    load_.kv_blocks_used = load_.kv_blocks_total - engine_.allocator().free_blocks();
    load_.failed_steps = engine_.failed_steps();
    load_.last_step = absl::Now();
    load = Load();
  }
  metrics_->OnLoad(load);
  for (const auto& request : ended) request->spec.sink->OnDone(request->status);
  MutexLock lock(&mu_);
  undelivered_ = 0;
  NotifyIfIdle();
}

void Scheduler::Impl::Loop() {
  while (true) {
    {
      MutexLock lock(&mu_);
      while (!stopping_ && inbox_.empty() && engine_.idle()) wake_.Wait(&mu_);
      if (stopping_) break;
    }
    RunStep();
  }
  Stop();
}

void Scheduler::Impl::Stop() {
  TakeInbox();
  engine_.EndAll(absl::UnavailableError("the engine is shutting down"));
  Publish();
}

Scheduler::Ticket::Ticket(Ticket&& other) noexcept { *this = std::move(other); }

Scheduler::Ticket& Scheduler::Ticket::operator=(Ticket&& other) noexcept {
  std::swap(scheduler_, other.scheduler_);
  std::swap(sequences_, other.sequences_);
  return *this;
}

Scheduler::Ticket::~Ticket() {
  if (scheduler_ != nullptr) scheduler_->impl_->GiveBackPlaces(sequences_);
}

Scheduler::Scheduler(const SchedulerOptions& options, Model* model, KvCache* cache,
                     const Tokenizer* tokenizer, EngineMetrics* metrics, Clock* clock)
    : impl_(std::make_unique<Impl>(options, model, cache, tokenizer, metrics, clock)) {}

Scheduler::~Scheduler() = default;

void Scheduler::Start() { impl_->Start(); }
bool Scheduler::RunStep() { return impl_->RunStep(); }

absl::StatusOr<Scheduler::Ticket> Scheduler::Reserve(int32_t sequences) {
  if (sequences < 1) {
    return absl::InvalidArgumentError(absl::StrCat("cannot reserve ", sequences, " sequences"));
  }
  if (absl::Status status = impl_->TakePlaces(sequences); !status.ok()) return status;
  return Ticket(this, sequences);
}

absl::StatusOr<RequestId> Scheduler::Submit(Ticket ticket, GenerationRequest request) {
  if (ticket.scheduler_ != this || ticket.sequences_ != request.n) {
    return absl::InvalidArgumentError(
        absl::StrCat("the request has ", request.n, " choices, its ticket is for ",
                     ticket.scheduler_ == this ? ticket.sequences_ : 0));
  }
  if (absl::Status status = impl_->Validate(request); !status.ok()) return status;
  ticket.scheduler_ = nullptr;
  return impl_->Submit(std::move(request));
}

void Scheduler::Cancel(RequestId id, absl::Status why) { impl_->Cancel(id, std::move(why)); }
void Scheduler::Drain() { impl_->Drain(); }
bool Scheduler::WaitIdle(absl::Duration timeout) { return impl_->WaitIdle(timeout); }
EngineLoad Scheduler::GetLoad() const { return impl_->GetLoad(); }

}  // namespace lacuna
