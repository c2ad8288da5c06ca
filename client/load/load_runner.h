#ifndef LACUNA_CLIENT_LOAD_LOAD_RUNNER_H_
#define LACUNA_CLIENT_LOAD_LOAD_RUNNER_H_

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/load/arrivals.h"
#include "client/load/load_report.h"

namespace lacuna {

struct LoadOptions {
  ClientOptions connection;
  ArrivalOptions arrivals;
  // Streams at a time: the load itself in a closed loop, else the most that may overlap; arrivals
  // beyond it wait here, and the wait counts.
  int concurrency = 1;
  bool stop_at_eos = false;  // else every request generates exactly its max_tokens
  float temperature = 1;
  // Sent in turn if given; else random token ids of the model, different for each request, and of a
  // tenant of this run alone, so that no prefix cache helps.
  std::vector<std::string> prompts;
};

// Puts load on a server: one thread per stream, each taking the next arrival, waiting until it is
// due, and sending it. One connection per kStreamsPerConnection threads.
class LoadRunner {
 public:
  struct Progress {
    uint64_t ok = 0, failed = 0, running = 0;
    uint64_t completion_tokens = 0;  // of ended requests
    absl::Duration elapsed;
  };

  // Servers commonly allow 100 streams on a connection; more would queue in the client.
  static constexpr int kStreamsPerConnection = 64;

  // Starts at once. `model` is the server's description of the model to use. Requests that do not
  // fit its context lose prompt tokens first; the report says how many were cut.
  static absl::StatusOr<std::unique_ptr<LoadRunner>> Start(const LoadOptions& options,
                                                           const v1::Model& model);
  // Stops and waits.
  ~LoadRunner();

  // Sends nothing more and cancels what runs; requests cancelled by this leave no record.
  void Stop();
  // True once every request has ended; false after `timeout`.
  bool WaitFor(absl::Duration timeout);
  Progress progress() const;
  // Call after WaitFor returned true.
  LoadReport Report(const Objectives& objectives) const;

 private:
  LoadRunner(const LoadOptions& options, const v1::Model& model,
             std::vector<std::unique_ptr<Client>> clients);
  void RunStreams(Client* client);
  struct Lengths {
    uint32_t prompt_tokens = 0, max_tokens = 0;
    bool cut = false;
  };
  Lengths FitLengths(const Arrival& arrival) const;
  v1::GenerateRequest MakeRequest(const Arrival& arrival) const;
  RequestRecord Send(Client* client, const Arrival& arrival);
  absl::Duration Elapsed() const;

  const LoadOptions options_;
  const v1::Model model_;
  const std::string tenant_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::thread> threads_;
  Cancellation cancellation_;

  mutable absl::Mutex mu_;
  Arrivals arrivals_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int threads_left_ ABSL_GUARDED_BY(mu_) = 0;
  Progress progress_ ABSL_GUARDED_BY(mu_);
  absl::Duration elapsed_ ABSL_GUARDED_BY(mu_);  // at the end of the last request
  std::vector<RequestRecord> records_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_LOAD_LOAD_RUNNER_H_
