#include "runtime/model/synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lacuna {
namespace {

// Three kinds of neurons, by how often they are active. The shares and rates are a fit of
// E[1 - (1 - p)^B] to the union density of a real ProSparse-LLaMA2-7B layer over B tokens:
//   B                1     2     4     8    16    32    64
//   measured %    10.8  17.8  28.3  42.9  59.4  76.7  90.7
//   this fit %    10.8  18.7  29.9  44.2  60.5  76.6  90.8
struct NeuronKind {
  double share;
  double rate;  // at a mean density of kFittedDensity
};
constexpr NeuronKind kKinds[] = {{0.58, 0.0283}, {0.324, 0.14}, {0.096, 0.48}};
constexpr double kMaxRate = 0.48;  // a zero-mean gate exceeds a positive threshold less than half
                                   // of the time

// Rates scaled by one factor, so that their mean is `density`.
double ScaledRate(const NeuronKind& kind, double factor) {
  return std::min(kMaxRate, kind.rate * factor);
}

double FactorFor(double density) {
  double low = 0, high = 100;
  for (int i = 0; i < 60; ++i) {
    const double mid = (low + high) / 2;
    double mean = 0;
    for (const NeuronKind& kind : kKinds) mean += kind.share * ScaledRate(kind, mid);
    (mean < density ? low : high) = mid;
  }
  return high;
}

// z with P(N(0,1) > z) = p, by bisection.
double UpperQuantile(double p) {
  double low = 0, high = 10;
  for (int i = 0; i < 60; ++i) {
    const double mid = (low + high) / 2;
    (0.5 * std::erfc(mid / std::sqrt(2.0)) > p ? low : high) = mid;
  }
  return low;
}

uint64_t Mix(uint64_t x) {  // SplitMix64 (Steele, Lea, Flood, 2014)
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// The quantiles of N(0,1) at (i + 1/2) / 65536: weights of trained models are distributed more like
// this than uniformly, which would flatter quantization.
const std::vector<float>& NormalQuantiles() {
  static const std::vector<float>* const quantiles = [] {
    auto* table = new std::vector<float>(65536);
    for (int i = 0; i < 32768; ++i) {
      (*table)[65535 - i] = static_cast<float>(UpperQuantile((i + 0.5) / 65536));
      (*table)[i] = -(*table)[65535 - i];
    }
    return table;
  }();
  return *quantiles;
}

// Normal values with mean 0 and the given standard deviation, four from each draw.
void FillNormal(uint64_t seed, int64_t n, float deviation, DType as, std::byte* out) {
  const float* const quantiles = NormalQuantiles().data();
  uint64_t state = seed;
  uint64_t draw = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (i % 4 == 0) draw = Mix(state += 0x9E3779B97F4A7C15u);
    const float value = quantiles[draw & 0xFFFF] * deviation;
    draw >>= 16;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (as == DType::kF32) {
      std::memcpy(out + i * 4, &bits, 4);
    } else {
      const uint16_t top = static_cast<uint16_t>((bits + 0x8000) >> 16);
      std::memcpy(out + i * 2, &top, 2);
    }
  }
}

class SyntheticSource : public WeightSource {
 public:
  SyntheticSource(const ModelConfig& config, double sparsity, uint64_t seed)
      : config_(config), seed_(seed) {
    const double factor = FactorFor(1.0 - sparsity);
    for (const NeuronKind& kind : kKinds) {
      // The gate of a normalised token is N(0, hidden * deviation^2); the threshold sits at the
      // quantile of the wanted rate.
      gate_deviation_.push_back(config.activation.threshold /
                                (UpperQuantile(ScaledRate(kind, factor)) *
                                 std::sqrt(static_cast<double>(config.hidden_size))));
    }
  }

  DType stored_dtype() const override { return DType::kBf16; }

