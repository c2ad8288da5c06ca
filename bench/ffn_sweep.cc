// lacuna-ffn-sweep: one feed-forward layer dense, sparse and by the dispatcher's choice, over
// batches and densities.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_split.h"
#include "kernels/base/aligned_vector.h"
#include "kernels/cpu/cpu_kernels.h"
#include "runtime/model/ffn.h"
#include "runtime/model/synthetic.h"

namespace lacuna {
namespace {

constexpr char kDescription[] =
    "Times one feed-forward layer (gate, up and down) forced dense, forced sparse and as the\n"
    "dispatcher chooses, in interleaved rounds, for each batch size and density; layers take "
    "turns,\n"
    "so that weights come from memory. The last column should not fall below 0.97. CSV on stdout.";

struct Options {
  std::string synthetic = "prosparse-llama2-7b";
  std::string weights = "int8";
  std::string densities = "0.02,0.05,0.108,0.2,0.3,0.4";
  std::string batches = "1,2,4,8,16,32,64";
  int layers = 4;
  int threads = 0;
  int repeat = 7;
};

std::vector<double> Numbers(const std::string& list) {
  std::vector<double> numbers;
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(list, ','))) {
    numbers.push_back(std::atof(item.c_str()));
  }
  return numbers;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

absl::Status Sweep(const Options& options, const SyntheticShape& shape, double density,
                   const KernelTable& kernels, DType dtype, ThreadPool* pool) {
  ModelConfig config = SyntheticConfig(shape);
  config.num_layers = options.layers;
  config.vocab_size = 16;
  absl::StatusOr<ModelWeights> weights =
      ModelWeights::Load(config, *MakeSyntheticSource(config, 1 - density, 1), dtype, false,
                         kernels, pool->threads(), nullptr);
  if (!weights.ok()) return weights.status();
  Ffn ffn(&kernels, pool, config.hidden_size, config.ffn_size, config.activation);
  ffn.Calibrate(weights->layers);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  constexpr FfnMode kModes[] = {FfnMode::kDense, FfnMode::kSparse, FfnMode::kAuto};
  size_t next_layer = 0;
  for (const double batch : Numbers(options.batches)) {
    const int64_t tokens = std::clamp<int64_t>(static_cast<int64_t>(batch), 1, Ffn::kMaxTokens);
    AlignedVector<float> x(tokens * config.hidden_size), y(x.size());
    for (float& value : x) value = normal(random);
    std::vector<int64_t> active(tokens);
    std::vector<double> seconds[3];
    Ffn::Result chosen;
    for (int round = -1; round < options.repeat; ++round) {
      for (int m = 0; m < 3; ++m) {
        const LayerWeights& layer = weights->layers[next_layer++ % weights->layers.size()];
        const auto start = std::chrono::steady_clock::now();
        chosen = ffn.Run(layer, x.data(), tokens, kModes[m], y.data(), absl::MakeSpan(active));
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        if (round >= 0) seconds[m].push_back(elapsed.count());
      }
    }
    int64_t pairs = 0;
    for (int64_t n : active) pairs += n;
    const double dense = Median(seconds[0]), sparse = Median(seconds[1]),
                 by_choice = Median(seconds[2]);
    const double neurons = config.ffn_size;
    std::printf("%s,%s,%ld,%.4f,%.4f,%.3f,%.3f,%.3f,%s,%.3f\n", options.synthetic.c_str(),
                options.weights.c_str(), static_cast<long>(tokens), pairs / neurons / tokens,
                static_cast<double>(chosen.union_active) / neurons, 1e3 * dense, 1e3 * sparse,
                1e3 * by_choice, FfnPathName(chosen.decision.path),
                std::min(dense, sparse) / by_choice);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

absl::Status RunSweeps(const Options& options) {
  absl::StatusOr<SyntheticShape> shape = FindSyntheticShape(options.synthetic);
  if (!shape.ok()) return shape.status();
  absl::StatusOr<const KernelTable*> kernels = SelectCpuKernels("");
  if (!kernels.ok()) return kernels.status();
  const absl::StatusOr<DType> dtype = ParseWeightType(options.weights);
  if (!dtype.ok()) return dtype.status();
  ThreadPool pool(options.threads > 0 ? options.threads : AvailableCpus());
  std::printf(
      "shape,weights,batch,density,union_density,dense_ms,sparse_ms,auto_ms,chosen,best_over_"
      "auto\n");
  for (const double density : Numbers(options.densities)) {
    const absl::Status status = Sweep(options, *shape, density, **kernels, *dtype, &pool);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(kDescription);
  app.add_option("--synthetic", options.synthetic, "Shape, as in lacuna-bench")
      ->capture_default_str();
  app.add_option("--weights", options.weights, "f32, bf16, int8 or int4")->capture_default_str();
  app.add_option("--densities", options.densities, "Shares of active neurons, up to 0.4")
      ->capture_default_str();
  app.add_option("--batches", options.batches, "Tokens, up to 64")->capture_default_str();
  app.add_option("--layers", options.layers, "Layers to rotate through")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--threads", options.threads, "0: all CPUs that may be used");
  app.add_option("--repeat", options.repeat, "Rounds; medians are printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = RunSweeps(options);
  if (status.ok()) return 0;
  std::cerr << "lacuna-ffn-sweep: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) { return lacuna::Main(argc, argv); }
