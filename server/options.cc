#include "server/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/model/activation_name.h"
#include "runtime/model/device_choice.h"
#include "server/default_model.h"
#include "server/version.h"

namespace lacuna {
namespace {

constexpr char kDescription[] =
    "Serves language models whose feed-forward layers are mostly zero, over gRPC.\n";

constexpr char kFooter[] = R"(
Every flag can also be set as LACUNA_<NAME> in the environment (LACUNA_LISTEN=0.0.0.0:50051;
several models or activations separated by commas) or as a line of the --config file
(listen="0.0.0.0:50051").
The command line wins over the environment, the environment over the file.

The ports are bound before the models are loaded: health checks answer at once and Generate says
UNAVAILABLE. When everything is loaded, stdout gets one line,
  listening grpc=HOST:PORT metrics=HOST:PORT
SIGTERM or SIGINT drains: not ready any more, then --drain_lead, then new requests get UNAVAILABLE
while running ones finish, for at most --drain_timeout. A second signal cuts that to one second, a
third one stops at once.

Exit codes: 0 clean stop, 1 failure, 2 bad usage or configuration, 3 a model cannot be loaded.

Examples:
  lacuna-server                                         the embedded model on 127.0.0.1:50051
  lacuna-server --model=/models/prosparse-7b --weights=bf16
  lacuna-server --model=small=/models/a --model=big=/models/b --max_concurrent=16
  lacuna-server --listen=127.0.0.1:0 --metrics_listen=127.0.0.1:0   ports chosen by the system

Security: put a proxy such as Envoy in front before you listen beyond this machine.)";

// HOST:PORT with a port in [0, 65535]; the host may be a bracketed IPv6 address.
std::string CheckAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::StrCat("'", text, "' is not HOST:PORT");
  }
  return "";
}

std::string CheckOptionalAddress(const std::string& text) {
  return text.empty() ? "" : CheckAddress(text);
}

std::string CheckDevice(const std::string& text) {
  return ParseDevice(text).ok() ? ""
                                : absl::StrCat("'", text, "' is not auto, cpu, cuda or cuda:N");
}

CLI::Option* AddDuration(CLI::App* app, const std::string& name, absl::Duration* value,
                         const std::string& description,
                         absl::Duration least = absl::ZeroDuration()) {
  return app
      ->add_option_function<std::string>(
          name,
          [name, value, least](const std::string& text) {
            if (!absl::ParseDuration(text, value) || *value < absl::ZeroDuration() ||
                *value > absl::Hours(24)) {
              throw CLI::ValidationError(
                  name, absl::StrCat("'", text, "' is not a duration such as 500ms, 45s or 2m"));
            }
            if (*value < least) {
              throw CLI::ValidationError(
                  name, absl::StrCat(text, " is less than ", absl::FormatDuration(least)));
            }
          },
          description)
      ->type_name("DURATION")
      ->default_str(absl::FormatDuration(*value));
}

// "NAME=PATH" or "PATH", then named after its last component, without ".gguf".
absl::StatusOr<ModelSpec> ParseModelSpec(const std::string& text) {
  ModelSpec spec;
  const size_t equals = text.find('=');
  if (equals != std::string::npos && text.find('/') > equals) {
    spec.name = text.substr(0, equals);
    spec.path = text.substr(equals + 1);
  } else {
    spec.path = text;
    std::filesystem::path path = std::filesystem::path(text).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();
    spec.name = (path.extension() == ".gguf" ? path.stem() : path.filename()).string();
  }
  if (!IsModelName(spec.name) || spec.path.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--model: '", text, "' is not [NAME=]PATH with a name of 1 to 64 of [A-Za-z0-9._-]"));
  }
  return spec;
}

