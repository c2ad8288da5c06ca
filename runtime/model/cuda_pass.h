#ifndef LACUNA_RUNTIME_MODEL_CUDA_PASS_H_
#define LACUNA_RUNTIME_MODEL_CUDA_PASS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/model/model.h"

namespace lacuna {

// What the kernels of a pass read, as views of one array of int32: the same offsets in pinned and
// in device memory. Tokens follow each other in the order of the chunks.
struct CudaPassInputs {
  int32_t* ids = nullptr;           // [max_tokens]
  int32_t* positions = nullptr;     // [max_tokens]; -1: padding
  int32_t* sequences = nullptr;     // [max_tokens]: the token's row of block_tables
  int32_t* logit_tokens = nullptr;  // [max_tokens]: those that logits are wanted of, ascending
  int32_t* tile_begins = nullptr;   // [max_tokens + 1]: see PrefillAttention
  int32_t* block_tables = nullptr;  // [max_tokens, table_stride]

  static CudaPassInputs At(int32_t* base, int64_t max_tokens);
  // Elements, with `sequences` rows of block_tables.
  static int64_t Size(int64_t max_tokens, int64_t sequences, int64_t table_stride);
};

// Tokens that one call of an attention kernel takes.
struct CudaAttentionRun {
  int64_t first_token = 0;
  int64_t tokens = 0;
  // Of tile_begins; none: each token is alone in its sequence.
  int64_t first_tile = 0;
  int64_t tiles = 0;
};

// One pass over the layers.
struct CudaPass {
  int64_t tokens = 0;      // with padding
  int64_t sequences = 0;   // rows of block_tables
  int64_t logit_rows = 0;  // with padding, for one that can be repeated
  std::vector<CudaAttentionRun> runs;
  // All of a step's tokens are alone in their sequences and not many: the pass is padded to a
  // bucket, and its kernels are the same for every step of that bucket.
  bool repeatable = false;
};

// Tokens of repeatable passes: 1, 2, 4 ... kMaxBucket.
inline constexpr int64_t kMaxBucket = 64;
inline constexpr int kNumBuckets = 7;
// The smallest bucket that holds `tokens`, in [1, kMaxBucket], as an index: it holds 1 << index.
int BucketIndex(int64_t tokens);

// A chunk, or the part of one that fits into a pass.
struct CudaPassPart {
  SequenceChunk chunk;
  int32_t index = 0;  // of the whole chunk in its step
};

// Cuts the chunks of a step into passes of at most max_tokens tokens, in order.
std::vector<std::vector<CudaPassPart>> CutIntoPasses(absl::Span<const SequenceChunk> chunks,
                                                     int64_t max_tokens);

// Fills `inputs` for one pass.
CudaPass PlanPass(absl::Span<const CudaPassPart> parts, int64_t table_stride,
                  const CudaPassInputs& inputs);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_MODEL_CUDA_PASS_H_
