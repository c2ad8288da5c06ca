#ifndef LACUNA_RUNTIME_MODEL_FLOAT_BITS_H_
#define LACUNA_RUNTIME_MODEL_FLOAT_BITS_H_

#include <bit>
#include <cstdint>

namespace lacuna {

// Conversions between the bit patterns of float16, bfloat16 and float32. Exact where the target is
// wider, else round-to-nearest-even; NaN stays NaN. Branch-free, so that loops vectorise, and free
// of subnormal arithmetic, so that the result does not depend on flush-to-zero.

inline float Bf16ToF32(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }

inline uint16_t F32ToBf16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet_nan = bits >> 16 | 0x40;
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet_nan : rounded);
}

inline float F16ToF32(uint16_t h) {
  const uint32_t magnitude = uint32_t{h & 0x7FFFu} << 13;  // exponent and mantissa in f32's places
  const uint32_t normal = magnitude + ((127u - 15u) << 23);
  const uint32_t inf_or_nan = magnitude + ((255u - 31u) << 23);
  // A subnormal is mantissa * 2^-24: put the mantissa below the one of 2^-14, take 2^-14 away.
  constexpr uint32_t kTwoToMinus14 = (127u - 14u) << 23;
  const uint32_t subnormal = std::bit_cast<uint32_t>(
      std::bit_cast<float>(magnitude + kTwoToMinus14) - std::bit_cast<float>(kTwoToMinus14));
  const uint32_t exponent = h & 0x7C00u;
  const uint32_t bits = exponent == 0 ? subnormal : exponent == 0x7C00 ? inf_or_nan : normal;
  return std::bit_cast<float>(uint32_t{h & 0x8000u} << 16 | bits);
}

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_FLOAT_BITS_H_
