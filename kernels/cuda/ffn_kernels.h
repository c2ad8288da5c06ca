#ifndef LACUNA_KERNELS_CUDA_FFN_KERNELS_H_
#define LACUNA_KERNELS_CUDA_FFN_KERNELS_H_

#include <cstdint>

#include "kernels/base/activation.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/dot_products.h"

// The steps of CudaFfn. All only enqueue; every pointer is to device memory.
namespace lacuna {

// What a group of tokens takes of each neuron: gate, later x1. Neuron-major, so that one thread has
// all tokens of a neuron side by side.
struct NeuronValues {
  float* values = nullptr;  // [neurons, stride]; 0 from `tokens` on
  int64_t neurons = 0;
  int64_t tokens = 0;
  int64_t stride = 0;  // StrideOf(tokens)

  // Tokens are loaded one, two or 8 at a time.
  static constexpr int64_t StrideOf(int64_t tokens) {
    return tokens <= 2 ? tokens : (tokens + 7) / 8 * 8;
  }
};

// Scratch memory and results of ListActive. A word is 32 neurons.
struct ActiveNeurons {
  uint32_t* words = nullptr;         // [words]: the neurons that are active for any token
  int32_t* word_active = nullptr;    // [words, tokens]: how many are, by token
  int32_t* word_negative = nullptr;  // [words]
  int32_t* list = nullptr;           // [neurons]: the neurons of `words`, ascending
  int32_t* size = nullptr;           // [1]

  static constexpr int64_t Words(int64_t neurons) { return (neurons + 31) / 32; }
};

struct CudaFfnCounts;

// values = activation(values), 0 for tokens t with positions[t] < 0; then lists the neurons that
// are not 0 for some token, and counts as CudaFfn::Run says.
void ActivateAndList(CudaStream& stream, Activation activation, const int32_t* positions,
                     const NeuronValues& values, const ActiveNeurons& active,
                     const CudaFfnCounts& counts);
// Lists and counts anew after values have changed; leaves counts.negative and
// counts.union_gates alone.
void ListAgain(CudaStream& stream, const NeuronValues& values, const ActiveNeurons& active,
               const CudaFfnCounts& counts);

// y[t] = bias + the sum over listed j, in a fixed order, of values[j][t] * down.row(j).
// y: [tokens, down.cols]. partial: CombineRowsFloats floats.
void CombineRows(CudaStream& stream, const NeuronValues& values, const RowMatrix& down,
                 RowList rows, const float* bias, int multiprocessors, float* partial, float* y);
int64_t CombineRowsFloats(DType dtype, int64_t cols, int64_t tokens, int multiprocessors);

// What follows DotGate for one token, in one pass over the active [up | down] bundles, with rows of
// at most kMaxUpDownRowBytes: values[j] *= x . up.row(j) (unless `up` is empty; x as for Linear;
// with `relu`, dot products below 0 count as 0) for the neurons of `marks`, which is 4-byte
// aligned, and y = bias + the sum of values[j] * down.row(j). Counts what is marked;
// counts.negative becomes 0. partial: [multiprocessors, down.cols].
void UpDown(CudaStream& stream, const void* x, const RowMatrix& up, const RowMatrix& down,
            const uint8_t* marks, bool relu, float* values, const float* bias, int multiprocessors,
            float* partial, float* y, const CudaFfnCounts& counts);
inline constexpr int64_t kMaxUpDownRowBytes = 16 * 1024;

// y[t][c] = bias[c] + the sum over p, in a fixed order, of partial[p][t][c]; bias may be null.
void SumPartials(CudaStream& stream, const float* partial, int64_t parts, int64_t tokens,
                 int64_t cols, const float* bias, float* y);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_FFN_KERNELS_H_
