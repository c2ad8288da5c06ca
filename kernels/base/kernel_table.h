#ifndef LACUNA_KERNELS_BASE_KERNEL_TABLE_H_
#define LACUNA_KERNELS_BASE_KERNEL_TABLE_H_

#include <cstdint>

#include "kernels/base/activation.h"
#include "kernels/base/row_matrix.h"

namespace lacuna {

// One paged key/value cache seen from one layer. Positions are grouped in blocks of `block_size`;
// within a block the layout of both keys and values is [kv_heads, block_size, head_dim].
struct KvView {
  std::byte* keys = nullptr;    // [num_blocks, kv_heads, block_size, head_dim] of `type`
  std::byte* values = nullptr;  // [num_blocks, kv_heads, block_size, head_dim] of `type`
  DType type = DType::kF32;     // kF32 or kBf16
  int64_t block_size = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;

  // Offset, in bytes, of one head's vector for a position inside a block. Always inlined, so that
  // the per-ISA sources emit no copy that the linker could share.
  [[gnu::always_inline]] constexpr int64_t Offset(int64_t block, int64_t kv_head,
                                                  int64_t slot) const {
    return ((block * kv_heads + kv_head) * block_size + slot) * RowBytes(type, head_dim);
  }
};

// Attention of consecutive tokens of one sequence: all query heads that share one key/value head.
struct AttentionArgs {
  const float* q = nullptr;  // [tokens, group, head_dim], a token's q_stride floats after another's
  float* out = nullptr;      // [tokens, group, head_dim], by out_stride
  int64_t q_stride = 0;
  int64_t out_stride = 0;
  int64_t tokens = 1;
  int64_t group = 0;    // query heads per key/value head
  int64_t kv_head = 0;  // which key/value head
  // Token t attends to positions first .. context + t - 1.
  int64_t context = 0;
  int64_t first = 0;                     // > 0 with a sliding window
  const int32_t* block_table = nullptr;  // position p lives in block block_table[p / block_size]
  KvView kv;
  float scale = 1.0f;        // usually 1 / sqrt(head_dim)
  float* scratch = nullptr;  // [ScratchFloats()]

  // Floats from one query's scores to the next one's, in whole cache lines: the last may be
  // overwritten up to a vector.
  [[gnu::always_inline]] int64_t ScoreStride() const {
    return CeilDiv(context + tokens - first, 16) * 16 + 16;
  }
  // For scores, queries and sums of all heads.
  [[gnu::always_inline]] int64_t ScratchFloats() const {
    return tokens * group * (ScoreStride() + 2 * kv.head_dim);
  }
};

// What one token takes of a list of rows: the sum over i in [0, n) of a[i] * rows[index[i]].
struct RowCombination {
  const int32_t* index = nullptr;  // ascending, into the list of rows
  const float* a = nullptr;
  int64_t n = 0;
};

// The compute kernels of one instruction set. Plain function pointers, chosen once at start.
//
// Every function is pure, thread-compatible and takes disjoint outputs, so callers split work over
// threads by rows, tokens or columns. For each output element the sequence of floating-point
// operations is fixed by the shapes alone: it does not depend on how many tokens, rows or columns
// one call covers. That is what makes results equal for any batch, chunk, thread count, and for
// the sparse and the dense path. It holds within one ISA, not across ISAs.
//
// Arrays are float32, need no alignment and may have any length >= 0. Rows are of the dtype by
// which the pointer was looked up, laid out as kernels/base/quantized_row.h says. Columns begin at
// multiples of ColumnGrain. Where x is `const void*`, it is float32 for float weights and what
// quantize_activations wrote for quantized weights. int2 rows have dot_rows, linear,
// quantize_weights and widen only.
struct KernelTable {
  const char* isa;  // "generic", "avx2", "avx512", "avx512vnni" or "amx"

  // out[i] = dot(x[0..k), rows[i][0..k)) for i in [0, n). Meanwhile fetches `ahead` rows, which
  // will be needed soon, into the cache; without `ahead` (null), `rows` themselves.
  void (*dot_rows[kNumDTypes])(const void* x, int64_t k, const void* const* rows, int64_t n,
                               const void* const* ahead, int64_t num_ahead, float* out);

