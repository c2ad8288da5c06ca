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
  kFactors,  // each frequency / its own factor
};

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  float factor = 1.0f;
  int32_t trained_context = 0;  // kDynamic and kLlama3
  // kLlama3: wavelengths above trained_context / low_freq_factor are stretched, those below
  // trained_context / high_freq_factor are not.
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  std::vector<float> factors;  // kFactors: [head_dim / 2]
};

// Radians per position for each pair of elements of a head, [head_dim / 2]; head_dim is even.
//
// With kDynamic they depend on `context`, the number of positions up to the one that is rotated.
// (Each position is rotated once, when it is computed. So results depend on the tokens alone, as
// elsewhere here, and equal Hugging Face's when that is given token by token with a cache. Given
// many tokens at once, it rotates all of them as it does the last.) `context` counts for nothing
// else.
std::vector<float> InverseFrequencies(float theta, const RopeScaling& scaling, int32_t head_dim,
                                      int32_t context);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_ROPE_H_
