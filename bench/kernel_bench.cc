// lacuna-kernel-bench: time, bytes and operations of the matrix kernels by themselves.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_split.h"
#include "bench/bandwidth.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/aligned_vector.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"
#include "runtime/model/activations.h"
#include "runtime/model/weights.h"

namespace lacuna {
namespace {

constexpr char kDescription[] =
    "Times the matrix kernels on their own: weights are rotated through more memory than the "
    "caches\n"
    "hold (kernels of listed rows through their share of it), so GB/s compare with the read "
    "bandwidth\n"
    "that is measured beside each line. GOP/s count a multiply and an add as two.";

struct Options {
  std::string weights = "int8";
  std::string isa;
  std::string tokens = "1,4,16,64,512";
  int64_t cols = 4096;
  int64_t rows = 11008;
  double density = 0.108;
  double union_density = 0;
  int threads = 0;
  int64_t memory_mb = 512;
  int repeat = 7;
};

// How long a round takes at least: right after the bandwidth has been measured hardware's own
// prefetching is slower than between the layers of a model.
constexpr double kRoundSeconds = 0.02;

class KernelBench {
 public:
  KernelBench(const Options& options, const KernelTable* kernels, DType dtype, ThreadPool* pool,
              BandwidthProbe* probe, AlignedBuffer weights, int64_t matrices)
      : options_(options),
        kernels_(*kernels),
        dtype_(dtype),
        type_(static_cast<int>(dtype)),
        pool_(pool),
        probe_(probe),
        storage_(std::move(weights)),
        matrices_(matrices) {}

  static int64_t Stride(DType dtype, int64_t cols) {
    return CeilDiv(RowBytes(dtype, cols), 64) * 64;
  }

  void Run(int64_t tokens) {
    const int64_t rows = options_.rows, cols = options_.cols;
    std::mt19937 random(1);
    std::vector<float> a(tokens * rows, 0.01f);
    AlignedVector<float> x(tokens * cols), y(tokens * std::max(rows, cols));
    for (float& value : x) value = static_cast<float>(random() % 1000) / 1000 - 0.5f;
    Activations activations;
    activations.Set(kernels_, pool_, dtype_, x.data(), tokens, cols);
    const double dense_ops = 2.0 * tokens * rows * cols;
    const double dense_bytes = static_cast<double>(rows) * RowBytes(dtype_, cols);

    Report("linear", tokens, dense_bytes, dense_ops, [&](const RowMatrix& w) {
      pool_->ParallelFor(rows, 16, [&](int64_t begin, int64_t end, int) {
        kernels_.linear[type_](activations.data(), activations.stride(), tokens, w, begin, end,
                               nullptr, y.data(), rows);
      });
    });
    Report("linear_transposed", tokens, dense_bytes, dense_ops, [&](const RowMatrix& w) {
      pool_->ParallelFor(cols, ColumnGrain(dtype_), [&](int64_t begin, int64_t end, int) {
        kernels_.linear_transposed[type_](a.data(), rows, tokens, w, begin, end, y.data(), cols);
      });
    });

    if (tokens > KernelTable::kMaxListTokens) return;
    // A neuron of the union is active for each token with the same probability.
    const double in_union = options_.union_density > 0 ? options_.union_density : options_.density;
    std::vector<int64_t> neurons;
    for (int64_t j = 0; j < rows; ++j) {
      if (random() % 100000 < in_union * 100000) neurons.push_back(j);
    }
    std::vector<std::vector<int32_t>> lists(tokens);
    int64_t pairs = 0;
    for (auto& list : lists) {
      for (size_t i = 0; i < neurons.size(); ++i) {
        if (random() % 100000 < options_.density / in_union * 100000) {
          list.push_back(static_cast<int32_t>(i));
        }
      }
      pairs += static_cast<int64_t>(list.size());
    }
    const double sparse_bytes = static_cast<double>(neurons.size()) * RowBytes(dtype_, cols);
    const double sparse_ops = 2.0 * pairs * cols;
    std::vector<const void*> union_rows(neurons.size());
    std::vector<RowCombination> combinations;
    for (const auto& list : lists) {
      combinations.push_back({list.data(), a.data(), static_cast<int64_t>(list.size())});
    }
    Report(tokens == 1 ? "axpy_rows" : "axpy_lists", tokens, sparse_bytes, sparse_ops,
           [&](const RowMatrix& w) {
             for (size_t i = 0; i < neurons.size(); ++i) union_rows[i] = w.row(neurons[i]);
             const int64_t n = static_cast<int64_t>(neurons.size());
             pool_->ParallelFor(cols, ColumnGrain(dtype_), [&](int64_t begin, int64_t end, int) {
               if (tokens == 1) {
                 kernels_.axpy_rows[type_](a.data(), union_rows.data(), n, cols, begin, end,
                                           y.data());
               } else {
                 kernels_.axpy_lists[type_](union_rows.data(), n, cols, combinations.data(), tokens,
                                            begin, end, y.data(), cols);
               }
             });
           });
    if (tokens > 1) return;
    Report("dot_rows", tokens, sparse_bytes, sparse_ops, [&](const RowMatrix& w) {
      for (size_t i = 0; i < neurons.size(); ++i) union_rows[i] = w.row(neurons[i]);
      pool_->ParallelFor(neurons.size(), 1, [&](int64_t begin, int64_t end, int) {
        kernels_.dot_rows[type_](activations.data(), cols, union_rows.data() + begin, end - begin,
                                 nullptr, 0, y.data() + begin);
      });
    });
  }

