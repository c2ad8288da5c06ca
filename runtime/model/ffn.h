#ifndef LACUNA_RUNTIME_MODEL_FFN_H_
#define LACUNA_RUNTIME_MODEL_FFN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/kernel_table.h"
#include "kernels/base/thread_pool.h"
#include "runtime/model/ffn_dispatcher.h"
#include "runtime/model/weights.h"

namespace lacuna {

// Computes one feed-forward layer for a group of tokens, exactly:
//   gate = activation(x . Wgate), x1 = gate * (x . Wup), y = x1 . Wdown
// The gate is computed in full; what it leaves at zero is then skipped neuron by neuron (sparse),
// or multiplied out (dense), whichever ChooseFfnPath says. Both give the same bits.
// Without `up` weights (an ungated FFN) x1 is the activation itself.
// Uses scratch memory of the object: for one thread at a time.
class Ffn {
 public:
  // Tokens of one group: one bit each in a neuron's mask.
  static constexpr int64_t kMaxTokens = 64;
  using TokenMask = uint64_t;

  struct Result {
    FfnDecision decision;
    int64_t union_active = 0;  // neurons active for at least one token of the group
  };

  // Borrowed objects must outlive it. Starts with FfnCostModel's default rates.
  Ffn(const KernelTable* kernels, ThreadPool* pool, int64_t hidden, int64_t neurons,
      Activation activation);

  // Replaces the cost model's rates by those measured on the layers given: one token and a batch,
  // dense and sparse. Takes as long as 15 passes over a layer.
  void Calibrate(absl::Span<const LayerWeights> layers);
  const FfnCostModel& cost_model() const { return cost_; }

  // x: [tokens, hidden] -> y: [tokens, hidden], overwritten; tokens in [1, kMaxTokens].
  // active[t] becomes the number of active neurons of token t.
  Result Run(const LayerWeights& weights, const float* x, int64_t tokens, FfnMode mode, float* y,
             absl::Span<int64_t> active);

 private:
  void ComputeGate(const RowMatrix& gate, const float* x, int64_t tokens,
                   absl::Span<int64_t> active);
  // y = what the neurons give, from the gates in x1_ and the active list in masks_ and union_.
  void UpDown(const LayerWeights& weights, const float* x, int64_t tokens, FfnPath path, float* y);
  void UpSparse(const RowMatrix& up, const float* x, int64_t tokens);
  void UpDense(const RowMatrix& up, const float* x, int64_t tokens);
  void DownSparse(const RowMatrix& down, int64_t tokens, float* y);
  void DownDense(const RowMatrix& down, int64_t tokens, float* y);
  FfnLoad LoadOf(const LayerWeights& weights, int64_t tokens) const;
  int64_t CollectActive(int64_t begin, int64_t end, int64_t token, int32_t* neurons) const;

  // What one thread needs to itself.
  struct Scratch {
    std::vector<int32_t> indices;
    std::vector<const void*> rows;
    std::vector<float> values;
    std::vector<int64_t> active;  // by token
    std::vector<int32_t> listed;  // this thread's part of the active list
  };

  const KernelTable* const kernels_;
  ThreadPool* const pool_;
  const int64_t hidden_;
  const int64_t neurons_;
  const Activation activation_;
  FfnCostModel cost_;

  std::vector<float> x1_;         // [kMaxTokens, neurons]: gate, then gate * up
  std::vector<float> up_;         // [kMaxTokens, neurons]: dense path only
  std::vector<TokenMask> masks_;  // [neurons]: for which tokens a neuron is active
  std::vector<int32_t> union_;    // active neurons, ascending
  std::vector<Scratch> scratch_;  // by thread
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_FFN_H_
