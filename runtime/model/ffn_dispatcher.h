#ifndef LACUNA_RUNTIME_MODEL_FFN_DISPATCHER_H_
#define LACUNA_RUNTIME_MODEL_FFN_DISPATCHER_H_

#include <cstdint>

namespace lacuna {

// What the operator (--ffn) or a request (sparsity.mode) asks for.
enum class FfnMode : uint8_t { kAuto, kDense, kSparse };
enum class FfnPath : uint8_t { kDense, kSparse };
// Why a path was taken.
enum class FfnReason : uint8_t {
  kForced,     // the operator or all requests of the step asked for it
  kNoZeros,    // the activation gives no zeros
  kCost,       // the cost model found it cheaper
  kPredicted,  // a predictor has left most of the gate out too
};
inline constexpr int kNumFfnPaths = 2;
inline constexpr int kNumFfnReasons = 4;

const char* FfnModeName(FfnMode mode);        // "auto", "dense", "sparse"
const char* FfnPathName(FfnPath path);        // "dense", "sparse"
const char* FfnReasonName(FfnReason reason);  // "forced", "no_zeros", "cost", "predicted"

struct FfnDecision {
  FfnPath path = FfnPath::kDense;
  FfnReason reason = FfnReason::kForced;
};

// What is known of one FFN once its gate has been computed for a group of tokens.
struct FfnLoad {
  int64_t tokens = 0;
  int64_t neurons = 0;       // of the layer
  int64_t union_active = 0;  // neurons active for at least one token
  int64_t active = 0;        // (token, neuron) pairs that are active
  int64_t hidden = 0;        // elements of one up or down row
  int64_t row_bytes = 0;     // of one [up | down] bundle
};

// Time of the up and down steps after the gate, as bytes over bandwidth against work, whichever is
// longer. The sparse path's work is the operations of its active pairs, and looking at each listed
// neuron once per token. The rates are of the machine as a whole.
struct FfnCostModel {
  double stream_bytes_per_s = 30e9;  // rows one after the other
  double gather_bytes_per_s = 24e9;  // listed rows
  double dense_flops_per_s = 100e9;  // register-tiled product of many tokens
  double sparse_flops_per_s = 60e9;  // row by row over the active pairs
  double listing_seconds = 4e-9;     // per token and listed neuron
  double DenseSeconds(const FfnLoad& load) const;
  double SparseSeconds(const FfnLoad& load) const;
};

// Pure function: same arguments, same decision.
FfnDecision ChooseFfnPath(FfnMode mode, bool activation_has_zeros, const FfnCostModel& cost,
                          const FfnLoad& load);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_FFN_DISPATCHER_H_
