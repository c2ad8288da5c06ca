// lacuna-bench: measures prefill and decode of one model without a server.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "bench/bandwidth.h"
#include "bench/bench_model.h"
#include "bench/cuda_bandwidth.h"
#include "runtime/model/device_choice.h"
#include "runtime/model/load_model.h"
#include "runtime/model/synthetic.h"

namespace lacuna {
namespace {

constexpr char kDescription[] =
    "Measures prefill and decode of one model, without a server.\n"
    "Prints a table, or JSON, of each FFN mode and batch size; with several modes their repeats\n"
    "are interleaved, so that ratios between them hold on a noisy machine.\n\n"
    "  lacuna-bench --synthetic=minicpm-s-1b --ffn=dense,sparse\n"
    "  lacuna-bench --model=models/lacuna-stories-3m --batch=8 --json\n";

// Public domain: the opening of "Pride and Prejudice" (1813). What real models are fed.
constexpr char kPrompt[] =
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. However little known the feelings or views of such a man may be "
    "on his first entering a neighbourhood, this truth is so well fixed in the minds of the "
    "surrounding families, that he is considered as the rightful property of some one or other "
    "of their daughters.";

struct Options {
  LoadOptions load;
  std::string synthetic;
  std::string ffn = "auto";
  double sparsity = 0;  // 0: the shape's own
  BenchShape shape;     // but for `batch`
  std::vector<int> batches = {1};
  int repeat = 5;
  bool json = false;
};

struct Summary {
  double median, min, max;
};

Summary Summarize(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {(values[(n - 1) / 2] + values[n / 2]) / 2, values.front(), values.back()};
}

absl::StatusOr<LoadedModel> LoadSynthetic(const Options& options) {
  absl::StatusOr<SyntheticShape> shape = FindSyntheticShape(options.synthetic);
  if (!shape.ok()) return shape.status();
  const ModelConfig config = SyntheticConfig(*shape);
  const double sparsity = options.sparsity > 0 ? options.sparsity : shape->sparsity;
  const std::unique_ptr<WeightSource> source = MakeSyntheticSource(config, sparsity, 1);
  return BuildModel(config, *source, options.load);
}

double PeakRssMb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

nlohmann::ordered_json Report(const Options& options, const BenchShape& shape, const Model& model,
                              FfnMode mode, const std::vector<BenchRun>& runs,
                              const std::vector<double>& bandwidth, double load_seconds) {
  std::vector<double> prefill, decode, step_ms;
  BenchRun total;
  for (const BenchRun& run : runs) {
    prefill.push_back(shape.batch * shape.prompt_tokens / run.prefill_seconds);
    decode.push_back(run.tokens / run.decode_seconds);
    total.decode_seconds += run.decode_seconds;
    total.decode_times.ffn += run.decode_times.ffn;
    total.decode_times.attention += run.decode_times.attention;
    total.decode_times.other += run.decode_times.other;
    total.decode_steps += run.decode_steps;
    total.ffn_bytes += run.ffn_bytes;
    total.active += run.active;
    total.tokens += run.tokens;
    total.union_active += run.union_active;
    total.groups += run.groups;
    total.prediction += run.prediction;
    total.audits += run.audits;
    total.audit_mismatches += run.audit_mismatches;
  }
  const double steps = static_cast<double>(total.decode_steps);
  const ModelConfig& config = model.config();
  // Everything but the FFN is read in full by every step (twice by an audited one).
  const ModelFacts& facts = model.facts();
  const double bytes = static_cast<double>(facts.step_weight_bytes - facts.ffn_weight_bytes) +
                       static_cast<double>(total.ffn_bytes) / steps;
  const Summary p = Summarize(prefill), d = Summarize(decode), b = Summarize(bandwidth);
  const double achieved = bytes * d.median / shape.batch;
  const double triples = static_cast<double>(total.tokens) * config.ffn_size * config.num_layers;

  nlohmann::ordered_json out;
  out["model"] = options.synthetic.empty() ? options.load.path : options.synthetic;
  out["weights"] = model.facts().weights;
  out["ffn"] = FfnModeName(mode);
  out["device"] = model.facts().device;
  out["isa"] = model.facts().isa;
  out["threads"] = model.facts().threads;
  out["batch"] = shape.batch;
  out["prompt_tokens"] = shape.prompt_tokens;
  out["generate_tokens"] = shape.generate_tokens;
  out["prefill_tokens_per_s"] = p.median;
  out["prefill_tokens_per_s_min"] = p.min;
  out["prefill_tokens_per_s_max"] = p.max;
  out["decode_tokens_per_s"] = d.median;
  out["decode_tokens_per_s_min"] = d.min;
  out["decode_tokens_per_s_max"] = d.max;
  out["ffn_ms_per_step"] = 1e3 * total.decode_times.ffn / steps;
  out["attention_ms_per_step"] = 1e3 * total.decode_times.attention / steps;
  out["other_ms_per_step"] = 1e3 * total.decode_times.other / steps;
  out["weight_bytes_per_step"] = static_cast<int64_t>(bytes);
  out["achieved_gb_per_s"] = achieved / 1e9;
  out["measured_bandwidth_gb_per_s"] = b.median / 1e9;
  out["bandwidth_fraction"] = achieved / b.median;
  out["sparsity"] = 1.0 - static_cast<double>(total.active) / triples;
  out["union_density"] = static_cast<double>(total.union_active) /
                         (static_cast<double>(total.groups) * config.ffn_size);
  if (total.audits > 0) {
    const auto found = static_cast<double>(total.prediction.true_positive);
    out["predictor_recall"] = found / (found + total.prediction.false_negative);
    out["predictor_precision"] = found / (found + total.prediction.false_positive);
    const double audited = static_cast<double>(total.audits) * config.num_layers * config.ffn_size;
    out["predictor_certified_share"] = total.prediction.certified / audited;
    out["audits"] = total.audits;
    out["audit_argmax_mismatches"] = total.audit_mismatches;
  }
  out["load_s"] = load_seconds;
  out["peak_rss_mb"] = PeakRssMb();
  return out;
}

void PrintForPeople(const nlohmann::ordered_json& r) {
  std::printf(
      "%s %s ffn=%s batch=%d threads=%d %s\n"
      "  prefill  %9.1f tokens/s   (%.1f to %.1f)\n"
      "  decode   %9.2f tokens/s   (%.2f to %.2f)\n"
      "  per step %9.2f ms FFN, %.2f ms attention, %.2f ms other\n"
      "  weights  %9.2f GB per step at %.1f GB/s = %.0f %% of the %.1f GB/s measured\n"
      "  FFN      %9.2f %% zeros, union density %.2f %%\n",
      r["model"].get<std::string>().c_str(), r["weights"].get<std::string>().c_str(),
      r["ffn"].get<std::string>().c_str(), r["batch"].get<int>(), r["threads"].get<int>(),
      r["isa"].get<std::string>().c_str(), r["prefill_tokens_per_s"].get<double>(),
      r["prefill_tokens_per_s_min"].get<double>(), r["prefill_tokens_per_s_max"].get<double>(),
      r["decode_tokens_per_s"].get<double>(), r["decode_tokens_per_s_min"].get<double>(),
      r["decode_tokens_per_s_max"].get<double>(), r["ffn_ms_per_step"].get<double>(),
      r["attention_ms_per_step"].get<double>(), r["other_ms_per_step"].get<double>(),
      r["weight_bytes_per_step"].get<double>() / 1e9, r["achieved_gb_per_s"].get<double>(),
      100 * r["bandwidth_fraction"].get<double>(), r["measured_bandwidth_gb_per_s"].get<double>(),
      100 * r["sparsity"].get<double>(), 100 * r["union_density"].get<double>());
  if (!r.contains("audits")) return;
  std::printf(
      "  sketch   %9.2f %% recall, %.2f %% precision, %.2f %% of neurons proven inactive; %d "
      "audits, %d with another argmax\n",
      100 * r["predictor_recall"].get<double>(), 100 * r["predictor_precision"].get<double>(),
      100 * r["predictor_certified_share"].get<double>(), r["audits"].get<int>(),
      r["audit_argmax_mismatches"].get<int>());
}

absl::StatusOr<std::vector<FfnMode>> ParseModes(const std::string& text) {
  std::vector<FfnMode> modes;
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const auto known = {FfnMode::kAuto, FfnMode::kDense, FfnMode::kSparse};
    const auto it = std::find_if(known.begin(), known.end(),
                                 [&](FfnMode mode) { return name == FfnModeName(mode); });
    if (it == known.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--ffn: ", name, ", want auto, dense or sparse"));
    }
    modes.push_back(*it);
  }
  return modes;
}

// All modes of one shape in interleaved rounds; prints a report for each.
absl::Status MeasureShape(const Options& options, const BenchShape& shape,
                          const std::vector<FfnMode>& modes, const Model& model,
                          absl::FunctionRef<absl::StatusOr<double>()> measure_bandwidth,
                          double load_seconds, BenchModel* bench) {
  absl::Status status = bench->Prepare();
  if (!status.ok()) return status;

  std::vector<std::vector<BenchRun>> runs(modes.size());
  std::vector<std::vector<double>> bandwidth(modes.size());
  for (int r = -1; r < options.repeat; ++r) {  // round -1 warms up
    for (size_t m = 0; m < modes.size(); ++m) {
      const absl::StatusOr<double> bytes_per_s = measure_bandwidth();
      if (!bytes_per_s.ok()) return bytes_per_s.status();
      absl::StatusOr<BenchRun> run = bench->Run(modes[m], static_cast<uint64_t>(r + 2));
      if (!run.ok()) return run.status();
      std::fprintf(stderr, "\r%s: round %d of %d ", FfnModeName(modes[m]), r + 1, options.repeat);
      if (r < 0) continue;
      runs[m].push_back(*run);
      bandwidth[m].push_back(*bytes_per_s);
    }
  }
  std::fputs("\n", stderr);
  for (size_t m = 0; m < modes.size(); ++m) {
    const nlohmann::ordered_json report =
        Report(options, shape, model, modes[m], runs[m], bandwidth[m], load_seconds);
    if (options.json) {
      std::printf("%s\n", report.dump().c_str());
    } else {
      PrintForPeople(report);
    }
  }
  return absl::OkStatus();
}

absl::Status RunBench(const Options& options) {
  absl::StatusOr<std::vector<FfnMode>> modes = ParseModes(options.ffn);
  if (!modes.ok()) return modes.status();
  const absl::Time load_start = absl::Now();
  absl::StatusOr<LoadedModel> loaded =
      options.synthetic.empty() ? LoadModel(options.load) : LoadSynthetic(options);
  if (!loaded.ok()) return loaded.status();
  const double load_seconds = absl::ToDoubleSeconds(absl::Now() - load_start);
  const ModelConfig& config = loaded->model->config();
  if (options.shape.prompt_tokens + options.shape.generate_tokens > config.max_context) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.shape.prompt_tokens, " prompt and ", options.shape.generate_tokens,
                     " generated tokens exceed the context of ", config.max_context));
  }
  std::vector<int32_t> prompt;
  if (loaded->tokenizer != nullptr) {
    absl::StatusOr<std::vector<int32_t>> ids = loaded->tokenizer->Encode(kPrompt, true);
    if (!ids.ok()) return ids.status();
    prompt = *std::move(ids);
  }
  absl::StatusOr<BandwidthProbe> probe = BandwidthProbe::Create(loaded->pool.get());
  if (!probe.ok()) return probe.status();
  const absl::StatusOr<DeviceRequest> device = ParseDevice(loaded->model->facts().device);
  if (!device.ok()) return device.status();
  const auto measure_bandwidth = [&]() -> absl::StatusOr<double> {
    if (device->kind == DeviceRequest::Kind::kCuda) return CudaCopyBandwidth(device->gpu);
    return probe->Measure();
  };
  for (const int batch : options.batches) {
    BenchShape shape = options.shape;
    shape.batch = batch;
    BenchModel bench(loaded->model.get(), prompt, shape);
    const absl::Status status = MeasureShape(options, shape, *modes, *loaded->model,
                                             measure_bandwidth, load_seconds, &bench);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(kDescription);
  std::string shapes;
  for (const SyntheticShape& shape : SyntheticShapes()) absl::StrAppend(&shapes, " ", shape.name);
  auto* source = app.add_option_group("model");
  source->add_option("--model", options.load.path, "A Hugging Face directory or a GGUF file");
  auto* synthetic = source->add_option("--synthetic", options.synthetic,
                                       "Seeded random weights in the shape of:" + shapes);
  source->require_option(1);
  app.add_option("--weights", options.load.weights, "auto, f32, bf16, int8 or int4")
      ->capture_default_str();
  app.add_option("--activation", options.load.activation,
                 "In place of the model's own: relu, fatrelu:T, drelu or silu")
      ->excludes(synthetic);
  app.add_option("--ffn", options.ffn, "auto, dense, sparse, or a list such as dense,sparse")
      ->capture_default_str();
  app.add_option("--predictor", options.load.predictor,
                 "off, or sketch: what --ffn=auto leaves out of the gate, approximately")
      ->capture_default_str();
  app.add_option("--predictor_recall", options.load.predictor_recall,
                 "Share of the active neurons that the sketch should find")
      ->capture_default_str();
  app.add_option("--device", options.load.device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str();
  app.add_option("--threads", options.load.threads, "0: all CPUs that may be used")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("--prompt_tokens", options.shape.prompt_tokens, "Per sequence")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--generate_tokens", options.shape.generate_tokens, "Per sequence")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--batch", options.batches, "Sequences decoded together, or a list such as 1,4,16")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_option("--sparsity", options.sparsity, "Synthetic models: share of zeros to aim at")
      ->check(CLI::Range(0.6, 0.99));
  app.add_option("--repeat", options.repeat, "Timed rounds, after one that warms up")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_flag("--json", options.json, "One JSON object per FFN mode and batch size");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.load.progress = [](double share) {
    std::fprintf(stderr, "\rloading %3.0f %% ", 100 * share);
  };
  const absl::Status status = RunBench(options);
  if (status.ok()) return 0;
  std::cerr << "lacuna-bench: " << status.message() << "\n";
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a line is out once it is measured
  return lacuna::Main(argc, argv);
}
