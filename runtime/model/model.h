#ifndef LACUNA_RUNTIME_MODEL_MODEL_H_
#define LACUNA_RUNTIME_MODEL_MODEL_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/base/quantized_row.h"
#include "runtime/model/ffn_dispatcher.h"
#include "runtime/model/gate_predictor.h"
#include "runtime/model/kv_cache.h"
#include "runtime/model/model_config.h"

namespace lacuna {

enum class Phase : uint8_t { kPrefill = 0, kDecode = 1 };
inline constexpr int kNumPhases = 2;

// The part of one sequence that a step computes.
struct SequenceChunk {
  absl::Span<const int32_t> tokens;  // at positions first_position, first_position + 1, ...
  int32_t first_position = 0;
  absl::Span<const int32_t> block_table;  // KV blocks for positions 0 .. the last of this chunk
  int32_t logits = 0;                     // wanted for the last `logits` of `tokens`
  Phase phase = Phase::kPrefill;
  bool exact = false;  // keeps a predictor out of the step
};

// What the FFN of one layer did in one step. A step's tokens pass in groups of at most 64.
struct FfnLayerStats {
  std::array<int64_t, kNumPhases> active{};  // active (token, neuron) pairs, by the token's phase
  int64_t union_active = 0;                  // neurons active in a group, summed over groups
  int32_t groups = 0;
  // Groups by path and reason.
  std::array<std::array<int32_t, kNumFfnReasons>, kNumFfnPaths> dispatched{};
  PredictionCounts prediction;  // in an audited step
};

struct FfnStepStats {
  int64_t neurons = 0;                       // per layer
  std::array<int64_t, kNumPhases> tokens{};  // in this step
  std::vector<FfnLayerStats> layers;
  // Active (token, neuron) pairs of each chunk, summed over its tokens and all layers.
  std::vector<int64_t> active_by_chunk;
  // With SiLU: (token, neuron) pairs of all layers whose gate is negative, which ReLU would make
  // zeros. Of a model trained with ReLU nearly all are.
  int64_t negative_gates = 0;
  int64_t weight_bytes_read = 0;     // FFN weights
  int64_t weight_bytes_skipped = 0;  // FFN weights that a dense pass would have read on top
  // In a step that was computed both by prediction and exactly: rows of logits compared, and how
  // many of them have another maximum.
  int64_t audits = 0;
  int64_t audit_mismatches = 0;
};

// Wall time of the parts of one step, seconds. On a GPU, which is not asked in between, all is
// `other`.
struct StepTimes {
  double ffn = 0;
  double attention = 0;  // norms, projections, RoPE and attention proper
  double other = 0;      // embedding, final norm, lm_head
};

struct ForwardOutput {
  // [sum of chunk.logits, vocab_size], in the order of the chunks; valid until the next Forward.
  absl::Span<const float> logits;
  FfnStepStats ffn;
  StepTimes times;
};

// Facts about a loaded model, for GetModel, metrics and the log.
struct ModelFacts {
  int64_t parameters = 0;
  int64_t weight_bytes = 0;       // in memory
  int64_t step_weight_bytes = 0;  // that one dense decode step reads
  int64_t ffn_weight_bytes = 0;   // of those, the FFNs'
  std::string weights;            // "f32", "bf16", "int8", "int4"
  DType kv_type = DType::kF32;    // of keys and values
  bool has_predictor = false;     // leaves out part of the gate in FfnMode::kAuto
  std::string device;             // "cpu", "cuda:0"
  std::string isa;                // "avx512vnni", "sm_90"
  int threads = 0;                // that a pass computes with; 0 on a GPU
};

// A language model that computes logits. The weights are immutable; Forward uses scratch memory of
// the object, so it is for one thread at a time (the engine thread).
class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const ModelFacts& facts() const = 0;

  // Computes the chunks in one pass over the weights, writing their keys and values into `cache`.
  // A sequence may appear once. The result for a sequence does not depend on the other chunks, on
  // where its tokens are cut into chunks, or on `mode`: only on its tokens (on the CPU; on a GPU
  // all these agree to rounding, and the same steps give the same bits again). A
  // predictor, if the operator asks for one, makes an exception: with kAuto, steps that decode a
  // few tokens are approximate, and depend on what was predicted before.
  // INTERNAL only for bugs: the caller has checked ids, positions and blocks.
  virtual absl::StatusOr<ForwardOutput> Forward(absl::Span<const SequenceChunk> chunks,
                                                FfnMode mode, KvCache* cache) = 0;

  // A cache of facts().kv_type that Forward can use, in the memory of facts().device.
  // RESOURCE_EXHAUSTED if it cannot be had.
  virtual absl::StatusOr<std::unique_ptr<KvCache>> CreateKvCache(int32_t num_blocks) const;
  // Bytes that it could take now.
  virtual int64_t AvailableBytes() const;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_MODEL_H_
