// lacuna-cuda-kernel-bench: time and bytes of the CUDA backend's matrix kernels by themselves.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/functional/function_ref.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "bench/cuda_baselines.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/ffn.h"
#include "kernels/cuda/ffn_kernels.h"
#include "kernels/cuda/linear.h"
#include "runtime/model/weights.h"

namespace lacuna {
namespace {

constexpr char kDescription[] =
    "Times the matrix kernels of the CUDA backend by themselves, as graphs, by events. Layers are\n"
    "rotated through more memory than the second-level cache holds. The limit is the bytes that\n"
    "have to be read, divided by the bandwidth of a copy on the device, measured first.";

struct Options {
  std::string weights = "bf16";
  int64_t hidden = 4096;
  int64_t neurons = 11008;
  std::string tokens = "1,2,4,8,16,32,64";
  // Of the union, by number of tokens: one layer of a ProSparse-LLaMA2-7B.
  std::string densities = "0.107,0.178,0.283,0.429,0.594,0.767,0.907";
  int64_t memory_mb = 2048;
  int repeat = 9;
};

// Of what the benchmarks cannot go on without.
template <class T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << "\n";
  std::exit(1);
}
void CheckOk(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << "\n";
  std::exit(1);
}

template <class T>
DeviceBuffer ToDevice(const std::vector<T>& values) {
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
  DeviceBuffer buffer = ValueOrDie(DeviceBuffer::Allocate(bytes));
  CheckOk(buffer.Upload(values.data(), bytes));
  return buffer;
}

class CudaKernelBench {
 public:
  CudaKernelBench(const Options& options, DType dtype)
      : options_(options),
        dtype_(dtype),
        stride_(CeilDiv(RowBytes(dtype, options.hidden), 64) * 64),
        stream_(ValueOrDie(CudaStream::Create())) {
    const int64_t layer_bytes = 3 * options.neurons * stride_;
    const int64_t layers = std::max<int64_t>(options.memory_mb * (1 << 20) / layer_bytes, 2);
    const std::vector<std::byte> host = LayerBytes(layer_bytes);
    for (int64_t i = 0; i < layers; ++i) layers_.push_back(ToDevice(host));
    MeasureCopy();
  }

  void Linears(int64_t tokens) {
    Prepare(tokens, 1);
    const RowMatrix gate = Weights(0).gate;
    Report("linear", tokens, static_cast<double>(gate.bytes()), [&](int64_t layer) {
      Linear(stream_, x_.data(), x_stride_, tokens, Weights(layer).gate, nullptr,
             values_.as<float>(), options_.neurons);
    });
  }

  void Ffns(int64_t tokens, double density) {
    const int64_t active = Prepare(tokens, density);
    CudaFfn ffn = ValueOrDie(CudaFfn::Create(
        {options_.hidden, options_.neurons, tokens, dtype_, Activation{ActivationKind::kRelu}}));
    const CudaFfnCounts counts{counts_.as<int32_t>(), counts_.as<int32_t>() + tokens,
                               counts_.as<int32_t>() + tokens + 1};
    const double matrix = static_cast<double>(Weights(0).gate.bytes());
    for (const bool sparse : {true, false}) {
      const double share = sparse ? static_cast<double>(active) / options_.neurons : 1.0;
      Report(sparse ? "ffn sparse" : "ffn dense", tokens, matrix * (1 + 2 * share),
             [&](int64_t layer) {
               ffn.Run(stream_, Weights(layer), x_.data(), x_stride_, tokens, nullptr, sparse,
                       y_.as<float>(), counts);
             });
      std::vector<int32_t> found(1);
      CheckOk(counts_.Download(found.data(), 4, tokens * 4));
      if (found[0] != active) {
        wrong_ = true;
        std::cerr << found[0] << " neurons are active instead of " << active << "\n";
      }
    }
    if (dtype_ != DType::kBf16) return;
    CublasFfn cublas = ValueOrDie(CublasFfn::Create(options_.hidden, options_.neurons));
    DeviceBuffer scratch =
        ValueOrDie(DeviceBuffer::Allocate(4 * tokens * (options_.neurons + options_.hidden)));
    std::byte* const gate = scratch.data();
    std::byte* const up = gate + 2 * tokens * options_.neurons;
    std::byte* const y = up + 2 * tokens * options_.neurons;
    // Once before it is captured: cuBLAS initializes itself.
    cublas.Run(stream_, layers_[0].data(), y, tokens, gate, up, y);
    CheckOk(stream_.Synchronize());
    Report("cuBLAS dense products", tokens, 3 * matrix, [&](int64_t layer) {
      cublas.Run(stream_, layers_[layer].data(), y, tokens, gate, up, y);
    });
    if (tokens == 1) PaperOperators(active);
  }

  // Whether a kernel has counted other neurons than are active.
  bool wrong() const { return wrong_; }

