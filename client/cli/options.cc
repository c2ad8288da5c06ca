#include "client/cli/options.h"

#include <fstream>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/utf8.h"

namespace lacuna {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;

}  // namespace

CLI::Validator Utf8() {
  return CLI::Validator(
      [](std::string& text) { return IsUtf8(text) ? std::string() : "not valid UTF-8"; }, "");
}

CLI::Validator Uint64() {
  return CLI::Validator(
      [](std::string& text) {
        uint64_t value;
        return absl::SimpleAtoi(text, &value) ? std::string()
                                              : text + " is not an integer from 0 to 2^64 - 1";
      },
      "");
}

CLI::Option* AddDurationOption(CLI::App* app, const std::string& name, absl::Duration* value,
                               const std::string& description) {
  const auto check = [](std::string& text) {
    absl::Duration duration;
    return absl::ParseDuration(text, &duration) && duration > absl::ZeroDuration()
               ? std::string()
               : text + " is not a duration such as 30s or 250ms";
  };
  return app
      ->add_option_function<std::string>(
          name, [value](const std::string& text) { absl::ParseDuration(text, value); }, description)
      ->check(CLI::Validator(check, "", "DURATION"))
      ->type_name("DURATION");
}

void AddConnectionOptions(CLI::App* app, ClientOptions* options) {
  constexpr char kGroup[] = "Connection";
  app->add_option(
         "--server", options->address,
         "Where the server listens; dns:///HOST:PORT and ipv4:HOST:PORT,HOST:PORT spread calls\n"
         "over the addresses that are ready, and retry those that were refused")
      ->envname("LACUNA_SERVER")
      ->type_name("HOST:PORT")
      ->capture_default_str()
      ->group(kGroup);
  auto* tls = app->add_flag("--tls", options->tls, "Use TLS")->group(kGroup);
  app->add_option("--tls_ca", options->tls_ca_file, "PEM file: who may sign the server's name")
      ->needs(tls)
      ->type_name("FILE")
      ->group(kGroup);
  auto* certificate =
      app->add_option("--tls_cert", options->tls_cert_file, "PEM file: own certificate")
          ->needs(tls)
          ->type_name("FILE")
          ->group(kGroup);
  auto* key = app->add_option("--tls_key", options->tls_key_file, "PEM file: its private key")
                  ->needs(certificate)
                  ->type_name("FILE")
                  ->group(kGroup);
  certificate->needs(key);
  app->add_option("--token", options->token,
                  "Bearer token; prefer the variable: other users can see command lines")
      ->envname("LACUNA_TOKEN")
      ->type_name("TOKEN")
      ->group(kGroup);
  AddDurationOption(app, "--timeout", &options->timeout, "Longest time for the call")
      ->default_str(options->timeout == absl::InfiniteDuration()
                        ? "none"
                        : absl::FormatDuration(options->timeout))
      ->group(kGroup);
}

void AddPromptOptions(CLI::App* app, PromptOptions* options) {
  auto* text =
      app->add_option("--prompt", options->text, "The text")->check(Utf8())->group("Prompt");
  app->add_option("--prompt_file", options->file, "A file with the text; - is stdin")
      ->type_name("FILE")
      ->excludes(text)
      ->group("Prompt");
}

absl::StatusOr<std::string> ReadPrompt(const PromptOptions& options) {
  if (options.text.has_value()) return *options.text;
  if (options.file.empty()) {
    return absl::InvalidArgumentError("--prompt=TEXT or --prompt_file=FILE is required");
  }
  absl::StatusOr<std::string> text = ReadTextFile(options.file);
  if (text.ok() && !text->empty() && text->back() == '\n') text->pop_back();
  return text;
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& input = path == "-" ? std::cin : file;
  std::string text(kMaxFileBytes + 1, '\0');
  input.read(text.data(), static_cast<std::streamsize>(text.size()));
  // A directory opens, and then fails to read.
  if (input.bad() || (path != "-" && !file.is_open())) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  }
  text.resize(static_cast<size_t>(input.gcount()));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds more than ", kMaxFileBytes, " bytes"));
  }
  if (!IsUtf8(text)) return absl::InvalidArgumentError(absl::StrCat(path, " is not valid UTF-8"));
  return text;
}

