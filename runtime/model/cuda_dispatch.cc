#include "runtime/model/cuda_dispatch.h"

namespace lacuna {

CudaDispatch::CudaDispatch(int32_t layers, bool has_zeros) : has_zeros_(has_zeros) {
  for (std::vector<State>& of_bucket : states_) of_bucket.resize(layers);
}

void CudaDispatch::Choose(FfnMode mode, int64_t tokens, absl::Span<FfnDecision> decisions) {
  for (size_t layer = 0; layer < decisions.size(); ++layer) {
    FfnDecision& decision = decisions[layer];
    if (mode != FfnMode::kAuto) {
      decision = {mode == FfnMode::kSparse ? FfnPath::kSparse : FfnPath::kDense,
                  FfnReason::kForced};
    } else if (!has_zeros_) {
      decision = {FfnPath::kDense, FfnReason::kNoZeros};
    } else if (tokens > kMaxBucket) {
      decision = {FfnPath::kDense, FfnReason::kCost};
    } else {
      const int bucket = BucketIndex(tokens);
      State& state = states_[bucket][layer];
      if (state.density >= 0) {
        const Costs& costs = costs_[bucket];
        const double sparse = costs.sparse + state.density * costs.sparse_per_density;
        const bool was_sparse = state.path == FfnPath::kSparse;
        const bool change =
            was_sparse ? costs.dense < kAdvantage * sparse : sparse < kAdvantage * costs.dense;
        if (change) state.path = was_sparse ? FfnPath::kDense : FfnPath::kSparse;
      }
      decision = {state.path, FfnReason::kCost};
    }
  }
}

void CudaDispatch::Learn(int32_t layer, int64_t tokens, double density) {
  if (tokens > kMaxBucket) return;
  State& state = states_[BucketIndex(tokens)][layer];
  state.density = state.density < 0 ? density : state.density + kLatest * (density - state.density);
}

}  // namespace lacuna
