#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "lacuna/v1/generation.grpc.pb.h"
#include "proto/status.h"

namespace lacuna {
namespace {

// Retries of one server. Four attempts wait 0.1 + 0.2 + 0.4 s at most (gRPC draws each wait between
// 0 and its bound). Generate is absent: there is nobody else to ask, and a repeated one would
// compute, and bill, twice.
constexpr char kServerConfig[] = R"({
  "methodConfig": [{
    "name": [
      {"service": "lacuna.v1.GenerationService", "method": "Tokenize"},
      {"service": "lacuna.v1.GenerationService", "method": "Detokenize"},
      {"service": "lacuna.v1.GenerationService", "method": "ListModels"},
      {"service": "lacuna.v1.GenerationService", "method": "GetModel"},
      {"service": "lacuna.v1.GenerationService", "method": "GetLoad"}
    ],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})";

// Balancing and retries of a fleet: a server that is not ready gets nothing new; a call that a
// server refused, or that was lost with its connection before the first message, is sent to the
// next one. gRPC repeats nothing once a message has arrived.
constexpr char kFleetConfig[] = R"({
  "loadBalancingConfig": [{"round_robin": {}}],
  "healthCheckConfig": {"serviceName": "lacuna.v1.GenerationService"},
  "methodConfig": [{
    "name": [{"service": "lacuna.v1.GenerationService"}],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 3,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})";
// A longer request is not kept for a retry; as long as the server takes.
constexpr int kRetryBufferBytes = 4 << 20;

// Whether `address` is a target that can resolve to several servers.
bool IsFleet(absl::string_view address) {
  return absl::StartsWith(address, "dns:") || absl::StartsWith(address, "ipv4:") ||
         absl::StartsWith(address, "ipv6:");
}

// A retry finds a restarted server only if the connection is retried as fast.
constexpr int kMinReconnectMs = 100;
constexpr int kMaxReconnectMs = 5000;
constexpr int kConnectTimeoutMs = 5000;
// A dead peer is noticed within 80 s while a call runs.
constexpr int kKeepaliveMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;

constexpr int64_t kMaxFileBytes = 1 << 20;  // of certificates and keys

constexpr char kCancelled[] = "ended by the client";

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content(kMaxFileBytes, '\0');
  file.read(content.data(), kMaxFileBytes);
  // A directory opens, and then fails to read.
  if (!file.is_open() || file.bad()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  }
  content.resize(static_cast<size_t>(file.gcount()));
  return content;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const ClientOptions& options) {
  if (!options.tls) {
    if (!options.tls_ca_file.empty() || !options.tls_cert_file.empty() ||
        !options.tls_key_file.empty()) {
      return absl::InvalidArgumentError("TLS files are given, but TLS is off");
    }
    return grpc::InsecureChannelCredentials();
  }
  if (options.tls_cert_file.empty() != options.tls_key_file.empty()) {
    return absl::InvalidArgumentError("mutual TLS needs both a certificate and a key");
  }
  grpc::SslCredentialsOptions ssl;
  for (const auto& [path, content] : {std::pair{&options.tls_ca_file, &ssl.pem_root_certs},
                                      std::pair{&options.tls_cert_file, &ssl.pem_cert_chain},
                                      std::pair{&options.tls_key_file, &ssl.pem_private_key}}) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> read = ReadFile(*path);
    if (!read.ok()) return read.status();
    *content = *std::move(read);
  }
  return grpc::SslCredentials(ssl);
}

}  // namespace

absl::string_view ServingStatusName(ServingStatus status) {
  switch (status) {
    case ServingStatus::kServing:
      return "SERVING";
    case ServingStatus::kNotServing:
      return "NOT_SERVING";
    case ServingStatus::kServiceUnknown:
      return "SERVICE_UNKNOWN";
    case ServingStatus::kUnknown:
      break;
  }
  return "UNKNOWN";
}

