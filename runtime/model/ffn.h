#ifndef LACUNA_RUNTIME_MODEL_FFN_H_
#define LACUNA_RUNTIME_MODEL_FFN_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_vector.h"
#include "kernels/base/kernel_table.h"
#include "kernels/base/thread_pool.h"
#include "runtime/model/activations.h"
#include "runtime/model/ffn_dispatcher.h"
#include "runtime/model/gate_predictor.h"
#include "runtime/model/weights.h"

namespace lacuna {

// Computes one feed-forward layer for a group of tokens:
//   gate = activation(x . Wgate + bias), x1 = gate * (x . Wup), y = x1 . Wdown + bias
// Run computes the gate in full; what it leaves at zero is then skipped neuron by neuron (sparse),
// or multiplied out (dense), whichever an FfnDispatcher says. Both give the same bits. RunPredicted
// computes only the gates that a sketch finds promising: it loses what the sketch misses.
// Without `up` weights (an ungated FFN) x1 is the activation itself. With dReLU, x1 = gate *
// relu(x . Wup), and what that leaves at zero is skipped in `down`.
// Uses scratch memory of the object: for one thread at a time.
class Ffn {
 public:
  static constexpr int64_t kMaxTokens = KernelTable::kMaxListTokens;

  struct Result {
    FfnDecision decision;
    int64_t union_active = 0;  // neurons active for at least one token of the group
    int64_t weight_bytes = 0;  // of the weights read
    // With SiLU only: (token, neuron) pairs whose gate is negative, which ReLU would make zeros.
    int64_t negative = 0;
    PredictionCounts prediction;  // of an audit
  };

  // Borrowed objects must outlive it. Starts with FfnCostModel's default rates.
  Ffn(const KernelTable* kernels, ThreadPool* pool, int64_t hidden, int64_t neurons,
      Activation activation);

  // Replaces the cost model's rates by those measured on the layers given: one token and a batch,
  // dense and sparse. Takes as long as 15 passes over a layer.
  void Calibrate(absl::Span<const LayerWeights> layers);
  const FfnDispatcher& dispatcher() const { return dispatcher_; }

  // x: [tokens, hidden] -> y: [tokens, hidden], overwritten; tokens in [1, kMaxTokens].
  // active[t] becomes the number of neurons of token t whose x1 is not zero, but for those (without
  // dReLU) where only x . Wup is.
  Result Run(const LayerWeights& weights, const float* x, int64_t tokens, FfnMode mode, float* y,
             absl::Span<int64_t> active);

  // The same, approximately, for weights with a gate_sketch. Where the predictor finds that
  // predicting does not pay, what Run does in mode kAuto. `audit` computes the exact gate beside
  // the prediction, and the predictor learns from it; y is still that of the prediction.
  Result RunPredicted(const LayerWeights& weights, const float* x, int64_t tokens, bool audit,
                      GatePredictor* predictor, float* y, absl::Span<int64_t> active);

 private:
  // Neurons per thread come in multiples of a cache line of floats.
  static constexpr int64_t kGrain = 16;

  // The active neurons of one token, ascending.
  struct ActiveList {
    int32_t* neurons;    // room for all neurons and some
    int32_t* positions;  // where each neuron is in union_ (unset for one token)
    float* values;       // gate * up
    int64_t size;
  };

  // Fills gates_, lists_ and union_.
  void ComputeGate(const LayerWeights& weights, int64_t tokens);
  // The same for those neurons only that the sketch names; returns how many rows were read.
  int64_t PredictGate(const LayerWeights& weights, float margin, int64_t tokens);
  // Fills estimates_ and deviations_.
  void Estimate(const LayerWeights& weights, const float* x, int64_t tokens);
  // Takes the neurons that the sketch does not name off the lists.
  PredictionCounts Audit(const LayerWeights& weights, int64_t tokens, GatePredictor* predictor);
  // Fills lists_ and union_. Each thread calls prepare(begin, end) for its range of neurons, then
  // list(begin, end, t, out), which writes those of token t, ascending, and returns how many.
  void ListNeurons(
      int64_t tokens, absl::FunctionRef<void(int64_t begin, int64_t end)> prepare,
      absl::FunctionRef<int64_t(int64_t begin, int64_t end, int64_t t, int32_t* out)> list);
  void FindUnion(int64_t tokens);
  // union_ = the neurons of lists_, which have become shorter.
  void ShrinkUnion(int64_t tokens);
  // list.positions and list.values = x . row for the rows listed, in one pass over the rows; then
  // finish(t, list, from, to) for the part [from, to) of a token's list, on any thread.
  void DotLists(
      const RowMatrix& rows, int64_t tokens,
      absl::FunctionRef<void(int64_t t, const ActiveList& list, int64_t from, int64_t to)> finish);
  // From gates_, lists_ and union_: x1, then what the neurons give. gate_bytes: read to find the
  // gates.
  Result UpDown(const LayerWeights& weights, int64_t tokens, int64_t gate_bytes,
                FfnDecision decision, float* y, absl::Span<int64_t> active);
  void Up(const RowMatrix& up, int64_t tokens, FfnPath path);
  void DropZeros(int64_t tokens, FfnPath path);
  void Down(const LayerWeights& weights, int64_t tokens, FfnPath path, float* y);
  void UpSparse(const RowMatrix& up, int64_t tokens);
  void UpDense(const RowMatrix& up, int64_t tokens);
  FfnLoad LoadOf(const LayerWeights& weights, int64_t tokens) const;
  void Reserve(int64_t tokens);

  // What one thread needs to itself.
  struct Scratch {
    std::vector<const void*> rows;   // [neurons]
    std::vector<const void*> ahead;  // [neurons]
    std::vector<int64_t> active;     // by token: neurons found, later where in its list this is
    std::vector<int32_t> listed;     // this thread's part of the union
    int64_t negative = 0;            // of Result, this thread's part
  };

  const KernelTable* const kernels_;
  ThreadPool* const pool_;
  const int64_t hidden_;
  const int64_t neurons_;
  const Activation activation_;
  FfnDispatcher dispatcher_;

  Activations x_;
  Activations sketch_x_;            // for sketches of float weights
  AlignedVector<float> estimates_;  // [tokens, neurons]: the sketch's
  std::vector<float> deviations_;   // [tokens]: of an estimate per unit of sketch_error
  AlignedVector<float> gates_;      // [tokens, neurons]; the dense path multiplies `up` into it
  AlignedVector<float> up_;         // [tokens, neurons]: dense path only
  std::vector<ActiveList> lists_;
  std::vector<int32_t> list_storage_;
  AlignedVector<float> value_storage_;
  std::vector<uint8_t> is_active_;       // [neurons]: for any token
  std::vector<int32_t> position_of_;     // [neurons]: in union_, of several tokens; else unset
  std::vector<int32_t> union_;           // neurons active for at least one token, ascending
  std::vector<const void*> union_rows_;  // the `down` rows of union_
  std::vector<RowCombination> combinations_;
  std::vector<Scratch> scratch_;  // by thread
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_FFN_H_