void AddSamplingOptions(CLI::App* app, SamplingOptions* o) {
  app->add_option("--model", o->model, "Name of the model; may be left out if there is one")
      ->check(Utf8());
  app->add_option("--ffn", o->ffn,
                  "FFN path wished for; the text is the same, on a CPU to the bit, unless a "
                  "predictor runs")
      ->check(CLI::IsMember({"auto", "dense", "sparse"}))
      ->capture_default_str();

  constexpr char kSampling[] = "Sampling";
  app->add_option("--temperature", o->temperature, "0 to 2, default 1; 0 is greedy")
      ->group(kSampling);
  app->add_option("--top_p", o->top_p, "Keep the likeliest tokens up to this mass")
      ->group(kSampling);
  app->add_option("--top_k", o->top_k, "Keep this many likeliest tokens; 0 is all")
      ->group(kSampling);
  app->add_option("--min_p", o->min_p, "Keep tokens this likely relative to the best")
      ->group(kSampling);
  app->add_option("--presence_penalty", o->presence_penalty, "-2 to 2")->group(kSampling);
  app->add_option("--frequency_penalty", o->frequency_penalty, "-2 to 2")->group(kSampling);
  app->add_option("--repetition_penalty", o->repetition_penalty, "Over 0 to 10; 1 is off")
      ->group(kSampling);
  app->add_option("--seed", o->seed, "Same request and seed, same text")
      ->check(Uint64())
      ->group(kSampling);

  constexpr char kStopping[] = "Stopping";
  app->add_option("--max_tokens", o->max_tokens, "Most tokens to generate")->group(kStopping);
  app->add_option("--min_tokens", o->min_tokens, "Fewest")->group(kStopping);
  app->add_option("--stop", o->stop, "End before this text; may be repeated")
      ->check(Utf8())
      ->allow_extra_args(false)
      ->group(kStopping);
  app->add_flag("--include_stop", o->include_stop, "Print the stop text too")->group(kStopping);
  app->add_flag("--ignore_eos", o->ignore_eos, "Go on after the model's end token")
      ->group(kStopping);
  app->add_option("--time_limit_ms", o->time_limit_ms, "End after this long, with what there is")
      ->group(kStopping);
}

v1::GenerateRequest MakeRequest(const SamplingOptions& o) {
  v1::GenerateRequest request;
  request.set_model(o.model);
  v1::SamplingParams& sampling = *request.mutable_sampling();
  if (o.temperature.has_value()) sampling.set_temperature(*o.temperature);
  if (o.top_p.has_value()) sampling.set_top_p(*o.top_p);
  if (o.top_k.has_value()) sampling.set_top_k(*o.top_k);
  if (o.min_p.has_value()) sampling.set_min_p(*o.min_p);
  if (o.presence_penalty.has_value()) sampling.set_presence_penalty(*o.presence_penalty);
  if (o.frequency_penalty.has_value()) sampling.set_frequency_penalty(*o.frequency_penalty);
  if (o.repetition_penalty.has_value()) sampling.set_repetition_penalty(*o.repetition_penalty);
  if (o.seed.has_value()) sampling.set_seed(*o.seed);
  v1::StoppingParams& stopping = *request.mutable_stopping();
  if (o.max_tokens.has_value()) stopping.set_max_tokens(*o.max_tokens);
  if (o.min_tokens.has_value()) stopping.set_min_tokens(*o.min_tokens);
  for (const std::string& stop : o.stop) stopping.add_stop(stop);
  if (o.include_stop) stopping.set_include_stop(true);
  if (o.ignore_eos) stopping.set_ignore_eos(true);
  if (o.time_limit_ms.has_value()) stopping.set_time_limit_ms(*o.time_limit_ms);
  request.mutable_sparsity()->set_mode(o.ffn == "dense"    ? v1::SparsityParams::DENSE
                                       : o.ffn == "sparse" ? v1::SparsityParams::SPARSE
                                                           : v1::SparsityParams::AUTO);
  return request;
}

}  // namespace lacuna