// Flags given in the environment and not in `args`, as arguments.
std::vector<std::string> EnvironmentArgs(const CLI::App& app, const std::vector<std::string>& args,
                                         const Environment& environment) {
  std::vector<std::string> result;
  for (const CLI::Option* option : app.get_options()) {
    const std::string flag = absl::StrCat("--", option->get_single_name());
    if (flag == "--help" || flag == "--version") continue;
    const bool given = std::any_of(args.begin(), args.end(), [&](const std::string& arg) {
      return arg == flag || arg.rfind(flag + "=", 0) == 0;
    });
    const std::string variable =
        absl::StrCat("LACUNA_", absl::AsciiStrToUpper(option->get_single_name()));
    const char* value = given ? nullptr : environment(variable.c_str());
    if (value == nullptr) continue;
    if (flag != "--model" && flag != "--activation") {
      result.push_back(absl::StrCat(flag, "=", value));
      continue;
    }
    for (absl::string_view item : absl::StrSplit(value, ',', absl::SkipEmpty())) {
      result.push_back(absl::StrCat(flag, "=", item));
    }
  }
  return result;
}

// Whether `message` is about one of `args`.
bool NamesFlag(const std::string& message, const std::vector<std::string>& args) {
  return std::any_of(args.begin(), args.end(), [&](const std::string& arg) {
    return arg.rfind("--", 0) == 0 && absl::StrContains(message, arg.substr(0, arg.find('=')));
  });
}

absl::Status CheckTogether(const ServerOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls_cert and --tls_key need each other");
  }
  if (!options.tls_client_ca.empty() && options.tls_cert.empty()) {
    return absl::InvalidArgumentError("--tls_client_ca needs --tls_cert and --tls_key");
  }
  if (options.predictor != "off" && options.ffn != FfnMode::kAuto) {
    return absl::InvalidArgumentError(
        absl::StrCat("--predictor=", options.predictor,
                     " needs --ffn=auto; --ffn=", FfnModeName(options.ffn), " is exact"));
  }
  for (size_t i = 0; i < options.models.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (options.models[i].name == options.models[j].name) {
        return absl::InvalidArgumentError(absl::StrCat("--model: two models are named '",
                                                       options.models[i].name,
                                                       "'; name them with --model=NAME=PATH"));
      }
    }
  }
  return absl::OkStatus();
}

// "ACTIVATION" for all of `models`, "NAME=ACTIVATION" for one.
absl::Status SetActivation(const std::string& text, std::vector<ModelSpec>* models) {
  const size_t equals = text.find('=');
  const std::string name = equals == std::string::npos ? "" : text.substr(0, equals);
  const std::string activation = equals == std::string::npos ? text : text.substr(equals + 1);
  if (const absl::Status status = ParseActivation(activation).status(); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--activation: ", status.message()));
  }
  bool found = false;
  for (ModelSpec& model : *models) {
    if (!name.empty() && model.name != name) continue;
    model.activation = activation;
    found = true;
  }
  if (found) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--activation: '", text, "': no --model is named '", name, "'"));
}

