#ifndef LACUNA_KERNELS_CUDA_ELEMENTWISE_H_
#define LACUNA_KERNELS_CUDA_ELEMENTWISE_H_

#include <cstddef>
#include <cstdint>

#include "kernels/base/kernel_table.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_stream.h"

// What a step does token by token. Every function enqueues on `stream`; every pointer (and those
// within RowMatrix and KvView) is to device memory. Activations are float32, one token after the
// other without a gap. Tokens are at most 65,535; none are nothing to do. Sums are in an order that
// the row length alone fixes.
namespace lacuna {

// Where the tokens of a step are, in device memory, so that a graph can be replayed for another
// step. A token whose position is negative is padding of the batch: nothing is stored for it, and
// what is computed for it is defined but of no use.
struct TokenPlaces {
  const int32_t* positions = nullptr;     // [tokens], in its sequence
  const int32_t* sequences = nullptr;     // [tokens], its row of block_tables
  const int32_t* block_tables = nullptr;  // [sequences, block_table_stride]; as AttentionArgs
  int64_t block_table_stride = 0;
};

// out[t] = scale * float(table.row(ids[t])), [tokens, table.cols]. Any type but int2.
void EmbedTokens(CudaStream& stream, const RowMatrix& table, const int32_t* ids, int64_t tokens,
                 float scale, float* out);

// x[t] += float32 table.row(positions[t] + offset), [tokens, table.cols]; nothing for padding.
void AddPositions(CudaStream& stream, const RowMatrix& table, const int32_t* positions,
                  int64_t offset, int64_t tokens, float* x);

// out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight, [tokens, n]. `out` may be `x`.
void RmsNorm(CudaStream& stream, const float* x, const float* weight, float eps, int64_t tokens,
             int64_t n, float* out);

// out[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias, [tokens, n]. `out` may be `x`.
void LayerNorm(CudaStream& stream, const float* x, const float* weight, const float* bias,
               float eps, int64_t tokens, int64_t n, float* out);

// y[i] += scale * x[i] for i in [0, n).
void AddScaled(CudaStream& stream, float scale, const float* x, int64_t n, float* y);

// x[i] *= scale for i in [0, n).
void Scale(CudaStream& stream, float scale, int64_t n, float* x);

// out[i] = x[rows[i]] for i in [0, num_rows), of n elements each: the tokens that logits are wanted
// of.
void GatherRows(CudaStream& stream, const float* x, const int32_t* rows, int64_t num_rows,
                int64_t n, float* out);

// out[t] = x[t] as KernelTable::quantize_activations writes it, byte for byte; out[t + 1] begins
// ActivationBytes(kInt8, n) bytes after out[t].
void QuantizeActivations(CudaStream& stream, const float* x, int64_t tokens, int64_t n,
                         std::byte* out);

// qkv[t]: the queries of all heads, then the keys, then the values of all key/value heads of one
// token, [heads + 2 * kv.kv_heads, kv.head_dim]. Rotates queries and keys in place as
// KernelTable::rope does, with row positions[t] of cos and sin (both [positions, head_dim / 2];
// null for models without rotary positions), and writes keys and values, rounded to kv.type, to
// their places in the cache. head_dim is even; nothing for padding.
void RotateAndStore(CudaStream& stream, const TokenPlaces& places, int64_t tokens, int64_t heads,
                    const float* cos, const float* sin, float* qkv, const KvView& kv);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_ELEMENTWISE_H_
