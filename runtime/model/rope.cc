#include "runtime/model/rope.h"

#include <algorithm>
#include <cmath>

namespace lacuna {
namespace {

// "The Llama 3 herd of models", arXiv 2407.21783; the ramp as in Meta's published code.
float Llama3Frequency(const RopeScaling& scaling, float frequency) {
  constexpr float kTwoPi = 6.28318530717958647692f;
  const float turns = static_cast<float>(scaling.trained_context) / (kTwoPi / frequency);
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor) return frequency;
  const float kept =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - kept) * frequency / scaling.factor + kept * frequency;
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

std::vector<float> InverseFrequencies(float theta, const RopeScaling& scaling, int32_t head_dim,
                                      int32_t context) {
  if (scaling.kind == RopeScalingKind::kDynamic) {
    theta = DynamicBase(theta, scaling, head_dim, context);
  }
  // In float32 and in this order, as the reference implementation rounds them.
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

}  // namespace lacuna