void AddFlags(CLI::App* app, ServerOptions* options, std::vector<std::string>* models,
              std::vector<std::string>* activations) {
  app->add_option("--model", *models,
                  "Model to serve, repeatable: a Hugging Face directory (config.json,\n"
                  "*.safetensors, tokenizer.model) or a GGUF file. Default: the embedded model")
      ->type_name("[NAME=]PATH")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_option_function<std::string>(
         "--inspect",
         [options](const std::string& format) {
           options->inspect = format == "json" ? InspectMode::kJson : InspectMode::kText;
         },
         "Instead of serving, say what each model is and what memory it needs, from headers "
         "alone;\n"
         "json: one object a line. Exit code 3 if a model would be refused")
      ->check(CLI::IsMember({"text", "json"}));
  app->add_option(
         "--weights", options->weights,
         "Weights in memory; auto: bf16 where they are stored so, else f32 (float16 too);\n"
         "blocks of a GGUF file: int8")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8", "int4"}));
  app->add_option("--activation", *activations,
                  "What the FFN computes, where the model's files say it wrongly or not at all,\n"
                  "repeatable: relu, fatrelu:T, drelu or silu")
      ->type_name("[NAME=]ACTIVATION")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_option_function<std::string>(
         "--ffn",
         [options](const std::string& mode) {
           options->ffn = mode == "dense"    ? FfnMode::kDense
                          : mode == "sparse" ? FfnMode::kSparse
                                             : FfnMode::kAuto;
         },
         "FFN path; auto: per layer and step, whichever is measured to be faster")
      ->check(CLI::IsMember({"auto", "dense", "sparse"}))
      ->default_str("auto");
  app->add_option("--predictor", options->predictor,
                  "sketch: with --ffn=auto, when few sequences decode, compute only those gates\n"
                  "that a sketch of the gate weights finds promising. Approximate, and audited\n"
                  "live: lacuna_predictor_*, lacuna_sparse_audit_*")
      ->check(CLI::IsMember({"off", "sketch"}));
  app->add_option("--predictor_recall", options->predictor_recall,
                  "Share of the active neurons that the sketch is to find")
      ->check(CLI::Range(0.5, 0.99999));
  app->add_option("--device", options->device, "auto (a GPU if there is one), cpu, cuda or cuda:N")
      ->type_name("DEVICE")
      ->check(CheckDevice);
  app->add_option("--threads", options->threads, "Threads that compute; 0: one per available CPU")
      ->check(CLI::Range(0, 1024));

  app->add_option("--listen", options->listen, "gRPC address; port 0: chosen by the system")
      ->type_name("HOST:PORT")
      ->check(CheckAddress);
  app->add_option("--metrics_listen", options->metrics_listen,
                  "Prometheus address (http://HOST:PORT/metrics); empty: off")
      ->type_name("HOST:PORT")
      ->check(CheckOptionalAddress);
  app->add_option("--admin_listen", options->admin_listen,
                  "AdminService address (load, unload, drain); empty: off")
      ->type_name("HOST:PORT")
      ->check(CheckOptionalAddress);
  app->add_option("--tls_cert", options->tls_cert, "PEM certificate chain; turns TLS on");
  app->add_option("--tls_key", options->tls_key, "PEM private key");
  app->add_option("--tls_client_ca", options->tls_client_ca,
                  "PEM roots; clients must then show a certificate (mTLS)");
  app->add_option("--auth_token_file", options->auth_token_file,
                  "File with one accepted bearer token per line");
  app->add_flag("--reflection", options->reflection, "Serve gRPC reflection");
  app->add_flag("--vllm_metrics", options->vllm_metrics,
                "Also export vllm:* names for gateway endpoint pickers (=false: off)")
      ->default_str("true");

  app->add_option("--max_concurrent", options->max_concurrent, "Sequences that run at a time")
      ->check(CLI::Range(1, 4096));
  app->add_option("--max_queue", options->max_queue, "Further sequences that may wait")
      ->check(CLI::Range(0, 1 << 20));
  app->add_option("--max_step_tokens", options->max_step_tokens, "Tokens of one step at most")
      ->check(CLI::Range(1, 1 << 20));
  app->add_option("--kv_cache_mb", options->kv_cache_mb,
                  "KV cache per model in MiB; 0: room for --max_concurrent full contexts, at\n"
                  "most half of the free memory")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30));
  app->add_flag("--prefix_cache", options->prefix_cache,
                "Reuse the KV blocks of equal prompt beginnings (=false: off)")
      ->default_str("true");
  app->add_option("--default_max_tokens", options->default_max_tokens,
                  "stopping.max_tokens of requests that do not set it")
      ->check(CLI::Range(1, 1 << 20));
  app->add_option("--max_prompt_kb", options->max_prompt_kb,
                  "Longest prompt text in KiB, checked before tokenizing")
      ->check(CLI::Range(1, 4096));
  app->add_option("--stream_buffer_kb", options->stream_buffer_kb,
                  "Output kept for a client that reads slowly, per stream; beyond it the stream\n"
                  "ends with RESOURCE_EXHAUSTED")
      ->check(CLI::Range(1, 1 << 20));

  AddDuration(app, "--drain_lead", &options->drain_lead,
              "Time between not ready and refusing, for balancers to notice");
  AddDuration(app, "--drain_timeout", &options->drain_timeout,
              "Longest wait for running requests when stopping");
  AddDuration(app, "--write_stall_timeout", &options->write_stall_timeout,
              "Longest wait for a client to take a message; beyond it the call is cut off",
              absl::Seconds(1));
  AddDuration(app, "--engine_stall_timeout", &options->engine_stall_timeout,
              "Health checks fail, \"liveness\" too, if work is in flight and no step has ended\n"
              "for this long; longer than the longest step",
              absl::Seconds(1));
  AddDuration(app, "--max_connection_age", &options->max_connection_age,
              "Clients are asked to connect anew after about this long, so that they find new\n"
              "replicas; running calls finish on the old connection; 0s: never");
}

}  // namespace

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  return host == "localhost" || host == "[::1]" || host.rfind("127.", 0) == 0;
}

