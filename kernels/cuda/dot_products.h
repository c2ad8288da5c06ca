#ifndef LACUNA_KERNELS_CUDA_DOT_PRODUCTS_H_
#define LACUNA_KERNELS_CUDA_DOT_PRODUCTS_H_

#include <cstdint>

#include "kernels/base/activation.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

// Rows to be read: list[0 .. *size), ascending; with a null list, all. Device memory.
struct RowList {
  const int32_t* list = nullptr;
  const int32_t* size = nullptr;
};

// Dot products of tokens with rows of weights: the common core of Linear and of the FFN's gate and
// up steps. Everything behind pointers is in device memory; alignments as Linear asks for.
struct DotProducts {
  const void* x = nullptr;  // [tokens], x_stride bytes apart; as for Linear
  int64_t x_stride = 0;
  int64_t tokens = 0;
  RowMatrix w;
  RowList rows;
  // The result for row r and token t goes to y[r * row_stride + t * token_stride]: the dot product
  // and the bias, if any. With `multiply` it replaces a value there that is not 0 by their product;
  // with `relu` too, after what is negative has become 0.
  float* y = nullptr;
  int64_t row_stride = 0;
  int64_t token_stride = 0;
  const float* bias = nullptr;  // [w.rows]
  bool multiply = false;
  bool relu = false;
};

// By whichever of the two is made for so many tokens and the type.
void ComputeDotProducts(CudaStream& stream, const char* name, const DotProducts& dots);

// A warp for a few rows, on ordinary cores. Any type and any number of tokens, best for up to 4.
void DotRows(CudaStream& stream, const char* name, const DotProducts& dots);

// The gate of one token in one kernel: y = activation(dot product + bias), or 0 if *position < 0
// (position may be null). marks: [CeilDiv(w.rows, 4)], in whose byte r / 4 bit r % 4 says that
// result r is not 0. No list, nothing to multiply.
void DotGate(CudaStream& stream, const DotProducts& dots, Activation activation,
             const int32_t* position, uint8_t* marks);

// A block for 16 rows or more, on tensor cores. Not for f32 weights. Floats are multiplied as the
// sum of two bf16, which leaves out less than 2^-16 of each.
void DotTiles(CudaStream& stream, const char* name, const DotProducts& dots);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_DOT_PRODUCTS_H_