  absl::Status Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                    int64_t row_stride) const override {
    const int64_t hidden = config_.hidden_size;
    const auto fill = [&](int64_t rows, int64_t cols, auto deviation) {
      const uint64_t base =
          Mix(seed_ ^ Mix(static_cast<uint64_t>(layer) * 64 + static_cast<uint64_t>(tensor)));
      for (int64_t r = 0; r < rows; ++r) {
        FillNormal(base ^ Mix(r), cols, deviation(r), as, out + r * row_stride);
      }
      return absl::OkStatus();
    };
    const auto constant = [](double value) {
      return [value](int64_t) { return static_cast<float>(value); };
    };
    // Blocks add little to the residual stream, so that what a layer sees stays as random as the
    // embeddings are, however deep it lies.
    const double small = 0.02 / std::sqrt(static_cast<double>(hidden) * config_.num_layers);
    const double unit = 1.0 / std::sqrt(static_cast<double>(hidden));
    switch (tensor) {
      case Tensor::kEmbedding:
        return fill(config_.vocab_size, hidden, constant(1.0));
      case Tensor::kLmHead:
        return fill(config_.vocab_size, hidden, constant(unit));
      case Tensor::kFinalNorm:
      case Tensor::kAttentionNorm:
      case Tensor::kFfnNorm:
        std::fill_n(reinterpret_cast<float*>(out), hidden, 1.0f);
        return absl::OkStatus();
      case Tensor::kQ:
        return fill(config_.q_dim(), hidden, constant(unit));
      case Tensor::kK:
      case Tensor::kV:
        return fill(config_.kv_dim(), hidden, constant(unit));
      case Tensor::kO:
        return fill(hidden, config_.q_dim(), constant(small));
      case Tensor::kGate:
        return fill(config_.ffn_size, hidden,
                    [this](int64_t neuron) { return gate_deviation_[KindOf(neuron)]; });
      case Tensor::kUp:
        return fill(config_.ffn_size, hidden, constant(unit));
      case Tensor::kDown:
        return fill(config_.ffn_size, hidden, constant(small));
      default:
        return absl::InternalError(
            absl::StrCat("no synthetic model has tensor ", static_cast<int>(tensor)));
    }
  }

 private:
  // Kinds are scattered over the layer, as hot neurons are in real ones.
  size_t KindOf(int64_t neuron) const {
    const double u = static_cast<double>(Mix(seed_ + neuron) >> 11) * 0x1p-53;
    return u < kKinds[0].share ? 0 : u < kKinds[0].share + kKinds[1].share ? 1 : 2;
  }

  const ModelConfig config_;
  const uint64_t seed_;
  std::vector<float> gate_deviation_;  // by kind
};

}  // namespace

const std::vector<SyntheticShape>& SyntheticShapes() {
  static const auto* shapes = new std::vector<SyntheticShape>{
      {"prosparse-llama2-7b", 4096, 11008, 32, 32, 32, 32000, 0.8932},
      {"prosparse-llama2-13b", 5120, 13824, 40, 40, 40, 32000, 0.8880},
      {"minicpm-s-1b", 1536, 3840, 52, 24, 8, 32000, 0.8789},
      {"relullama-7b", 4096, 11008, 32, 32, 32, 32000, 0.6698},
      {"tiny", 256, 1024, 4, 4, 2, 1024, 0.8932},
  };
  return *shapes;
}

absl::StatusOr<SyntheticShape> FindSyntheticShape(std::string_view name) {
  for (const SyntheticShape& shape : SyntheticShapes()) {
    if (name == shape.name) return shape;
  }
  return absl::NotFoundError(absl::StrCat(
      "no synthetic model \"", std::string(name), "\"; known: ",
      absl::StrJoin(SyntheticShapes(), ", ", [](std::string* out, const SyntheticShape& shape) {
        absl::StrAppend(out, shape.name);
      })));
}

ModelConfig SyntheticConfig(const SyntheticShape& shape) {
  ModelConfig config;
  config.architecture = absl::StrCat("synthetic:", shape.name);
  config.vocab_size = shape.vocab_size;
  config.hidden_size = shape.hidden_size;
  config.ffn_size = shape.ffn_size;
  config.num_layers = shape.num_layers;
  config.num_heads = shape.num_heads;
  config.num_kv_heads = shape.num_kv_heads;
  config.head_dim = shape.hidden_size / shape.num_heads;
  config.max_context = 4096;
  config.activation = {ActivationKind::kFatRelu, 1.0f};
  return config;
}

std::unique_ptr<WeightSource> MakeSyntheticSource(const ModelConfig& config, double sparsity,
                                                  uint64_t seed) {
  return std::make_unique<SyntheticSource>(config, sparsity, seed);
}

}  // namespace lacuna
