// The part of Ffn that computes only those gates that a sketch finds promising.

#include <algorithm>
#include <cmath>

#include "runtime/model/ffn.h"

namespace lacuna {
namespace {

// Lesser gates count for nothing. So a row of zeros, whose gate is 0 and whose sketch says so, is
// never named, though the threshold of ReLU is 0, too.
constexpr float kLeastGate = 1e-20f;
// Of an estimate. kLeastGate is 1e10 of these, beyond any margin and any proof.
constexpr float kLeastDeviation = 1e-30f;

}  // namespace

Ffn::Result Ffn::RunPredicted(const LayerWeights& weights, const float* x, int64_t tokens,
                              bool audit, GatePredictor* predictor, float* y,
                              absl::Span<int64_t> active) {
  const int64_t sketch_bytes = weights.gate_sketch.bytes();
  if (!audit && !predictor->Pays(tokens, sketch_bytes, weights.gate.bytes())) {
    return Run(weights, x, tokens, FfnMode::kAuto, y, active);
  }
  Reserve(tokens);
  x_.Set(*kernels_, pool_, weights.gate.dtype, x, tokens, hidden_);
  Estimate(weights, x, tokens);
  PredictionCounts prediction;
  int64_t gate_rows = neurons_;
  if (audit) {
    ComputeGate(weights, tokens);
    prediction = Audit(weights, tokens, predictor);
  } else {
    gate_rows = PredictGate(weights, predictor->margin(), tokens);
  }
  ShrinkUnion(tokens);
  const int64_t gate_bytes = sketch_bytes + gate_rows * weights.gate.bytes() / neurons_;
  Result result =
      UpDown(weights, tokens, gate_bytes, {FfnPath::kSparse, FfnReason::kPredicted}, y, active);
  result.prediction = prediction;
  return result;
}

void Ffn::Estimate(const LayerWeights& weights, const float* x, int64_t tokens) {
  const RowMatrix& sketch = weights.gate_sketch;
  const Activations* input = &x_;
  if (!IsQuantized(weights.gate.dtype)) {
    sketch_x_.Set(*kernels_, pool_, sketch.dtype, x, tokens, hidden_);
    input = &sketch_x_;
  }
  if (static_cast<int64_t>(estimates_.size()) < tokens * neurons_) {
    estimates_.resize(tokens * neurons_);
  }
  deviations_.resize(tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    double squares = 0;
    for (int64_t c = 0; c < hidden_; ++c) {
      squares += static_cast<double>(x[t * hidden_ + c]) * x[t * hidden_ + c];
    }
    deviations_[t] = static_cast<float>(std::sqrt(squares / static_cast<double>(hidden_)));
  }
  pool_->ParallelFor(neurons_, kGrain, [&](int64_t begin, int64_t end, int) {
    kernels_->linear[static_cast<int>(sketch.dtype)](input->data(), input->stride(), tokens, sketch,
                                                     begin, end, weights.gate_bias_data(),
                                                     estimates_.data(), neurons_);
  });
}

int64_t Ffn::PredictGate(const LayerWeights& weights, float margin, int64_t tokens) {
  const float* const errors = weights.sketch_error.data();
  const float threshold = std::max(activation_.threshold, kLeastGate);
  ListNeurons(
      tokens, [](int64_t, int64_t) {},
      [&](int64_t begin, int64_t end, int64_t t, int32_t* out) {
        const float* const estimates = &estimates_[t * neurons_];
        const float allowance = margin * deviations_[t];
        int64_t n = 0;
        for (int64_t j = begin; j < end; ++j) {
          out[n] = static_cast<int32_t>(j);
          n += estimates[j] + allowance * errors[j] < threshold ? 0 : 1;
        }
        return n;
      });
  const auto rows = static_cast<int64_t>(union_.size());
  const float* const bias = weights.gate_bias_data();
  DotLists(weights.gate, tokens, [&](int64_t, const ActiveList& list, int64_t from, int64_t to) {
    if (bias == nullptr) return;
    for (int64_t i = from; i < to; ++i) list.values[i] += bias[list.neurons[i]];
  });
  for (int64_t t = 0; t < tokens; ++t) {
    ActiveList& list = lists_[t];
    int32_t* const kept = list.positions;
    const int64_t n = kernels_->activate(activation_, list.values, list.size, 0, kept);
    for (int64_t i = 0; i < n; ++i) {
      list.neurons[i] = list.neurons[kept[i]];
      gates_[t * neurons_ + list.neurons[i]] = list.values[kept[i]];
    }
    list.size = n;
  }
  return rows;
}

PredictionCounts Ffn::Audit(const LayerWeights& weights, int64_t tokens, GatePredictor* predictor) {
  const float* const errors = weights.sketch_error.data();
  const float margin = predictor->margin();
  const float threshold = std::max(activation_.threshold, kLeastGate);
  PredictionCounts counts;
  for (int64_t t = 0; t < tokens; ++t) {
    ActiveList& list = lists_[t];
    const float* const estimates = &estimates_[t * neurons_];
    const auto needed = [&](int64_t j) {
      const float deviation = std::max(deviations_[t] * errors[j], kLeastDeviation);
      return (threshold - estimates[j]) / deviation;
    };
    // |(w - s) . x| <= |w - s| |x|: this many deviations can never be exceeded.
    const float proof = std::sqrt(static_cast<float>(hidden_));
    int64_t named = 0;
    for (int64_t j = 0; j < neurons_; ++j) {
      const float needs = needed(j);
      named += needs > margin ? 0 : 1;
      counts.certified += needs > proof ? 1 : 0;
    }
    int64_t kept = 0, known = 0;
    for (int64_t i = 0; i < list.size; ++i) {
      const int32_t neuron = list.neurons[i];
      const float needs = needed(neuron);
      if (!std::isnan(needs)) list.values[known++] = needs;
      if (!(needs > margin)) list.neurons[kept++] = neuron;
    }
    predictor->Learn(absl::MakeConstSpan(list.values, known), named, neurons_);
    counts += {kept, list.size - kept, named - kept, 0};
    list.size = kept;
  }
  return counts;
}

}  // namespace lacuna
