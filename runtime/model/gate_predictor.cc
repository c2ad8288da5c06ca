#include "runtime/model/gate_predictor.h"

#include <algorithm>

namespace lacuna {
namespace {

// Of a token with many active neurons only so many are remembered, evenly spread, so that the ring
// holds no fewer than 32 tokens, which differ.
constexpr size_t kRing = 8192;
constexpr size_t kMaxPerToken = kRing / 32;

// Tokens to come differ from those remembered: only this share of the losses allowed is planned.
constexpr double kCaution = 0.6;

}  // namespace

bool GatePredictor::Pays(int64_t tokens, int64_t sketch_bytes, int64_t gate_bytes) const {
  const double named = std::min(1.0, static_cast<double>(tokens) * named_share_);
  return static_cast<double>(sketch_bytes) + named * static_cast<double>(gate_bytes) <
         static_cast<double>(gate_bytes);
}

void GatePredictor::Learn(absl::Span<const float> needed, int64_t named, int64_t neurons) {
  const float share = static_cast<float>(named) / static_cast<float>(neurons);
  ++audits_;
  named_share_ += (share - named_share_) / static_cast<float>(std::min<int64_t>(audits_, 32));
  if (needed.empty()) return;
  const size_t kept = std::min(needed.size(), kMaxPerToken);
  for (size_t i = 0; i < kept; ++i) {
    const float margin = needed[i * needed.size() / kept];
    if (needed_.size() < kRing) {
      needed_.push_back(margin);
    } else {
      needed_[next_++ % kRing] = margin;
    }
  }
  std::vector<float> sorted = needed_;
  const auto lost = static_cast<ptrdiff_t>((1.0 - recall_) * kCaution * sorted.size());
  const auto at = sorted.end() - 1 - lost;
  std::nth_element(sorted.begin(), at, sorted.end());
  margin_ = *at;
}

}  // namespace lacuna