bool IsModelName(const std::string& name) {
  return !name.empty() && name.size() <= 64 && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

absl::StatusOr<std::optional<ServerOptions>> ParseServerOptions(std::vector<std::string> args,
                                                                const Environment& environment,
                                                                std::ostream* out) {
  ServerOptions options;
  std::vector<std::string> models, activations;
  CLI::App app(kDescription, "lacuna-server");
  app.option_defaults()->always_capture_default()->multi_option_policy(
      CLI::MultiOptionPolicy::TakeLast);
  app.set_version_flag("--version", absl::StrCat("lacuna-server ", kVersion));
  AddFlags(&app, &options, &models, &activations);
  app.set_config("--config", "", "File with the same names as the flags, one name=value a line");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.footer(kFooter);

  for (std::string& arg : EnvironmentArgs(app, args, environment)) args.push_back(std::move(arg));
  // CLI11 takes an empty value only as an argument of its own.
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].rfind("--", 0) != 0 || args[i].find('=') != args[i].size() - 1) continue;
    args[i].pop_back();
    args.insert(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, "");
  }
  const std::vector<std::string> flags = args;
  std::reverse(args.begin(), args.end());  // as CLI11 wants them
  try {
    app.parse(args);
  } catch (const CLI::Success& asked) {  // --help, --version
    app.exit(asked, *out, *out);
    return std::nullopt;
  } catch (const CLI::FileError& error) {
    return absl::InvalidArgumentError(absl::StrCat("--config: ", error.what()));
  } catch (const CLI::ParseError& error) {
    const std::string file =
        app.get_config_ptr()->count() > 0 ? app.get_config_ptr()->as<std::string>() : std::string();
    return absl::InvalidArgumentError(file.empty() || NamesFlag(error.what(), flags)
                                          ? error.what()
                                          : absl::StrCat(file, ": ", error.what()));
  }

  for (const std::string& text : models) {
    absl::StatusOr<ModelSpec> spec = ParseModelSpec(text);
    if (!spec.ok()) return spec.status();
    options.models.push_back(*std::move(spec));
  }
  if (options.models.empty()) {
    std::error_code ignored;
    absl::StatusOr<std::string> path =
        FindDefaultModel(std::filesystem::read_symlink("/proc/self/exe", ignored).string());
    if (!path.ok()) return path.status();
    options.models.push_back({std::filesystem::path(*path).filename().string(), *path});
  }
  for (const std::string& text : activations) {
    if (absl::Status status = SetActivation(text, &options.models); !status.ok()) return status;
  }
  if (absl::Status status = CheckTogether(options); !status.ok()) return status;
  return options;
}

}  // namespace lacuna
