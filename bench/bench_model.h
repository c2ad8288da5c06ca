#ifndef LACUNA_BENCH_BENCH_MODEL_H_
#define LACUNA_BENCH_BENCH_MODEL_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "runtime/model/model.h"

namespace lacuna {

struct BenchShape {
  int prompt_tokens = 128;
  int generate_tokens = 64;
  int batch = 1;
};

// One timed generation of `batch` sequences in lockstep.
struct BenchRun {
  double prefill_seconds = 0;
  double decode_seconds = 0;
  StepTimes decode_times;  // summed over the decode steps
  int64_t decode_steps = 0;
  int64_t ffn_bytes = 0;                 // FFN weights read by the decode steps
  int64_t active = 0, tokens = 0;        // of the decode steps; active: token, neuron, layer
  int64_t union_active = 0, groups = 0;  // of the decode steps: summed over layers
  PredictionCounts prediction;           // of the audited decode steps
  int64_t audits = 0, audit_mismatches = 0;
};

// Runs prompts through a Model without a server or scheduler.
class BenchModel {
 public:
  // `prompt`: token ids to take prompts from, cyclically; empty: random ids, and random ids are
  // also what decode steps are fed (a synthetic model's own choice would be one token for ever).
  BenchModel(Model* model, std::vector<int32_t> prompt, const BenchShape& shape);

  // Memory for the KV cache. Call once, before Run.
  absl::Status Prepare();
  absl::StatusOr<BenchRun> Run(FfnMode mode, uint64_t seed);

 private:
  Model* const model_;
  const std::vector<int32_t> prompt_;
  const BenchShape shape_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::vector<int32_t>> block_tables_;  // by sequence
};

}  // namespace lacuna

#endif  // LACUNA_BENCH_BENCH_MODEL_H_
