#include "runtime/model/ffn_dispatcher.h"

#include <algorithm>

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

FfnDecision ChooseFfnPath(FfnMode mode, bool activation_has_zeros, const FfnCostModel& cost,
                          const FfnLoad& load) {
  if (mode == FfnMode::kDense) return {FfnPath::kDense, FfnReason::kForced};
  if (mode == FfnMode::kSparse) return {FfnPath::kSparse, FfnReason::kForced};
  if (!activation_has_zeros) return {FfnPath::kDense, FfnReason::kNoZeros};
  const bool sparse = cost.SparseSeconds(load) < cost.DenseSeconds(load);
  return {sparse ? FfnPath::kSparse : FfnPath::kDense, FfnReason::kCost};
}

}  // namespace lacuna
