#ifndef LACUNA_RUNTIME_MODEL_WEIGHTS_H_
#define LACUNA_RUNTIME_MODEL_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/kernel_table.h"
#include "runtime/model/model_config.h"

namespace lacuna {

// The tensors of a decoder, with the shapes in which a WeightSource delivers them.
enum class Tensor : uint8_t {
  kEmbedding,      // [vocab, hidden]
  kLmHead,         // [vocab, hidden]; not asked for if the embeddings are tied
  kFinalNorm,      // [1, hidden]
  kAttentionNorm,  // [1, hidden]
  kFfnNorm,        // [1, hidden]
  kQ,              // [q_dim, hidden]
  kK,              // [kv_dim, hidden]
  kV,              // [kv_dim, hidden]
  kO,              // [hidden, q_dim]
  kGate,           // [ffn, hidden]; of an ungated FFN, its projection in
  kUp,             // [ffn, hidden]; not of an ungated FFN
  kDown,           // [ffn, hidden]: neuron-major, the transpose of what checkpoints store
  // Asked for where the config has them.
  kPositions,   // [max_context + kLearnedPositionOffset, hidden]
  kProjectIn,   // [hidden, embedding_size]
  kProjectOut,  // [embedding_size, hidden]
  kFinalNormBias,
  kAttentionNormBias,
  kFfnNormBias,
  kQBias,
  kKBias,
  kVBias,
  kOBias,
  kGateBias,
  kDownBias,
};

// The value of --weights but for "auto". INVALID_ARGUMENT if it is none.
absl::StatusOr<DType> ParseWeightType(std::string_view name);

// Where weights come from: a checkpoint, or a generator for benchmarks. Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The float type, f32 or bf16, that loses nothing of what is stored, or nearly nothing.
  virtual DType stored_dtype() const = 0;
  // Writes all rows of a tensor as `as`, a float type, row r at out + r * row_stride bytes. `layer`
  // is ignored for tensors that are of no layer.
  virtual absl::Status Read(Tensor tensor, int32_t layer, DType as, std::byte* out,
                            int64_t row_stride) const = 0;
};

struct LayerWeights {
  std::vector<float> attention_norm;  // [hidden]
  std::vector<float> ffn_norm;        // [hidden]
  // Empty where there is none.
  std::vector<float> attention_norm_bias, ffn_norm_bias;  // [hidden]
  std::vector<float> qkv_bias;                            // [q_dim + 2 * kv_dim]
  std::vector<float> o_bias;                              // [hidden]
  std::vector<float> gate_bias;                           // [ffn]
  std::vector<float> down_bias;                           // [hidden]
  RowMatrix qkv;                                          // [q_dim + 2 * kv_dim, hidden]
  RowMatrix o;                                            // [hidden, q_dim]
  RowMatrix gate;                                         // [ffn, hidden], its own stream
  // Neuron j's row of `up` and its row of `down` lie side by side in one bundle, so that an active
  // neuron is one run of bytes. Without a gate there is no `up`.
  RowMatrix up;    // [ffn, hidden]
  RowMatrix down;  // [ffn, hidden]
  // For a GatePredictor, else empty: `gate` in fewer bits, and by how much each row differs (L2
  // norm).
  RowMatrix gate_sketch;            // [ffn, hidden] int2, or int4 beside float weights
  std::vector<float> sketch_error;  // [ffn]
  AlignedBuffer storage;

  // Null where there is none.
  const float* gate_bias_data() const { return gate_bias.empty() ? nullptr : gate_bias.data(); }
  int64_t bytes() const { return qkv.bytes() + o.bytes() + ffn_bytes(); }
  int64_t ffn_bytes() const { return gate.bytes() + up.bytes() + down.bytes(); }
};

// Fills the rows of gate_sketch, which the caller has laid out, and sketch_error from `gate`.
void SketchGate(const KernelTable& kernels, LayerWeights* weights);

// All weights of a model in the layout that the kernels read. Immutable after Load.
struct ModelWeights {
  RowMatrix embedding;  // [vocab, embedding_size]
  RowMatrix lm_head;    // [vocab, embedding_size]; the same memory as `embedding` if tied
  // Empty where there is none.
  RowMatrix project_in;                            // [hidden, embedding_size]
  RowMatrix project_out;                           // [embedding_size, hidden]
  RowMatrix positions;                             // [max_context + offset, hidden], f32
  std::vector<float> final_norm, final_norm_bias;  // [hidden]
  std::vector<LayerWeights> layers;
  std::vector<AlignedBuffer> storage;  // of all but the layers

  int64_t parameters() const;
  int64_t bytes() const;
  // Bytes that one dense decode step of one token reads.
  int64_t step_bytes() const;
  // Of those, the FFNs'.
  int64_t ffn_bytes() const;

  // What bytes() will be; and the most that Load takes while it quantizes for so many threads.
  static int64_t BytesFor(const ModelConfig& config, DType dtype, bool sketch);
  static int64_t LoadingBytes(const ModelConfig& config, const WeightSource& source, DType dtype,
                              bool sketch, int threads);

  // Reads tensor by tensor, layer by layer, on twice as many threads of its own as `threads`, those
  // that compute; int8 and int4 weights are quantized on the way. With `sketch`, makes sketches of
  // the gates too.
  // `progress` is called on the calling thread with growing shares in [0, 1], at last 1; may be
  // empty. First error wins. RESOURCE_EXHAUSTED, before anything is read, if the machine has less
  // memory available than LoadingBytes.
  static absl::StatusOr<ModelWeights> Load(const ModelConfig& config, const WeightSource& source,
                                           DType dtype, bool sketch, const KernelTable& kernels,
                                           int threads,
                                           const std::function<void(double)>& progress);
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_WEIGHTS_H_
