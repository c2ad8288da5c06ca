#include "runtime/model/ffn_dispatcher.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lacuna {
namespace {

// A neuron of a token costs one multiply and one add per element of its up row and its down row.
double FlopsPerPair(const FfnLoad& load) { return 4.0 * static_cast<double>(load.hidden); }

}  // namespace

const char* FfnModeName(FfnMode mode) {
  switch (mode) {
    case FfnMode::kAuto:
      return "auto";
    case FfnMode::kDense:
      return "dense";
    case FfnMode::kSparse:
      return "sparse";
  }
  return "";
}

const char* FfnPathName(FfnPath path) { return path == FfnPath::kDense ? "dense" : "sparse"; }

const char* FfnReasonName(FfnReason reason) {
  switch (reason) {
    case FfnReason::kForced:
      return "forced";
    case FfnReason::kNoZeros:
      return "no_zeros";
    case FfnReason::kCost:
      return "cost";
    case FfnReason::kPredicted:
      return "predicted";
    case FfnReason::kProbe:
      return "probe";
  }
  return "";
}

double FfnCostModel::DenseSeconds(const FfnLoad& load) const {
  const double bytes = static_cast<double>(load.neurons * load.row_bytes);
  const double flops = static_cast<double>(load.tokens * load.neurons) * FlopsPerPair(load);
  return std::max(bytes / stream_bytes_per_s, flops / dense_flops_per_s);
}

double FfnCostModel::SparseSeconds(const FfnLoad& load) const {
  const double bytes = static_cast<double>(load.union_active * load.row_bytes);
  const double flops = static_cast<double>(load.active) * FlopsPerPair(load);
  const double listing = static_cast<double>(load.tokens * load.union_active) * listing_seconds;
  return std::max(bytes / gather_bytes_per_s, flops / sparse_flops_per_s + listing);
}

void FfnDispatcher::SetCost(const FfnCostModel& cost) {
  cost_ = cost;
  beliefs_ = {};
}

int FfnDispatcher::BucketOf(int64_t tokens) {
  const int bucket = std::bit_width(static_cast<uint64_t>(tokens) - 1);
  return std::min(bucket, kBuckets - 1);
}

double FfnDispatcher::Seconds(FfnPath path, const FfnLoad& load) const {
  const double estimate =
      path == FfnPath::kDense ? cost_.DenseSeconds(load) : cost_.SparseSeconds(load);
  return estimate * std::exp(beliefs_[BucketOf(load.tokens)][static_cast<int>(path)].log_ratio);
}

FfnDecision FfnDispatcher::Choose(FfnMode mode, bool activation_has_zeros, const FfnLoad& load) {
  if (mode == FfnMode::kDense) return {FfnPath::kDense, FfnReason::kForced};
  if (mode == FfnMode::kSparse) return {FfnPath::kSparse, FfnReason::kForced};
  if (!activation_has_zeros) return {FfnPath::kDense, FfnReason::kNoZeros};
  const double dense = Seconds(FfnPath::kDense, load), sparse = Seconds(FfnPath::kSparse, load);
  const FfnPath cheaper = sparse < dense ? FfnPath::kSparse : FfnPath::kDense;
  const FfnPath other = sparse < dense ? FfnPath::kDense : FfnPath::kSparse;
  Belief& unused = beliefs_[BucketOf(load.tokens)][static_cast<int>(other)];
  const double dearer = std::max(dense, sparse) /
                        std::max(std::min(dense, sparse), std::numeric_limits<double>::min());
  if (static_cast<double>(++unused.decisions) > kProbeInterval * dearer * dearer) {
    unused.decisions = 0;
    return {other, FfnReason::kProbe};
  }
  return {cheaper, FfnReason::kCost};
}

void FfnDispatcher::Learn(FfnPath path, const FfnLoad& load, double seconds) {
  const double estimate =
      path == FfnPath::kDense ? cost_.DenseSeconds(load) : cost_.SparseSeconds(load);
  if (!(estimate > 0) || !(seconds > 0)) return;  // nothing was active, or no time passed
  Belief& belief = beliefs_[BucketOf(load.tokens)][static_cast<int>(path)];
  belief.decisions = 0;
  const double news = std::log(seconds / estimate) - belief.log_ratio;
  const double most = std::log(kMostNews);
  const double weight = std::max(kLeastWeight, 1.0 / static_cast<double>(++belief.measurements)) *
                        (news > 0 ? kLongerWeight : 1);
  belief.log_ratio += weight * std::clamp(news, -most, most);
}

}  // namespace lacuna