void Cancellation::Cancel() {
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

bool Cancellation::Add(grpc::ClientContext* call) {
  absl::MutexLock lock(&mu_);
  if (!cancelled_) calls_.insert(call);
  return !cancelled_;
}

void Cancellation::Remove(grpc::ClientContext* call) {
  absl::MutexLock lock(&mu_);
  calls_.erase(call);
}

struct Client::Impl {
  std::string authorization;  // header value, or empty
  absl::Duration timeout;
  std::unique_ptr<v1::GenerationService::Stub> generation;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(Stub& stub,
                                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                                 const Request& request, Cancellation* cancellation = nullptr);
};

// One call's context: deadline and token set, reachable by `cancellation` while it lives.
class Client::Call {
 public:
  Call(const Impl& impl, Cancellation* cancellation) : cancellation_(cancellation) {
    if (impl.timeout != absl::InfiniteDuration()) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + impl.timeout));
    }
    if (!impl.authorization.empty()) context_.AddMetadata("authorization", impl.authorization);
    started_ = cancellation_ == nullptr || cancellation_->Add(&context_);
  }
  ~Call() {
    if (cancellation_ != nullptr) cancellation_->Remove(&context_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  grpc::ClientContext* context() { return &context_; }
  absl::Status Start() const {
    return started_ ? absl::OkStatus() : absl::CancelledError(kCancelled);
  }
  absl::Status Convert(const grpc::Status& status) const {
    const bool own = cancellation_ != nullptr && cancellation_->cancelled();
    return own && status.error_code() == grpc::CANCELLED ? absl::CancelledError(kCancelled)
                                                         : FromGrpcStatus(status);
  }

 private:
  Cancellation* const cancellation_;
  grpc::ClientContext context_;
  bool started_;
};

template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Client::Impl::Unary(
    Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
    const Request& request, Cancellation* cancellation) {
  Call call(*this, cancellation);
  if (absl::Status start = call.Start(); !start.ok()) return start;
  Response response;
  const absl::Status status = call.Convert((stub.*method)(call.context(), request, &response));
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  if (options.address.empty()) return absl::InvalidArgumentError("the server address is empty");
  // Only what an HTTP/2 header may carry: gRPC aborts the process on anything else.
  if (!std::all_of(options.token.begin(), options.token.end(), absl::ascii_isgraph)) {
    return absl::InvalidArgumentError("the token may hold visible ASCII characters only");
  }
  auto credentials = MakeCredentials(options);
  if (!credentials.ok()) return credentials.status();

  grpc::ChannelArguments arguments;
  const bool fleet = IsFleet(options.address);
  arguments.SetServiceConfigJSON(fleet ? kFleetConfig : kServerConfig);
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kRetryBufferBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kMinReconnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);  // despite its name
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  // However long a call waits for its answer: by default gRPC stops after two pings.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Log-probabilities of 16 long choices pass any fixed limit, and the caller asked for them.
  arguments.SetMaxReceiveMessageSize(-1);

  auto impl = std::make_unique<Impl>();
  if (!options.token.empty()) impl->authorization = absl::StrCat("Bearer ", options.token);
  impl->timeout = options.timeout;
  auto channel = grpc::CreateCustomChannel(options.address, *credentials, arguments);
  impl->generation = v1::GenerationService::NewStub(channel);
  if (fleet) {
    // One that is not ready must be able to say so.
    arguments.SetInt(GRPC_ARG_INHIBIT_HEALTH_CHECKING, 1);
    channel = grpc::CreateCustomChannel(options.address, *credentials, arguments);
  }
  impl->health = grpc::health::v1::Health::NewStub(channel);
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<v1::GenerateResponse> Client::Generate(const v1::GenerateRequest& request,
                                                      Cancellation* cancellation) {
  return impl_->Unary(*impl_->generation, &v1::GenerationService::Stub::Generate, request,
                      cancellation);
}

absl::Status Client::GenerateStream(const v1::GenerateRequest& request, StreamCallback on_event,
                                    Cancellation* cancellation) {
  Call call(*impl_, cancellation);
  if (absl::Status start = call.Start(); !start.ok()) return start;
  auto reader = impl_->generation->GenerateStream(call.context(), request);
  uint32_t unfinished = request.sampling().has_n() ? request.sampling().n() : 1;
  v1::GenerateStreamResponse event;
  while (reader->Read(&event)) {
    if (event.has_finished()) --unfinished;
    if (!on_event(event)) {
      call.context()->TryCancel();
      reader->Finish();
      return absl::CancelledError(kCancelled);
    }
  }
  absl::Status status = call.Convert(reader->Finish());
  if (status.ok() && unfinished != 0) {
    return absl::DataLossError(
        absl::StrCat("the stream ended with ", unfinished, " unfinished choices"));
  }
  return status;
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      Cancellation* cancellation) {
  return impl_->Unary(*impl_->generation, &v1::GenerationService::Stub::Tokenize, request,
                      cancellation);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request) {
  return impl_->Unary(*impl_->generation, &v1::GenerationService::Stub::Detokenize, request);
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels() {
  return impl_->Unary(*impl_->generation, &v1::GenerationService::Stub::ListModels,
                      v1::ListModelsRequest());
}

absl::StatusOr<v1::Model> Client::GetModel(absl::string_view name) {
  v1::GetModelRequest request;
  request.set_model(std::string(name));
  absl::StatusOr<v1::GetModelResponse> response =
      impl_->Unary(*impl_->generation, &v1::GenerationService::Stub::GetModel, request);
  if (!response.ok()) return response.status();
  return response->model();
}

absl::StatusOr<v1::GetLoadResponse> Client::GetLoad(absl::string_view model) {
  v1::GetLoadRequest request;
  request.set_model(std::string(model));
  return impl_->Unary(*impl_->generation, &v1::GenerationService::Stub::GetLoad, request);
}

absl::StatusOr<ServingStatus> Client::CheckHealth(absl::string_view service) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(std::string(service));
  absl::StatusOr<grpc::health::v1::HealthCheckResponse> response =
      impl_->Unary(*impl_->health, &grpc::health::v1::Health::Stub::Check, request);
  if (!response.ok()) return response.status();
  return static_cast<ServingStatus>(response->status());
}

absl::Status Client::WatchHealth(absl::string_view service, HealthCallback on_change,
                                 Cancellation* cancellation) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(std::string(service));
  Call call(*impl_, cancellation);
  if (absl::Status start = call.Start(); !start.ok()) return start;
  auto reader = impl_->health->Watch(call.context(), request);
  grpc::health::v1::HealthCheckResponse response;
  while (reader->Read(&response)) {
    if (!on_change(static_cast<ServingStatus>(response.status()))) {
      call.context()->TryCancel();
      reader->Finish();
      return absl::OkStatus();
    }
  }
  return call.Convert(reader->Finish());
}

}  // namespace lacuna
