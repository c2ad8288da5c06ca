#ifndef LACUNA_SERVER_OPTIONS_H_
#define LACUNA_SERVER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/model/ffn_dispatcher.h"

namespace lacuna {

// A model to serve, by the name that requests use.
struct ModelSpec {
  std::string name;
  std::string path;
  std::string activation = {};  // "": the one that its files declare; see ParseActivation
};

// Whether to say what the models are, and how, instead of serving them.
enum class InspectMode { kOff, kText, kJson };

// Everything that can be configured; the meaning of each is in --help.
struct ServerOptions {
  std::vector<ModelSpec> models;
  InspectMode inspect = InspectMode::kOff;
  std::string weights = "auto";
  FfnMode ffn = FfnMode::kAuto;
  std::string predictor = "off";
  double predictor_recall = 0.99;
  std::string device = "auto";
  int threads = 0;

  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:9464";  // empty: off
  std::string admin_listen;                       // empty: off
  std::string tls_cert, tls_key, tls_client_ca;   // PEM files
  std::string auth_token_file;
  bool reflection = false;
  bool vllm_metrics = true;

  int32_t max_concurrent = 64;
  int32_t max_queue = 256;
  int32_t max_step_tokens = 512;
  int64_t kv_cache_mb = 0;  // 0: chosen from the context and the free memory
  bool prefix_cache = true;
  int32_t default_max_tokens = 256;
  int32_t max_prompt_kb = 1024;
  int32_t stream_buffer_kb = 1024;

  absl::Duration drain_lead = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(45);
  // What answers have to be sent in once a drain is over: no flag.
  absl::Duration flush_timeout = absl::Seconds(2);
  absl::Duration write_stall_timeout = absl::Seconds(30);
  absl::Duration engine_stall_timeout = absl::Seconds(60);
  absl::Duration max_connection_age = absl::ZeroDuration();  // zero: any
};

// The value of an environment variable, or null.
using Environment = std::function<const char*(const char* name)>;

// Command line over environment (LACUNA_<NAME>) over --config file over defaults. Nothing if help
// or the version was asked for and printed to `out`. INVALID_ARGUMENT, with the flag and the
// value, for bad usage; NOT_FOUND if no model is given and the embedded one is not installed.
absl::StatusOr<std::optional<ServerOptions>> ParseServerOptions(std::vector<std::string> args,
                                                                const Environment& environment,
                                                                std::ostream* out);

// A name that a model can have: [A-Za-z0-9._-], 1 to 64 characters, no leading dot.
bool IsModelName(const std::string& name);
// Whether only this machine reaches `address` (HOST:PORT).
bool IsLoopback(const std::string& address);

}  // namespace lacuna

#endif  // LACUNA_SERVER_OPTIONS_H_
