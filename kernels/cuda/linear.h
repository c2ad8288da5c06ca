#ifndef LACUNA_KERNELS_CUDA_LINEAR_H_
#define LACUNA_KERNELS_CUDA_LINEAR_H_

#include <cstdint>

#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

// y[t * y_stride + r] = dot(x + t * x_stride bytes, w.row(r)) + (bias ? bias[r] : 0), for t in
// [0, tokens) and r in [0, w.rows). Only enqueues; every pointer is to device memory.
//
// x is what weights of this type are multiplied with (KernelTable): float32, or what
// QuantizeActivations wrote for int8 and int4 weights. x, x_stride, w.data and w.row_stride are
// multiples of 16 bytes; y_stride counts floats. Zero tokens are nothing to do. Any type but int2.
//
// The order of a sum is fixed by the shapes and the number of tokens.
void Linear(CudaStream& stream, const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
            const float* bias, float* y, int64_t y_stride);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_LINEAR_H_
