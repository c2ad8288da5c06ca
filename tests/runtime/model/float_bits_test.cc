#include "runtime/model/float_bits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lacuna {
namespace {

// By the definition of the format, in double.
double F16Value(uint16_t h) {
  const int exponent = h >> 10 & 31;
  const double mantissa = h & 1023;
  const double magnitude = exponent == 31  ? (mantissa == 0 ? HUGE_VAL : NAN)
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

TEST(FloatBits, EveryF16IsItsValue) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float got = F16ToF32(static_cast<uint16_t>(h));
    const double want = F16Value(static_cast<uint16_t>(h));
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << h;
    } else {
      ASSERT_EQ(got, want) << h;
      ASSERT_EQ(std::signbit(got), std::signbit(want)) << h;
    }
  }
}

TEST(FloatBits, EveryBf16SurvivesTheWayToF32AndBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = Bf16ToF32(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      ASSERT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(f)))) << h;
    } else {
      ASSERT_EQ(F32ToBf16(f), h);
    }
  }
}

TEST(FloatBits, F32ToBf16RoundsToNearestEven) {
  const auto round = [](uint32_t bits) { return F32ToBf16(std::bit_cast<float>(bits)); };
  EXPECT_EQ(round(0x3F807FFF), 0x3F80);  // below the middle
  EXPECT_EQ(round(0x3F808000), 0x3F80);  // the middle goes to the even one, down
  EXPECT_EQ(round(0x3F808001), 0x3F81);  // above
  EXPECT_EQ(round(0x3F818000), 0x3F82);  // the middle, up
  EXPECT_EQ(round(0xBF818000), 0xBF82);
  EXPECT_EQ(round(0x7F7FFFFF), 0x7F80);  // the largest float becomes infinity
  EXPECT_EQ(round(0x7F800000), 0x7F80);
  EXPECT_EQ(round(0xFF800000), 0xFF80);
  EXPECT_EQ(round(0x80000000), 0x8000);
  EXPECT_EQ(round(0x00000001), 0x0000);
}

TEST(FloatBits, NanNeverBecomesInfinity) {
  for (const uint32_t bits : {0x7F800001u, 0x7FFFFFFFu, 0xFF800001u, 0x7FC00000u}) {
    EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::bit_cast<float>(bits)))));
  }
}

}  // namespace
}  // namespace lacuna
