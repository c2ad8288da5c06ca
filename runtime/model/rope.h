#ifndef LACUNA_RUNTIME_MODEL_ROPE_H_
#define LACUNA_RUNTIME_MODEL_ROPE_H_

#include <cstdint>
#include <vector>

namespace lacuna {

// How rotary frequencies are changed so that positions beyond the trained context work.
enum class RopeScalingKind : uint8_t {
  kNone,
  kLinear,   // all frequencies / factor
  kDynamic,  // a larger base for each longer context: NTK scaling
  kLlama3,   // low frequencies / factor, high ones as they are, a ramp between (Llama 3.1)
  kYarn,     // the same with another ramp, and attention sharpened
  kFactors,  // each frequency / its own factor
};

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  float factor = 1.0f;
  int32_t trained_context = 0;  // kDynamic, kLlama3 and kYarn
  // kLlama3: wavelengths above trained_context / low_freq_factor are stretched, those below
  // trained_context / high_freq_factor are not.
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  // kYarn: frequencies that make more than beta_fast turns in the trained context are kept, those
  // that make fewer than beta_slow are divided. The ramp goes by the index of the frequency, from
  // and to whole ones if `truncate`.
  float beta_fast = 32.0f;
  float beta_slow = 1.0f;
  bool truncate = true;
  float attention_factor = 1.0f;  // kYarn: queries and keys are multiplied by it, once rotated
  std::vector<float> factors;     // kFactors: [head_dim / 2]
};

// How YaRN makes up for the attention that `factor` times as many positions spread.
float YarnAttentionFactor(float factor, float scale = 1.0f);

// Radians per position for each pair of elements of a head, [head_dim / 2]; head_dim is even.
//
// With kDynamic they depend on `context`, the number of positions up to the one that is rotated.
// (Each position is rotated once, when it is computed. So results depend on the tokens alone, as
// elsewhere here, and equal Hugging Face's when that is given token by token with a cache. Given
// many tokens at once, it rotates all of them as it does the last.) `context` counts for nothing
// else.
std::vector<float> InverseFrequencies(float theta, const RopeScaling& scaling, int32_t head_dim,
                                      int32_t context);

// By how much each position is rotated. Immutable and thread-safe.
class Rotations {
 public:
  Rotations(float theta, const RopeScaling& scaling, int32_t head_dim);
  // Writes the cosines and sines of a position's angles, times attention_factor: [head_dim / 2]
  // each.
  void At(int32_t position, float* cos, float* sin) const;

 private:
  const float theta_;
  const RopeScaling scaling_;
  const int32_t head_dim_;
  const std::vector<float> frequencies_;  // [head_dim / 2], in the trained context
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_ROPE_H_