 private:
  void Report(const char* kernel, int64_t tokens, double bytes, double ops,
              const std::function<void(const RowMatrix&)>& body) {
    std::vector<double> seconds, bandwidth;
    int64_t calls = 1;
    for (int repeat = -1; repeat < options_.repeat; ++repeat) {
      bandwidth.push_back(probe_->Measure());
      const auto start = std::chrono::steady_clock::now();
      for (int64_t call = 0; call < calls; ++call) {
        body({storage_.data() + next_++ % matrices_ * options_.rows * Stride(dtype_, options_.cols),
              options_.rows, options_.cols, Stride(dtype_, options_.cols), dtype_});
      }
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      seconds.push_back(elapsed.count() / static_cast<double>(calls));
      if (repeat < 0) calls = std::max<int64_t>(kRoundSeconds / elapsed.count(), 1);
    }
    seconds.erase(seconds.begin());
    std::sort(seconds.begin(), seconds.end());
    std::sort(bandwidth.begin(), bandwidth.end());
    const double time = seconds[seconds.size() / 2];
    const double probe = bandwidth[bandwidth.size() / 2];
    std::printf("%-18s %4ld tokens %9.3f ms %7.1f GB/s %5.1f %% of %5.1f  %8.1f GOP/s\n", kernel,
                static_cast<long>(tokens), 1e3 * time, bytes / time / 1e9,
                100 * bytes / time / probe, probe / 1e9, ops / time / 1e9);
  }

  const Options& options_;
  const KernelTable& kernels_;
  const DType dtype_;
  const int type_;
  ThreadPool* const pool_;
  BandwidthProbe* const probe_;
  const AlignedBuffer storage_;
  const int64_t matrices_;
  int64_t next_ = 0;
};

absl::Status RunBench(const Options& options) {
  absl::StatusOr<const KernelTable*> kernels = SelectCpuKernels(options.isa);
  if (!kernels.ok()) return kernels.status();
  const absl::StatusOr<DType> parsed = ParseWeightType(options.weights);
  if (!parsed.ok()) return parsed.status();
  const DType dtype = *parsed;
  ThreadPool pool(options.threads > 0 ? options.threads : AvailableCpus());
  absl::StatusOr<BandwidthProbe> probe = BandwidthProbe::Create(&pool);
  if (!probe.ok()) return probe.status();
  const int64_t bytes = options.rows * KernelBench::Stride(dtype, options.cols);
  const int64_t matrices = std::max<int64_t>(options.memory_mb * (1 << 20) / bytes, 1);
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(matrices * bytes);
  if (!buffer.ok()) return buffer.status();
  // A few random rows, over and over: of a usual size, since denormal numbers take far longer.
  constexpr int64_t kRows = 64;
  const int64_t stride = KernelBench::Stride(dtype, options.cols);
  std::vector<std::byte> rows(kRows * stride);
  std::mt19937 random(2);
  for (int64_t r = 0; r < kRows; ++r) {
    std::vector<float> row(options.cols);
    for (float& value : row) value = static_cast<float>(random() % 1000) / 1e5f - 0.005f;
    std::byte* out = &rows[r * stride];
    if (IsQuantized(dtype)) {
      (*kernels)->quantize_weights[static_cast<int>(dtype)](row.data(), options.cols, out);
      continue;
    }
    const int64_t width = RowBytes(dtype, 1);  // a bf16 is the upper half of a float
    for (int64_t c = 0; c < options.cols; ++c) {
      std::memcpy(out + c * width, reinterpret_cast<char*>(&row[c]) + 4 - width, width);
    }
  }
  pool.ParallelFor(matrices * options.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(buffer->data() + r * stride, &rows[r % kRows * stride], stride);
    }
  });
  KernelBench bench(options, *kernels, dtype, &pool, &*probe, *std::move(buffer), matrices);
  std::printf("%s %s, %ld rows of %ld, %.1f %% active\n", options.weights.c_str(), (*kernels)->isa,
              static_cast<long>(options.rows), static_cast<long>(options.cols),
              100 * options.density);
  for (const std::string& tokens : std::vector<std::string>(absl::StrSplit(options.tokens, ','))) {
    bench.Run(std::max(std::atol(tokens.c_str()), 1L));
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app(kDescription);
  app.add_option("--weights", options.weights, "f32, bf16, int8 or int4")->capture_default_str();
  app.add_option("--isa", options.isa,
                 "generic, avx2, avx512, avx512vnni or amx; default: the best");
  app.add_option("--tokens", options.tokens, "Numbers of tokens")->capture_default_str();
  app.add_option("--rows", options.rows, "Rows (neurons)")
      ->capture_default_str()
      ->check(CLI::Range(16, 1 << 20));
  app.add_option("--cols", options.cols, "Elements of a row")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 17));
  app.add_option("--density", options.density, "Share of neurons active for a token")
      ->capture_default_str();
  app.add_option("--union_density", options.union_density,
                 "Share of neurons active for any token; default: the same ones for all");
  app.add_option("--threads", options.threads, "0: all CPUs that may be used");
  app.add_option("--memory_mb", options.memory_mb, "Weights to rotate through")
      ->capture_default_str();
  app.add_option("--repeat", options.repeat, "Timed rounds; the median is printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = RunBench(options);
  if (status.ok()) return 0;
  std::cerr << "lacuna-kernel-bench: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) { return lacuna::Main(argc, argv); }
