#ifndef LACUNA_RUNTIME_MODEL_FFN_DISPATCHER_H_
#define LACUNA_RUNTIME_MODEL_FFN_DISPATCHER_H_

#include <array>
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
  kProbe,      // to learn again what the path that seems dearer takes
};
inline constexpr int kNumFfnPaths = 2;
inline constexpr int kNumFfnReasons = 5;

const char* FfnModeName(FfnMode mode);        // "auto", "dense", "sparse"
const char* FfnPathName(FfnPath path);        // "dense", "sparse"
const char* FfnReasonName(FfnReason reason);  // "forced", "no_zeros", "cost", "predicted", "probe"

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

// Chooses paths: by the cost model's estimates, each times what steps of about as many tokens
// really took of it lately. So rates that were measured in a bad moment, when the model was loaded,
// do not last: the path taken is measured each time, and the other one is tried now and then.
// Choices change speed only. Not thread-safe.
class FfnDispatcher {
 public:
  // Forgets what was learned.
  void SetCost(const FfnCostModel& cost);
  const FfnCostModel& cost() const { return cost_; }

  // Same calls before, same decision. In mode kAuto, counts as one use of the path.
  FfnDecision Choose(FfnMode mode, bool activation_has_zeros, const FfnLoad& load);

  // Up and down of such a load took so long by this path, whoever chose it.
  void Learn(FfnPath path, const FfnLoad& load, double seconds);

  // The model's estimate, corrected.
  double Seconds(FfnPath path, const FfnLoad& load) const;

 private:
  // Of tokens: 1, 2, 3 to 4, 5 to 8, ... 33 to 64.
  static constexpr int kBuckets = 7;
  // The dearer path is tried after so many decisions, times the square of how much dearer it seems:
  // a factor r costs (r - 1) / (64 r^2) of the time, 0.4 % at most.
  static constexpr double kProbeInterval = 64;
  // A measurement counts 1 / n until it is the n-th, then as much as this. A tenth follows changes
  // of the machine within some tokens.
  static constexpr double kLeastWeight = 0.1;
  // One that is longer than believed counts less: what other programs do to a thread only ever
  // makes it slower, so the lower measurements say more of the path. Where a layer takes some
  // microseconds, and a client runs on the same cores, that is most of the noise.
  static constexpr double kLongerWeight = 0.25;
  // And it moves no farther than this factor from what was believed: a pause may last for a
  // thousand times as long.
  static constexpr double kMostNews = 4;

  struct Belief {
    double log_ratio = 0;      // of measured to estimated seconds, a low mean
    int64_t measurements = 1;  // the calibration counts as one
    int64_t decisions = 0;     // since it was measured last
  };
  static int BucketOf(int64_t tokens);

  FfnCostModel cost_;
  std::array<std::array<Belief, kNumFfnPaths>, kBuckets> beliefs_{};
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_FFN_DISPATCHER_H_
