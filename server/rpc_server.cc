#include "server/rpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/file.h"
#include "server/logger.h"
#include "server/request_validation.h"

namespace lacuna {
namespace {

// Above this, gRPC drops new connections instead of growing.
constexpr size_t kMemoryQuotaBytes = size_t{128} << 20;
constexpr int kMaxMetadataBytes = 8 << 10;
// Per connection. Load balancers multiplex many clients over one, so not too few; the queue of the
// engine is the limit that protects the server.
constexpr int kMaxStreamsPerConnection = 1024;
// A dead peer is noticed, and what it holds is freed, after keepalive time + timeout.
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kMinPingIntervalMs = 10'000;
constexpr int kHandshakeTimeoutMs = 10'000;
constexpr int64_t kMaxPemBytes = 1 << 20;

// Linking the reflection library turns reflection on for every server of the process, by a static
// initialiser: this takes it out again.
class WithoutReflection : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(),
                                  [](const auto& plugin) {
                                    return plugin->name() == "proto_server_reflection";
                                  }),
                   plugins->end());
  }
};

// gRPC's own messages, as lines of our log, without what a client sent: it reports metadata that it
// cannot parse as "... key=NAME value=ALL OF IT".
void LogGrpcMessage(gpr_log_func_args* args) {
  const LogLevel level =
      args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kError : LogLevel::kInfo;
  const std::string message = args->message;
  Log(level, "grpc", {{"message", message.substr(0, message.find(" value="))}});
}

// Likewise those of libprotobuf, which name fields and never quote what is in them.
void LogProtobufMessage(google::protobuf::LogLevel level, const char*, int,
                        const std::string& message) {
  Log(level >= google::protobuf::LOGLEVEL_ERROR ? LogLevel::kError : LogLevel::kWarning, "protobuf",
      {{"message", message}});
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxPemBytes);
  if (!text.ok() || text->empty()) {
    return absl::NotFoundError(absl::StrCat("cannot read the PEM file ", path, ", or it is empty"));
  }
  return text;
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using PrivateKey = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Certificate ParseCertificate(const std::string& pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  return {PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free};
}

// gRPC notices when it binds, and does not say which file.
absl::Status CheckPem(const ServerOptions& options, const std::string& cert,
                      const std::string& key) {
  const Certificate certificate = ParseCertificate(cert);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls_cert: ", options.tls_cert, " has no PEM certificate"));
  }
  const Bio bio(BIO_new_mem_buf(key.data(), static_cast<int>(key.size())), BIO_free);
  // A password would be asked for on the terminal; it has none.
  char no_password[] = "";
  const PrivateKey private_key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, no_password),
                               EVP_PKEY_free);
  if (private_key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls_key: ", options.tls_key, " has no PEM private key without a password"));
  }
  if (X509_check_private_key(certificate.get(), private_key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls_key: ", options.tls_key, " is not the key of ", options.tls_cert));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> RpcServer::Credentials(
    const ServerOptions& options) {
  if (options.tls_cert.empty()) return grpc::InsecureServerCredentials();
  auto cert = ReadPem(options.tls_cert);
  if (!cert.ok()) return cert.status();
  auto key = ReadPem(options.tls_key);
  if (!key.ok()) return key.status();
  if (absl::Status status = CheckPem(options, *cert, *key); !status.ok()) return status;
  const bool mutual = !options.tls_client_ca.empty();
  grpc::SslServerCredentialsOptions ssl(
      mutual ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
             : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  ssl.pem_key_cert_pairs.push_back({*key, *cert});
  if (mutual) {
    auto roots = ReadPem(options.tls_client_ca);
    if (!roots.ok()) return roots.status();
    if (ParseCertificate(*roots) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("--tls_client_ca: ", options.tls_client_ca, " has no PEM certificate"));
    }
    ssl.pem_root_certs = *roots;
  }
  return grpc::SslServerCredentials(ssl);
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const std::string& address, const std::shared_ptr<grpc::ServerCredentials>& credentials,
    grpc::Service* service, bool health, const ServerOptions& options) {
  gpr_set_log_function(LogGrpcMessage);
  google::protobuf::SetLogHandler(LogProtobufMessage);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::EnableDefaultHealthCheckService(health);
  grpc::ServerBuilder builder;
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetResourceQuota(grpc::ResourceQuota("lacuna").Resize(kMemoryQuotaBytes));
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinPingIntervalMs);
  // Proxies keep connections alive between calls as well.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  if (options.max_connection_age > absl::ZeroDuration()) {
    builder.AddChannelArgument(
        GRPC_ARG_MAX_CONNECTION_AGE_MS,
        static_cast<int>(absl::ToInt64Milliseconds(options.max_connection_age)));
  }
  int port = 0;
  builder.AddListeningPort(address, credentials, &port);
  builder.RegisterService(service);
  auto result = std::unique_ptr<RpcServer>(new RpcServer);
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": the port is taken, or the host is not ours"));
  }
  result->address_ = absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  return result;
}

void RpcServer::SetServing(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
}

void RpcServer::Shutdown(absl::Duration timeout) {
  server_->Shutdown(absl::ToChronoTime(absl::Now() + timeout));
}

}  // namespace lacuna
