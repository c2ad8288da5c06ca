#ifndef LACUNA_RUNTIME_MODEL_CUDA_MODEL_H_
#define LACUNA_RUNTIME_MODEL_CUDA_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/ffn.h"
#include "runtime/model/cuda_dispatch.h"
#include "runtime/model/cuda_pass.h"
#include "runtime/model/cuda_weights.h"
#include "runtime/model/model.h"

namespace lacuna {

// TransformerModel's counterpart on a GPU. Decode steps of few tokens are captured as a graph for
// each number of tokens (padded to a power of two) and each choice of paths, and replayed; others
// are enqueued kernel by kernel. A step takes one synchronization for every 512 tokens.
class CudaModel : public Model {
 public:
  // Tokens of one pass over the layers; steps of more take several.
  static constexpr int64_t kMaxPassTokens = 512;

  // See MakeCudaModel. Does not calibrate.
  static absl::StatusOr<std::unique_ptr<CudaModel>> Create(const ModelConfig& config,
                                                           ModelWeights weights, int gpu);
  // Device memory that it takes beside the weights, without KV cache.
  static int64_t ScratchBytes(const ModelConfig& config, DType dtype, int multiprocessors);

  // Measures on this GPU what the choice of paths goes by.
  absl::Status Calibrate();

  const ModelConfig& config() const override { return config_; }
  const ModelFacts& facts() const override { return facts_; }
  absl::StatusOr<ForwardOutput> Forward(absl::Span<const SequenceChunk> chunks, FfnMode mode,
                                        KvCache* cache) override;
  absl::StatusOr<std::unique_ptr<KvCache>> CreateKvCache(int32_t num_blocks) const override;
  int64_t AvailableBytes() const override;
  // Graphs captured so far.
  int64_t captures() const { return captures_; }

 private:
  // Arrays in device memory that a pass writes; T = kMaxPassTokens.
  struct Scratch {
    float* hidden;         // [T, hidden]: the residual stream
    float* normed;         // [T, hidden]
    float* projected;      // [T, embedding_size], if that is projected
    float* qkv;            // [T, q_dim + 2 * kv_dim]
    float* attended;       // [T, q_dim]
    float* block_out;      // [T, hidden]: what a block adds to the residual stream
    std::byte* quantized;  // [T]: activations for quantized weights
    std::byte* attention;  // of DecodeAttention
    float* logits;         // [kMaxBucket, vocab]
    int32_t* counts;       // [layers, counts of one layer]: see CountsOf
    float* cos;            // [max_context, head_dim / 2], with rotary positions
    float* sin;
  };
  // Cuts the arrays out of memory at `base`; returns how many bytes they take.
  static int64_t LayOut(const ModelConfig& config, int multiprocessors, std::byte* base,
                        Scratch* scratch);
  // What FFNs count in one pass: by layer [tokens] active, then [groups] each of
  // union_active, negative and union_gates.
  static int64_t CountsOf(int64_t tokens);

  // What weights of some type are multiplied with, in device memory.
  struct Operand {
    const std::byte* data;
    int64_t stride;  // bytes from one token to the next
  };

  CudaModel(const ModelConfig& config, ModelFacts facts, int gpu, int multiprocessors,
            CudaStream stream, CudaWeights weights, CudaFfn ffn);
  absl::Status AllocateScratch();
  absl::Status UploadRotations();
  // The best of some runs of one layer's FFN, warm; counts_ is what the last layer counted.
  absl::StatusOr<double> FfnSeconds(const Operand& x, int64_t tokens, bool sparse);

  // Computes one pass; its logits become the step's rows from first_row on.
  absl::Status RunPass(absl::Span<const CudaPassPart> parts, FfnMode mode, const KvCache& cache,
                       int64_t first_row, FfnStepStats* stats);
  // The graph of a repeatable pass, captured if it is new.
  absl::StatusOr<const CudaGraph*> FindGraph(const CudaPass& pass,
                                             absl::Span<const FfnDecision> decisions,
                                             const KvCache& cache);
  void EnqueuePass(const CudaPass& pass, absl::Span<const FfnDecision> decisions,
                   const KvCache& cache);
  void Embed(int64_t tokens);
  void AttentionBlock(const CudaLayer& w, const CudaPass& pass, const KvView& kv);
  void Attend(const CudaAttentionRun& run, const KvView& kv);
  void FfnBlock(const CudaLayer& w, int64_t tokens, FfnPath path, int32_t* counts);
  // `count` of the pass's rows of logits, from `first` on, into scratch_.logits.
  void EnqueueLogits(int64_t first, int64_t count);
  const float* BlockInput(const CudaNorm& norm, int64_t tokens);
  void AddBlock(const CudaNorm& norm, int64_t tokens);
  void Normalize(const float* x, int64_t tokens, const CudaNorm& norm, float* out);
  // x [tokens, n] for weights of a type; valid until the next one.
  Operand OperandFor(DType weights, const float* x, int64_t tokens, int64_t n);
  // y [tokens, w.rows] = x [tokens, w.cols] . w^T + bias, which may be null.
  void Multiply(const float* x, int64_t tokens, const RowMatrix& w, const float* bias, float* y);
  void AddCounts(absl::Span<const CudaPassPart> parts, int64_t tokens,
                 absl::Span<const FfnDecision> decisions, FfnStepStats* stats);
  absl::Status ReserveLogits(int64_t rows);

  const ModelConfig config_;
  const ModelFacts facts_;
  const int gpu_;
  const int multiprocessors_;
  const int64_t table_stride_;  // blocks of a sequence of max_context
  CudaStream stream_;
  CudaWeights weights_;
  CudaFfn ffn_;
  CudaDispatch dispatch_;
  DeviceBuffer scratch_memory_;
  Scratch scratch_{};
  DeviceBuffer input_memory_;
  PinnedBuffer host_input_memory_;
  CudaPassInputs inputs_, host_inputs_;  // the same on the device and on the host
  PinnedBuffer logits_;                  // [logit rows of a step, vocab]
  PinnedBuffer counts_;                  // as scratch_.counts
  // By tokens and by which layers are sparse; all for one KV cache, known by where it is and how
  // large.
  std::map<std::pair<int64_t, std::vector<bool>>, CudaGraph> graphs_;
  std::pair<const std::byte*, int32_t> graph_cache_{};
  int64_t captures_ = 0;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CUDA_MODEL_H_
