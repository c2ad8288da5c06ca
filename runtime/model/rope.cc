#include "runtime/model/rope.h"

#include <algorithm>
#include <cmath>

namespace lacuna {
namespace {

constexpr double kTwoPi = 6.28318530717958647692;

// "The Llama 3 herd of models", arXiv 2407.21783; the ramp as in Meta's published code.
float Llama3Frequency(const RopeScaling& scaling, float frequency) {
  const float turns =
      static_cast<float>(scaling.trained_context) / (static_cast<float>(kTwoPi) / frequency);
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor) return frequency;
  const float kept =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - kept) * frequency / scaling.factor + kept * frequency;
}

// "YaRN: Efficient Context Window Extension of Large Language Models", arXiv 2309.00071: the ramp,
// 0 where frequency i is kept and 1 where it is divided. The limits of the ramp are computed as
// transformers does.
class YarnRamp {
 public:
  YarnRamp(double theta, const RopeScaling& scaling, int32_t head_dim) {
    // The index of the frequency that makes so many turns in the trained context.
    const auto index = [&](double turns) {
      return head_dim * std::log(scaling.trained_context / (turns * kTwoPi)) /
             (2.0 * std::log(theta));
    };
    low_ = index(scaling.beta_fast);
    high_ = index(scaling.beta_slow);
    if (scaling.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, head_dim - 1.0);
    if (low_ == high_) high_ += 0.001;
  }

  float At(int32_t i) const {
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low_)) / static_cast<float>(high_ - low_);
    return std::clamp(ramp, 0.0f, 1.0f);
  }

 private:
  double low_, high_;
};

std::vector<float> YarnFrequencies(float theta, const RopeScaling& scaling, int32_t head_dim) {
  const YarnRamp ramp(theta, scaling, head_dim);
  std::vector<float> frequencies;
  for (int32_t i = 0; i < head_dim; i += 2) {
    const float wave = std::pow(theta, static_cast<float>(i) / static_cast<float>(head_dim));
    const float kept = 1.0f - ramp.At(i / 2);
    frequencies.push_back(1.0f / (scaling.factor * wave) * (1.0f - kept) + 1.0f / wave * kept);
  }
  return frequencies;
}

// NTK scaling: the base for which the lowest frequency is what it would be in a trained context as
// long as `context`.
float DynamicBase(float theta, const RopeScaling& scaling, int32_t head_dim, int32_t context) {
  if (head_dim <= 2) return theta;  // the only frequency is 1, whatever the base
  const float length = static_cast<float>(std::max(context, scaling.trained_context));
  const float stretch = scaling.factor * length / static_cast<float>(scaling.trained_context) -
                        (scaling.factor - 1.0f);
  const float dim = static_cast<float>(head_dim);
  return theta * std::pow(stretch, dim / (dim - 2.0f));
}

}  // namespace

float YarnAttentionFactor(float factor, float scale) {
  return factor <= 1.0f ? 1.0f : 0.1f * scale * std::log(factor) + 1.0f;
}

std::vector<float> InverseFrequencies(float theta, const RopeScaling& scaling, int32_t head_dim,
                                      int32_t context) {
  if (scaling.kind == RopeScalingKind::kDynamic) {
    theta = DynamicBase(theta, scaling, head_dim, context);
  }
  // In float32 and in this order, as the reference implementation rounds them.
  if (scaling.kind == RopeScalingKind::kYarn) return YarnFrequencies(theta, scaling, head_dim);
  std::vector<float> frequencies;
  for (int32_t i = 0; i < head_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(head_dim);
    float frequency = 1.0f / std::pow(theta, exponent);
    if (scaling.kind == RopeScalingKind::kLinear) frequency /= scaling.factor;
    if (scaling.kind == RopeScalingKind::kLlama3) frequency = Llama3Frequency(scaling, frequency);
    if (scaling.kind == RopeScalingKind::kFactors) frequency /= scaling.factors[i / 2];
    frequencies.push_back(frequency);
  }
  return frequencies;
}

Rotations::Rotations(float theta, const RopeScaling& scaling, int32_t head_dim)
    : theta_(theta),
      scaling_(scaling),
      head_dim_(head_dim),
      frequencies_(InverseFrequencies(theta, scaling, head_dim, 0)) {}

void Rotations::At(int32_t position, float* cos, float* sin) const {
  std::vector<float> stretched;
  const bool stretch =
      scaling_.kind == RopeScalingKind::kDynamic && position >= scaling_.trained_context;
  if (stretch) stretched = InverseFrequencies(theta_, scaling_, head_dim_, position + 1);
  const std::vector<float>& frequencies = stretch ? stretched : frequencies_;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies[i];
    cos[i] = std::cos(angle) * scaling_.attention_factor;
    sin[i] = std::sin(angle) * scaling_.attention_factor;
  }
}

}  // namespace lacuna
