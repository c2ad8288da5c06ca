#include "runtime/model/activation_name.h"

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

// As wide as those of a config.json.
constexpr float kMinThreshold = 1e-6f;
constexpr float kMaxThreshold = 1e6f;

}  // namespace

const char* ActivationKindName(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kRelu:
      return "relu";
    case ActivationKind::kFatRelu:
      return "fatrelu";
    case ActivationKind::kDRelu:
      return "drelu";
    case ActivationKind::kSilu:
      return "silu";
  }
  return "";
}

absl::StatusOr<Activation> ParseActivation(std::string_view text) {
  for (const ActivationKind kind :
       {ActivationKind::kRelu, ActivationKind::kDRelu, ActivationKind::kSilu}) {
    if (text == ActivationKindName(kind)) return Activation{kind};
  }
  constexpr std::string_view kFatRelu = "fatrelu:";
  float threshold = 0;
  if (text.starts_with(kFatRelu) &&
      absl::SimpleAtof(std::string(text.substr(kFatRelu.size())), &threshold) &&
      threshold >= kMinThreshold && threshold <= kMaxThreshold) {
    return Activation{ActivationKind::kFatRelu, threshold};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("activation ", Quoted(text),
                   ": want relu, fatrelu:T with a threshold T in [1e-6, 1e6], drelu or silu"));
}

std::string ActivationName(const Activation& activation) {
  const std::string name = ActivationKindName(activation.kind);
  return activation.kind == ActivationKind::kFatRelu ? absl::StrCat(name, ":", activation.threshold)
                                                     : name;
}

}  // namespace lacuna
