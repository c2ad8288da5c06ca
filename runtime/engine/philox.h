#ifndef LACUNA_RUNTIME_ENGINE_PHILOX_H_
#define LACUNA_RUNTIME_ENGINE_PHILOX_H_

#include <array>
#include <cstdint>

namespace lacuna {

// Philox4x32-10: a counter-based generator, so that the random number for a token depends on its
// key and counter only and not on what was drawn before. Salmon, Moraes, Dror, Shaw: "Parallel
// Random Numbers: As Easy as 1, 2, 3", SC 2011.
inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 2> key,
                                          std::array<uint32_t, 4> counter) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits, for the token with this index of this choice.
inline double PhiloxUniform(uint64_t seed, uint32_t choice, uint32_t token_index) {
  const auto bits = Philox4x32({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                               {token_index, choice, 0, 0});
  const uint64_t word = (uint64_t{bits[1]} << 32) | bits[0];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_PHILOX_H_
