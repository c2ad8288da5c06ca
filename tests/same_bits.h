#ifndef LACUNA_TESTS_SAME_BITS_H_
#define LACUNA_TESTS_SAME_BITS_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace lacuna {

// Equality of representation: -0 is not +0, and a NaN equals itself.
inline ::testing::AssertionResult SameBits(const std::vector<float>& a,
                                           const std::vector<float>& b) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " values against " << b.size();
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "value " << i << ": " << a[i] << " against " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace lacuna

#endif  // LACUNA_TESTS_SAME_BITS_H_
