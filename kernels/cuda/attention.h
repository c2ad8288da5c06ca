#ifndef LACUNA_KERNELS_CUDA_ATTENTION_H_
#define LACUNA_KERNELS_CUDA_ATTENTION_H_

#include <cstdint>

#include "kernels/base/kernel_table.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/elementwise.h"

namespace lacuna {

// Attention of one layer over the paged cache, after RotateAndStore: token t attends to the
// positions of its sequence up to its own (the last `window` of them, if that is not 0).
// Everything behind pointers is in device memory.
struct CudaAttentionArgs {
  const float* q = nullptr;  // [tokens, heads, head_dim], tokens q_stride floats apart
  int64_t q_stride = 0;
  float* out = nullptr;  // [tokens, heads, head_dim]; zeros for padding
  int64_t tokens = 0;
  int64_t heads = 0;  // a multiple of kv.kv_heads; head h shares key/value head h / group
  TokenPlaces places;
  KvView kv;  // head_dim: a multiple of 8, at most kMaxHeadDim
  int64_t window = 0;
  float scale = 1.0f;  // usually 1 / sqrt(head_dim)
};
inline constexpr int64_t kMaxHeadDim = 256;

// Parts that the context of each token is split into by DecodeAttention: as many as keep the GPU's
// multiprocessors busy with so few tokens, a function of the shapes alone.
int64_t AttentionSplits(int multiprocessors, int64_t tokens, int64_t kv_heads);

// Bytes of `scratch` for DecodeAttention.
int64_t DecodeAttentionScratchBytes(int64_t tokens, int64_t heads, int64_t head_dim,
                                    int64_t splits);

// For few tokens of any sequences and any contexts: decode steps. Each part of a token's context is
// summed up by itself; the parts are combined in ascending order.
void DecodeAttention(CudaStream& stream, const CudaAttentionArgs& args, int64_t splits,
                     std::byte* scratch);

// For chunks of prompts: tokens that follow each other in `args` and belong to one sequence at
// consecutive positions read each key and value once for up to kTileTokens of them.
// tile_begins: [num_tiles + 1], ascending, on the device: tile i is the tokens from tile_begins[i]
// to tile_begins[i + 1] - 1, at most kTileTokens and all of one sequence (an empty tile is nothing
// to do). Tokens outside of all tiles are left alone. Over a bf16 cache, heads of up to 128
// elements take tensor cores, which leave out less than 2^-16 of each query's element and of each
// weight.
inline constexpr int64_t kTileTokens = 16;
void PrefillAttention(CudaStream& stream, const CudaAttentionArgs& args, const int32_t* tile_begins,
                      int64_t num_tiles);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_ATTENTION_H_