 private:
  // The up and down steps of one token by themselves.
  void PaperOperators(int64_t active) {
    std::vector<uint8_t> bits(CeilDiv(options_.neurons, 16) * 4, 0);
    std::vector<float> gates(options_.neurons, 0.0f);
    for (int64_t j = 0; j < options_.neurons; ++j) {
      if (!is_active_[j]) continue;
      bits[j / 4] |= static_cast<uint8_t>(1 << j % 4);
      gates[j] = 0.01f;
    }
    const DeviceBuffer marks = ToDevice(bits);
    const DeviceBuffer gate = ToDevice(gates);
    const int multiprocessors = ValueOrDie(GetCudaDeviceInfo()).multiprocessors;
    const DeviceBuffer partial =
        ValueOrDie(DeviceBuffer::Allocate(multiprocessors * options_.hidden * 4));
    const CudaFfnCounts counts{counts_.as<int32_t>(), counts_.as<int32_t>() + 1,
                               counts_.as<int32_t>() + 2};
    const double row = static_cast<double>(RowBytes(dtype_, options_.hidden));
    const double bytes = 2 * row * static_cast<double>(active);
    Report("up and down", 1, bytes, [&](int64_t layer) {
      UpDown(stream_, x_.data(), Weights(layer).up, Weights(layer).down, marks.as<uint8_t>(), false,
             values_.as<float>(), nullptr, multiprocessors, partial.as<float>(), y_.as<float>(),
             counts);
    });
    Report("the paper's up", 1, bytes / 2, [&](int64_t layer) {
      PaperUp(stream_, gate.as<float>(), x_.as<float>(), Weights(layer).up, values_.as<float>());
    });
    Report("the paper's down", 1, bytes / 2, [&](int64_t layer) {
      PaperDown(stream_, gate.as<float>(), Weights(layer).down, y_.as<float>());
    });
  }

  CudaFfnWeights Weights(int64_t layer) const {
    const std::byte* const base = layers_[layer].data();
    const int64_t rows = options_.neurons, cols = options_.hidden;
    const std::byte* const bundles = base + rows * stride_;
    CudaFfnWeights weights;
    weights.gate = {base, rows, cols, stride_, dtype_};
    weights.up = {bundles, rows, cols, 2 * stride_, dtype_};
    weights.down = {bundles + stride_, rows, cols, 2 * stride_, dtype_};
    weights.gate_bias = bias_.as<float>();
    return weights;
  }

  // A few random rows, over and over.
  std::vector<std::byte> LayerBytes(int64_t bytes) const {
    constexpr int64_t kRows = 64;
    std::vector<std::byte> rows(kRows * stride_);
    std::mt19937 random(2);
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<float> row(options_.hidden);
      for (float& value : row) value = static_cast<float>(random() % 1000) / 1e5f - 0.005f;
      std::byte* const out = &rows[r * stride_];
      if (IsQuantized(dtype_)) {
        SupportedCpuKernels()[0]->quantize_weights[static_cast<int>(dtype_)](row.data(),
                                                                             options_.hidden, out);
        continue;
      }
      const int64_t width = RowBytes(dtype_, 1);  // a bf16 is the upper half of a float
      for (int64_t c = 0; c < options_.hidden; ++c) {
        std::memcpy(out + c * width, reinterpret_cast<char*>(&row[c]) + 4 - width, width);
      }
    }
    std::vector<std::byte> layer(bytes);
    for (int64_t at = 0; at < bytes; at += stride_) {
      std::memcpy(&layer[at], &rows[at / stride_ % kRows * stride_], stride_);
    }
    return layer;
  }

  // Random activations, and biases that make a share of the neurons active, the others not.
  // Returns how many are.
  int64_t Prepare(int64_t tokens, double density) {
    std::mt19937 random(1);
    std::vector<float> x(tokens * options_.hidden);
    for (float& value : x) value = static_cast<float>(random() % 1000) / 1000 - 0.5f;
    std::vector<float> bias(options_.neurons);
    is_active_.assign(options_.neurons, false);
    int64_t active = 0;
    for (int64_t j = 0; j < options_.neurons; ++j) {
      is_active_[j] = random() % 100000 < density * 100000;
      bias[j] = is_active_[j] ? 1e3f : -1e3f;
      active += is_active_[j];
    }
    bias_ = ToDevice(bias);
    x_ = ToDevice(x);
    x_stride_ = options_.hidden * 4;
    if (IsQuantized(dtype_)) {
      const DeviceBuffer floats = std::move(x_);
      x_stride_ = ActivationBytes(dtype_, options_.hidden);
      x_ = ValueOrDie(DeviceBuffer::Allocate(tokens * x_stride_));
      QuantizeActivations(stream_, floats.as<float>(), tokens, options_.hidden, x_.data());
      CheckOk(stream_.Synchronize());
    }
    y_ = ValueOrDie(DeviceBuffer::Allocate(tokens * options_.hidden * 4));
    values_ = ValueOrDie(DeviceBuffer::Allocate(tokens * options_.neurons * 4));
    counts_ = ValueOrDie(DeviceBuffer::Allocate((tokens + 2) * 4));
    return active;
  }

