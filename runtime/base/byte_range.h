#ifndef LACUNA_RUNTIME_BASE_BYTE_RANGE_H_
#define LACUNA_RUNTIME_BASE_BYTE_RANGE_H_

#include <cstddef>

namespace lacuna {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;

  bool operator==(const ByteRange&) const = default;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_BASE_BYTE_RANGE_H_
