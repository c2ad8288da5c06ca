#include "client/load/load_runner.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"

namespace lacuna {

namespace {

std::string NewTenant() {
  std::random_device random;
  return absl::StrFormat("load-%08x%08x", random(), random());
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadRunner>> LoadRunner::Start(const LoadOptions& options,
                                                              const v1::Model& model) {
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < options.concurrency; i += kStreamsPerConnection) {
    auto client = Client::Connect(options.connection);
    if (!client.ok()) return client.status();
    clients.push_back(*std::move(client));
  }
  return std::unique_ptr<LoadRunner>(new LoadRunner(options, model, std::move(clients)));
}

LoadRunner::LoadRunner(const LoadOptions& options, const v1::Model& model,
                       std::vector<std::unique_ptr<Client>> clients)
    : options_(options),
      model_(model),
      tenant_(NewTenant()),
      clients_(std::move(clients)),
      arrivals_(options.arrivals),
      threads_left_(options.concurrency) {
  for (int i = 0; i < options.concurrency; ++i) {
    threads_.emplace_back(&LoadRunner::RunStreams, this, clients_[i / kStreamsPerConnection].get());
  }
}

LoadRunner::~LoadRunner() {
  Stop();
  for (std::thread& thread : threads_) thread.join();
}

void LoadRunner::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  cancellation_.Cancel();
}

bool LoadRunner::WaitFor(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return threads_left_ == 0; };
  return mu_.AwaitWithTimeout(absl::Condition(&done), timeout);
}

LoadRunner::Progress LoadRunner::progress() const {
  absl::MutexLock lock(&mu_);
  Progress progress = progress_;
  progress.elapsed = Elapsed();
  return progress;
}

LoadReport LoadRunner::Report(const Objectives& objectives) const {
  absl::MutexLock lock(&mu_);
  return MakeLoadReport(records_, elapsed_, objectives);
}

absl::Duration LoadRunner::Elapsed() const {
  return absl::FromChrono(std::chrono::steady_clock::now() - start_);
}

void LoadRunner::RunStreams(Client* client) {
  absl::MutexLock lock(&mu_);
  const bool closed_loop = options_.arrivals.trace.empty() && options_.arrivals.rate_per_s == 0;
  while (!stopping_ && !(closed_loop && Elapsed() > options_.arrivals.max_due)) {
    const std::optional<Arrival> arrival = arrivals_.Next();
    if (!arrival.has_value()) break;
    if (arrival->due.has_value()) {
      mu_.AwaitWithTimeout(absl::Condition(&stopping_), *arrival->due - Elapsed());
      if (stopping_) break;
    }
    ++progress_.running;
    mu_.Unlock();
    const RequestRecord record = Send(client, *arrival);
    mu_.Lock();
    --progress_.running;
    if (stopping_ && record.code == absl::StatusCode::kCancelled) break;
    ++(record.code == absl::StatusCode::kOk ? progress_.ok : progress_.failed);
    progress_.completion_tokens += record.completion_tokens;
    elapsed_ = Elapsed();
    records_.push_back(record);
  }
  --threads_left_;
}

LoadRunner::Lengths LoadRunner::FitLengths(const Arrival& arrival) const {
  if (!options_.prompts.empty()) return {0, arrival.max_tokens, false};
  const uint32_t context = std::max(model_.context_length(), 2u);
  Lengths lengths;
  lengths.max_tokens = std::min(arrival.max_tokens, context - 1);
  lengths.prompt_tokens = std::min(arrival.prompt_tokens, context - lengths.max_tokens);
  lengths.cut =
      lengths.max_tokens != arrival.max_tokens || lengths.prompt_tokens != arrival.prompt_tokens;
  return lengths;
}

v1::GenerateRequest LoadRunner::MakeRequest(const Arrival& arrival) const {
  v1::GenerateRequest request;
  request.set_model(model_.name());
  request.mutable_sampling()->set_temperature(options_.temperature);
  const Lengths lengths = FitLengths(arrival);
  request.mutable_stopping()->set_max_tokens(lengths.max_tokens);
  request.mutable_stopping()->set_ignore_eos(!options_.stop_at_eos);
  if (!options_.prompts.empty()) {
    request.set_text(options_.prompts[arrival.index % options_.prompts.size()]);
    return request;
  }
  request.set_tenant(tenant_);
  std::seed_seq seed{options_.arrivals.seed, arrival.index};
  std::mt19937 random(seed);
  // The rest of the embeddings is padding; a server that does not say has none.
  const uint32_t usable = model_.tokenizer_ids() > 0 ? model_.tokenizer_ids() : model_.vocab_size();
  std::uniform_int_distribution<uint32_t> id(0, std::max(usable, 1u) - 1);
  auto* ids = request.mutable_token_ids()->mutable_ids();
  ids->Add(model_.bos_token_id());
  while (static_cast<uint32_t>(ids->size()) < lengths.prompt_tokens) ids->Add(id(random));
  return request;
}

RequestRecord LoadRunner::Send(Client* client, const Arrival& arrival) {
  const v1::GenerateRequest request = MakeRequest(arrival);
  RequestRecord record;
  record.cut = FitLengths(arrival).cut;
  const absl::Duration sent = Elapsed();
  const absl::Duration due = arrival.due.value_or(sent);
  record.lag = sent - due;
  bool has_text = false;
  const absl::Status status = client->GenerateStream(
      request,
      [&](const v1::GenerateStreamResponse& event) {
        if (event.has_delta() && !has_text) {
          has_text = true;
          record.first_text = Elapsed() - due;
        } else if (event.has_finished()) {
          record.prompt_tokens = event.finished().usage().prompt_tokens();
          record.completion_tokens += event.finished().usage().completion_tokens();
        }
        return true;
      },
      &cancellation_);
  record.total = Elapsed() - due;
  if (!has_text) record.first_text = record.total;
  record.code = status.code();
  return record;
}

}  // namespace lacuna