  void MeasureCopy() {
    constexpr int64_t kBytes = int64_t{1} << 30;
    const DeviceBuffer from = ValueOrDie(DeviceBuffer::Allocate(kBytes));
    const DeviceBuffer to = ValueOrDie(DeviceBuffer::Allocate(kBytes));
    copy_bandwidth_ =
        2.0 * kBytes / MedianSeconds([&] { stream_.CopyOnDevice(to.data(), from.data(), kBytes); });
    std::printf("copy on the device: %.1f GB/s\n", copy_bandwidth_ / 1e9);
  }

  double MedianSeconds(absl::FunctionRef<void()> enqueue) {
    std::vector<double> seconds;
    for (int i = -2; i < options_.repeat; ++i) {
      const CudaEvent start = ValueOrDie(CudaEvent::Create());
      const CudaEvent end = ValueOrDie(CudaEvent::Create());
      stream_.Record(start);
      enqueue();
      stream_.Record(end);
      CheckOk(stream_.Synchronize());
      if (i >= 0) seconds.push_back(ValueOrDie(end.SecondsSince(start)));
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }

  // enqueue(layer) for every layer is one graph.
  void Report(const char* name, int64_t tokens, double bytes,
              absl::FunctionRef<void(int64_t)> enqueue) {
    const int64_t layers = static_cast<int64_t>(layers_.size());
    const CudaGraph graph = ValueOrDie(CudaGraph::Capture(stream_, [&] {
      for (int64_t i = 0; i < layers; ++i) enqueue(i);
    }));
    const double seconds = MedianSeconds([&] { graph.Launch(stream_); }) / layers;
    std::printf("%-22s %3d tokens %9.1f us %8.2f MB %8.1f GB/s %5.1f %% of copy %6.2f x limit\n",
                name, static_cast<int>(tokens), 1e6 * seconds, bytes / 1e6, bytes / seconds / 1e9,
                100 * bytes / seconds / copy_bandwidth_, seconds * copy_bandwidth_ / bytes);
  }

  const Options& options_;
  const DType dtype_;
  const int64_t stride_;
  CudaStream stream_;
  std::vector<DeviceBuffer> layers_;
  DeviceBuffer bias_, x_, y_, values_, counts_;
  int64_t x_stride_ = 0;
  std::vector<bool> is_active_;
  double copy_bandwidth_ = 0;
  bool wrong_ = false;
};

absl::Status RunBench(const Options& options) {
  const absl::StatusOr<DType> dtype = ParseWeightType(options.weights);
  if (!dtype.ok()) return dtype.status();
  const std::vector<std::string> tokens = absl::StrSplit(options.tokens, ',');
  const std::vector<std::string> densities = absl::StrSplit(options.densities, ',');
  if (tokens.size() != densities.size()) {
    return absl::InvalidArgumentError("--tokens and --densities differ in length");
  }
  if (absl::Status status = SetCudaDevice(0); !status.ok()) return status;
  const absl::StatusOr<CudaDeviceInfo> device = GetCudaDeviceInfo();
  if (!device.ok()) return device.status();
  std::printf("%s, %s, %d multiprocessors; %s, hidden %d, %d neurons\n", device->name.c_str(),
              device->isa.c_str(), device->multiprocessors, DTypeName(*dtype),
              static_cast<int>(options.hidden), static_cast<int>(options.neurons));
  CudaKernelBench bench(options, *dtype);
  for (size_t i = 0; i < tokens.size(); ++i) {
    int64_t n = 0;
    double density = 0;
    if (!absl::SimpleAtoi(tokens[i], &n) || n < 1 || n > CudaFfn::kMaxSparseTokens ||
        !absl::SimpleAtod(densities[i], &density) || density <= 0 || density > 1) {
      return absl::InvalidArgumentError("tokens are 1 to 64, densities in (0, 1]");
    }
    bench.Linears(n);
    bench.Ffns(n, density);
  }
  return bench.wrong() ? absl::InternalError("a kernel miscounted") : absl::OkStatus();
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a line is out once it is measured
  lacuna::Options options;
  CLI::App app(lacuna::kDescription);
  app.add_option("--weights", options.weights, "f32, bf16, int8 or int4")->capture_default_str();
  app.add_option("--hidden", options.hidden, "Elements of a row")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--neurons", options.neurons, "Rows of a matrix")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--tokens", options.tokens, "Numbers of tokens")->capture_default_str();
  app.add_option("--densities", options.densities,
                 "For each of them, the share of neurons that are active for any token")
      ->capture_default_str();
  app.add_option("--memory_mb", options.memory_mb, "Memory to rotate layers through")
      ->capture_default_str();
  app.add_option("--repeat", options.repeat, "Measurements, of which the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = lacuna::RunBench(options);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
