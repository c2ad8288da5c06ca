#ifndef LACUNA_RUNTIME_MODEL_TRANSFORMER_MODEL_H_
#define LACUNA_RUNTIME_MODEL_TRANSFORMER_MODEL_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/base/aligned_vector.h"
#include "runtime/model/activations.h"
#include "runtime/model/ffn.h"
#include "runtime/model/model.h"
#include "runtime/model/rope.h"
#include "runtime/model/weights.h"

namespace lacuna {

// A decoder of the LLaMA or OPT kind, as ModelConfig describes it, on a KernelTable.
class TransformerModel : public Model {
 public:
  // Borrowed objects must outlive the model.
  TransformerModel(const ModelConfig& config, ModelWeights weights, const KernelTable* kernels,
                   ThreadPool* pool);

  // Makes decode steps of few tokens in FfnMode::kAuto read only those gates that a sketch finds
  // promising, and audits one such step in kAuditPeriod, the first ones all. `recall` in (0, 1): of
  // the active neurons. Weights must have been loaded with sketches.
  void UsePredictor(double recall);
  static constexpr int64_t kMaxPredictedTokens = 4;
  static constexpr int64_t kFirstAudits = 8;
  static constexpr int64_t kAuditPeriod = 128;

  // Measures on this machine what the FFN dispatcher decides by. Changes no result.
  void Calibrate() { ffn_.Calibrate(weights_.layers); }

  const ModelConfig& config() const override { return config_; }
  const ModelFacts& facts() const override { return facts_; }
  const ModelWeights& weights() const { return weights_; }
  absl::StatusOr<ForwardOutput> Forward(absl::Span<const SequenceChunk> chunks, FfnMode mode,
                                        KvCache* cache) override;

 private:
  // How a pass over the layers computes their FFNs.
  enum class Prediction : uint8_t { kOff, kUse, kAudit };

  // One token of the step.
  struct Token {
    int32_t chunk;
    int32_t position;
  };

  // One pass over the layers. Audited steps take two.
  ForwardOutput Pass(absl::Span<const SequenceChunk> chunks, FfnMode mode, Prediction prediction,
                     KvCache* cache);
  ForwardOutput AuditedPass(absl::Span<const SequenceChunk> chunks, KvCache* cache);
  bool MayPredict(absl::Span<const SequenceChunk> chunks, FfnMode mode) const;
  void PlanStep(absl::Span<const SequenceChunk> chunks);
  void Embed(absl::Span<const SequenceChunk> chunks);
  void AttentionBlock(const LayerWeights& w, absl::Span<const SequenceChunk> chunks, KvView kv);
  void RotateAndStore(absl::Span<const SequenceChunk> chunks, KvView kv);
  void Attend(absl::Span<const SequenceChunk> chunks, KvView kv);
  void FfnBlock(const LayerWeights& w, int32_t layer, absl::Span<const SequenceChunk> chunks,
                FfnMode mode, Prediction prediction, FfnStepStats* stats);
  absl::Span<const float> Logits(absl::Span<const SequenceChunk> chunks);
  // What a block reads: the residual stream, normalised unless that comes after the block.
  const float* BlockInput(const std::vector<float>& weight, const std::vector<float>& bias);
  // Adds block_out_ to the residual stream, and normalises that if it comes after the block.
  void AddBlock(const std::vector<float>& weight, const std::vector<float>& bias);
  // out[t] = the norm of x[t], for `tokens` tokens; `out` may be `x`.
  void Normalize(const float* x, int64_t tokens, const std::vector<float>& weight,
                 const std::vector<float>& bias, float* out);
  // y [tokens, w.rows] = x [tokens, w.cols] . w^T + bias, split by rows over the threads. `bias`
  // may be empty.
  void Linear(const float* x, int64_t tokens, const RowMatrix& w, const std::vector<float>& bias,
              float* y);

  const ModelConfig config_;
  const ModelWeights weights_;
  const KernelTable* const kernels_;
  ThreadPool* const pool_;
  Ffn ffn_;
  std::vector<GatePredictor> predictors_;  // by layer; empty without
  int64_t predicted_steps_ = 0;
  ModelFacts facts_;
  std::optional<Rotations> rotations_;  // with rotary positions

  // Scratch of one step; T = tokens of the step.
  std::vector<Token> tokens_;             // [T]
  std::vector<float> cos_, sin_;          // [T, head_dim / 2]
  AlignedVector<float> hidden_;           // [T, hidden]: the residual stream
  AlignedVector<float> normed_;           // [T, hidden]
  AlignedVector<float> projected_;        // [T, embedding_size], if that is projected
  AlignedVector<float> qkv_;              // [T, q_dim + 2 * kv_dim]
  AlignedVector<float> attended_;         // [T, q_dim]
  AlignedVector<float> block_out_;        // [T, hidden]: what a block adds to the residual
  Activations activations_;               // what Linear multiplies
  std::vector<AttentionArgs> attention_;  // one call each
  std::vector<AlignedVector<float>> attention_scratch_;  // by thread
  AlignedVector<float> logits_;                          // [logit rows, vocab]
  std::vector<int64_t> active_;                          // [T]: active neurons of one layer
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_TRANSFORMER_MODEL_H_
