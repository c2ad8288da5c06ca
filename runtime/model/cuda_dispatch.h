#ifndef LACUNA_RUNTIME_MODEL_CUDA_DISPATCH_H_
#define LACUNA_RUNTIME_MODEL_CUDA_DISPATCH_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/model/cuda_pass.h"
#include "runtime/model/ffn_dispatcher.h"

namespace lacuna {

// Chooses between the dense and the sparse path of every layer's FFN on a GPU, before a pass
// begins: waiting for the gate, as the CPU does, would cost a round trip for each layer. So it goes
// by the share of neurons that passes of about as many tokens found active in this layer before.
// Counting is part of both paths, so that a choice of dense is reconsidered. Not thread-safe.
class CudaDispatch {
 public:
  // Seconds that one FFN takes with as many tokens as a bucket has.
  struct Costs {
    double dense = 1.0;
    double sparse = 0.0;  // without an active neuron
    double sparse_per_density = 1.0;
  };

  CudaDispatch(int32_t layers, bool has_zeros);

  void SetCosts(int bucket, const Costs& costs) { costs_[bucket] = costs; }

  // The paths of all layers for a pass of so many tokens. Beyond kMaxBucket tokens kAuto is dense:
  // their union leaves hardly a neuron out (91 % of a ProSparse-LLaMA2-7B layer for 64 tokens), and
  // tensor cores share a row among all tokens.
  void Choose(FfnMode mode, int64_t tokens, absl::Span<FfnDecision> decisions);

  // A pass found this share of the neurons of a layer active for at least one of its tokens.
  void Learn(int32_t layer, int64_t tokens, double density);

 private:
  // A path is left only if the other one is this much cheaper, so that two that are about as good
  // do not take turns: each change captures a graph.
  static constexpr double kAdvantage = 0.97;
  // Weight of the latest pass in the density.
  static constexpr double kLatest = 0.1;

  struct State {
    double density = -1;  // -1: not seen yet
    FfnPath path = FfnPath::kSparse;
  };
  const bool has_zeros_;
  std::array<Costs, kNumBuckets> costs_{};
  std::array<std::vector<State>, kNumBuckets> states_;  // by bucket, then layer
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CUDA_DISPATCH_H_
