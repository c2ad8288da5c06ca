#ifndef LACUNA_CLIENT_CLI_OPTIONS_H_
#define LACUNA_CLIENT_CLI_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/client.h"

// Options that several subcommands share.

namespace lacuna {

// For values that become protobuf strings: a peer refuses a message that is not UTF-8.
CLI::Validator Utf8();
// For 64-bit values: CLI11 2.1 wraps negative numbers and caps those that are too large.
CLI::Validator Uint64();

// Accepts `30s`, `1m30s`, `250ms`; more than zero.
CLI::Option* AddDurationOption(CLI::App* app, const std::string& name, absl::Duration* value,
                               const std::string& description);

// --server, --tls, --tls_ca, --tls_cert, --tls_key, --token, --timeout; values set in `*options`
// are the defaults.
void AddConnectionOptions(CLI::App* app, ClientOptions* options);

struct PromptOptions {
  std::optional<std::string> text;
  std::string file;  // "-" is stdin
};
// --prompt and --prompt_file, which exclude each other.
void AddPromptOptions(CLI::App* app, PromptOptions* options);

// The prompt; a file loses one final newline, which editors and `echo` add. INVALID_ARGUMENT if
// there is neither, or the file cannot be read, holds more than 4 MiB (the most that a server
// takes) or is not UTF-8.
absl::StatusOr<std::string> ReadPrompt(const PromptOptions& options);
absl::StatusOr<std::string> ReadTextFile(const std::string& path);  // likewise

// How to sample and when to stop. Absent values are left to the server, which also checks ranges.
struct SamplingOptions {
  std::string model;
  std::optional<float> temperature, top_p, min_p;
  std::optional<uint32_t> top_k;
  std::optional<float> presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> max_tokens, min_tokens, time_limit_ms;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool ignore_eos = false;
  std::string ffn = "auto";
};
void AddSamplingOptions(CLI::App* app, SamplingOptions* options);
// A request with everything but a prompt.
v1::GenerateRequest MakeRequest(const SamplingOptions& options);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_OPTIONS_H_
