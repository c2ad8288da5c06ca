#ifndef LACUNA_RUNTIME_MODEL_GATE_PREDICTOR_H_
#define LACUNA_RUNTIME_MODEL_GATE_PREDICTOR_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace lacuna {

// What a predictor named against what was active: (token, neuron) pairs.
struct PredictionCounts {
  int64_t true_positive = 0;   // active and named
  int64_t false_negative = 0;  // active but not named: lost
  int64_t false_positive = 0;  // named for nothing
  // Proven inactive: no row that differs from the sketch by as much could reach the threshold. (But
  // for what the activations lose when they are rounded to 8 bits for the sketch.)
  int64_t certified = 0;

  void operator+=(const PredictionCounts& other) {
    true_positive += other.true_positive;
    false_negative += other.false_negative;
    false_positive += other.false_positive;
    certified += other.certified;
  }
};

// Which neurons of one layer may be active, judged by a sketch of its gate: rows s of few bits in
// place of the exact rows w. A neuron is named if
//   s . x >= threshold - margin * deviation,   deviation = |w - s| |x| / sqrt(hidden),
// or if a side is NaN, so that a NaN of the exact gate is not left out. The deviation is the
// standard deviation of the error (w - s) . x if its terms are independent. How many deviations it
// takes to name a share `recall` of the active neurons depends on the model and its inputs, so the
// margin is learned: audits compute the exact gate too, and tell which margin each active neuron
// would have needed. Not thread-safe.
class GatePredictor {
 public:
  // recall in (0, 1): the share of active neurons to be named, on average.
  explicit GatePredictor(double recall) : recall_(recall) {}

  float margin() const { return margin_; }

  // Whether reading the sketch and then the exact rows of the neurons named, for any of `tokens`,
  // is less than reading all exact rows. Until the first audit, no neuron counts as named.
  bool Pays(int64_t tokens, int64_t sketch_bytes, int64_t gate_bytes) const;

  // Takes one token's audit: the margin that each active neuron would have needed, none of them
  // NaN, and how many of the `neurons` of the layer were named.
  void Learn(absl::Span<const float> needed, int64_t named, int64_t neurons);

 private:
  double recall_;
  float margin_ = 3.0f;  // until the first audit
  // Margins needed in the latest audits, in a ring; the margin is their quantile.
  std::vector<float> needed_;
  size_t next_ = 0;        // to be overwritten
  float named_share_ = 0;  // of all neurons, for one token
  int64_t audits_ = 0;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_GATE_PREDICTOR_H_
