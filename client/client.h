#ifndef LACUNA_CLIENT_CLIENT_H_
#define LACUNA_CLIENT_CLIENT_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "lacuna/v1/generation.pb.h"

namespace grpc {
class ClientContext;
}

namespace lacuna {

struct ClientOptions {
  // HOST:PORT is one server. dns:///HOST:PORT (a headless Kubernetes service, for example) or
  // ipv4:HOST:PORT,HOST:PORT is a fleet: calls are spread round-robin over those that are ready.
  std::string address = "127.0.0.1:50051";
  bool tls = false;
  std::string tls_ca_file;    // PEM; empty: gRPC's default roots
  std::string tls_cert_file;  // PEM client certificate and key for mutual TLS: both or neither
  std::string tls_key_file;
  std::string token;  // sent as `authorization: Bearer TOKEN`; readable on the wire without TLS
  absl::Duration timeout = absl::InfiniteDuration();  // deadline of each call, streams included
};

// Ends calls from another thread or from a signal-handling thread. Thread-safe; one object may
// serve many calls and must outlive them; once cancelled, it stays cancelled.
class Cancellation {
 public:
  void Cancel();
  bool cancelled() const;

 private:
  friend class Client;
  // False if already cancelled: the call must not start.
  bool Add(grpc::ClientContext* call);
  void Remove(grpc::ClientContext* call);

  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

// As grpc.health.v1.
enum class ServingStatus { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };
absl::string_view ServingStatusName(ServingStatus status);  // "SERVING", ...

// A connection to a Lacuna server. Thread-safe; every method blocks until its answer is there.
//
//   auto client = lacuna::Client::Connect({.address = "127.0.0.1:50051"});
//   if (!client.ok()) return client.status();
//   lacuna::v1::GenerateRequest request;
//   request.set_text("Once upon a time");
//   request.mutable_stopping()->set_max_tokens(64);
//   absl::Status status = (*client)->GenerateStream(
//       request, [](const lacuna::v1::GenerateStreamResponse& event) {
//         std::cout << event.delta().text() << std::flush;
//         return true;  // false would end the stream
//       });
//   if (!status.ok()) std::cerr << lacuna::DescribeError(status) << "\n";
//
// Errors carry the server's code, message and google.rpc details as payloads; DescribeError
// (client/describe_error.h) renders them for people. UNAVAILABLE is retried, up to 4 attempts in
// all, for the calls that change nothing: Tokenize, Detokenize, ListModels, GetModel and GetLoad;
// on a fleet, up to 5 attempts, for every call of which no message has arrived yet.
class Client {
 public:
  // Returns false to end the stream.
  using StreamCallback = absl::FunctionRef<bool(const v1::GenerateStreamResponse&)>;
  using HealthCallback = absl::FunctionRef<bool(ServingStatus)>;

  // Checks the options and reads the TLS files; the network is first used by the first call.
  // Every Client has connections of its own.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request,
                                                Cancellation* cancellation = nullptr);

  // Calls `on_event` on this thread for each event, in order. CANCELLED if it returned false or
  // if `cancellation` was used; DATA_LOSS if the server ended the stream with OK before each
  // choice had its `finished`.
  absl::Status GenerateStream(const v1::GenerateRequest& request, StreamCallback on_event,
                              Cancellation* cancellation = nullptr);

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                Cancellation* cancellation = nullptr);
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request);
  absl::StatusOr<v1::ListModelsResponse> ListModels();
  // An empty name means the server's only model.
  absl::StatusOr<v1::Model> GetModel(absl::string_view name);
  // An empty name means all models.
  absl::StatusOr<v1::GetLoadResponse> GetLoad(absl::string_view model);

  // `service` "" is the server as a whole. NOT_FOUND if the server does not know the service.
  absl::StatusOr<ServingStatus> CheckHealth(absl::string_view service);
  // Calls `on_change` now and at every change, until it returns false (OK), `cancellation` is used
  // (CANCELLED) or the connection ends.
  absl::Status WatchHealth(absl::string_view service, HealthCallback on_change,
                           Cancellation* cancellation = nullptr);

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);

  class Call;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLIENT_H_
