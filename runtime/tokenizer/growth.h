#ifndef LACUNA_RUNTIME_TOKENIZER_GROWTH_H_
#define LACUNA_RUNTIME_TOKENIZER_GROWTH_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lacuna {

// How many times as many bytes, or ids, a tokenizer's files may make of the bytes of a text; NFKC
// alone makes 11 times as many of U+FDFA. Beside that, what any text may become.
inline constexpr size_t kMaxGrowth = 32;
inline constexpr size_t kSmallText = 4096;

// INVALID_ARGUMENT if `after` is more than a text of `before` bytes may become.
inline absl::Status CheckGrowth(size_t before, size_t after) {
  if (after <= kSmallText + kMaxGrowth * before) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the model's tokenizer makes ", after, " of ",
                                                 before, " bytes of text, more than ", kMaxGrowth,
                                                 " times as many"));
}

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_GROWTH_H_