  // y[c] += a[0]*rows[0][c] + a[1]*rows[1][c] + ... for c in [col_begin, col_end), added in
  // ascending i, one multiply-add each (fused, except in "generic"). Rows have `cols` elements.
  void (*axpy_rows[kNumDTypes])(const float* a, const void* const* rows, int64_t n, int64_t cols,
                                int64_t col_begin, int64_t col_end, float* y);

  // The same for up to kMaxListTokens tokens that share rows: y[t*y_stride + c] += what tokens[t]
  // takes of rows[0..num_rows). Equal to axpy_rows bit for bit, but a row is read from memory once.
  void (*axpy_lists[kNumDTypes])(const void* const* rows, int64_t num_rows, int64_t cols,
                                 const RowCombination* tokens, int64_t num_tokens,
                                 int64_t col_begin, int64_t col_end, float* y, int64_t y_stride);
  static constexpr int64_t kMaxListTokens = 64;

  // y[t*y_stride + r] = dot(x + t*x_stride bytes, w.row(r)) + (bias ? bias[r] : 0)
  // for t in [0, tokens) and r in [row_begin, row_end). Equal bit for bit to dot_rows.
  void (*linear[kNumDTypes])(const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
                             int64_t row_begin, int64_t row_end, const float* bias, float* y,
                             int64_t y_stride);

  // y[t*y_stride + c] += sum over j in [0, w.rows) of a[t*a_stride + j] * w.row(j)[c], ascending j,
  // for c in [col_begin, col_end): the dense twin of axpy_rows, equal to it bit for bit but for the
  // sign of a zero (adding a zero times a finite weight changes nothing else).
  void (*linear_transposed[kNumDTypes])(const float* a, int64_t a_stride, int64_t tokens,
                                        const RowMatrix& w, int64_t col_begin, int64_t col_end,
                                        float* y, int64_t y_stride);

  // out = x in the form that quantized weights are multiplied with (ActivationBytes), each group
  // scaled by its largest magnitude / 127. A group with a NaN or an infinity gets a NaN
  // scale, so that what depends on it is NaN.
  void (*quantize_activations)(const float* x, int64_t n, void* out);

  // out = a row of weights quantized (RowBytes; null for float types), padding included: int8
  // scaled by the largest magnitude / 127, int4 by that of several scales which gives the least
  // squared error, int2 by nearly the best scale (of the padding, too, which it has no code
  // for). Magnitudes are at most kMaxQuantizable; groups of those below 2e-34 lose precision.
  void (*quantize_weights[kNumDTypes])(const float* row, int64_t n, void* out);
  static constexpr float kMaxQuantizable = 1e15f;  // its square, 64 times, is far from infinity

  // gate[i] = activation(gate[i]) in place for i in [0, n). Writes first_index + i of each result
  // that is not zero to `indices` (room for n + 16), ascending, and returns how many there are.
  // kSilu counts exact zeros as inactive too; kDRelu is kRelu.
  int64_t (*activate)(Activation activation, float* gate, int64_t n, int32_t first_index,
                      int32_t* indices);

  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]. `out` may be `x`.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);

  // out[i] = (x[i] - mean) / sqrt(variance + eps) * weight[i] + bias[i]. `out` may be `x`.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                     float* out);

  // Rotates each of `heads` vectors [head_dim] of x in place, pairing i with i + head_dim/2 (the
  // Hugging Face "rotate half" convention). cos and sin: [head_dim / 2] for this position.
  void (*rope)(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim);

  // softmax(scale * q . k) . v, see AttentionArgs. Positions are visited in ascending order. A
  // token's result is that of the token alone, bit for bit.
  void (*attention)(const AttentionArgs& args);

  // y[i] += scale * x[i].
  void (*add_scaled)(float scale, const float* x, int64_t n, float* y);

  // out[i] = float(row[i]), exactly but for the sign of a zero: a row of an embedding table, say.
  void (*widen[kNumDTypes])(const void* row, int64_t n, float* out);
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_BASE_KERNEL_TABLE_H_
