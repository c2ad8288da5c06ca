#ifndef LACUNA_KERNELS_CUDA_DOT_OUTPUT_CUH_
#define LACUNA_KERNELS_CUDA_DOT_OUTPUT_CUH_

#include "kernels/cuda/dot_products.h"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {

// Parameters of the kernels behind DotProducts.
struct DotArgs {
  explicit DotArgs(const DotProducts& dots)
      : dots(dots),
        shape(RowShapeOf(dots.w.dtype, dots.w.cols)),
        x(static_cast<const std::byte*>(dots.x)),
        tokens(static_cast<int32_t>(dots.tokens)) {}

  DotProducts dots;
  RowShape shape;
  const std::byte* x;
  int32_t tokens;

  __device__ int NumRows() const {
    return dots.rows.list == nullptr ? static_cast<int>(dots.w.rows) : *dots.rows.size;
  }
  // Entry i of the list.
  __device__ int Row(int i) const { return dots.rows.list == nullptr ? i : dots.rows.list[i]; }
  __device__ const std::byte* Weights(int row) const {
    return dots.w.data + row * dots.w.row_stride;
  }
  __device__ const std::byte* Token(int t) const { return x + t * dots.x_stride; }

  __device__ void Store(int row, int token, float dot) const {
    float& y = dots.y[row * dots.row_stride + token * dots.token_stride];
    if (dots.bias != nullptr) dot += dots.bias[row];
    if (dots.relu && dot <= 0.0f) dot = 0.0f;
    if (!dots.multiply) {
      y = dot;
    } else if (y != 0.0f) {
      y *= dot;
    }
  }
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_DOT_OUTPUT_CUH_
