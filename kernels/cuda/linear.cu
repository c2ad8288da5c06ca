#include "kernels/cuda/dot_products.h"
#include "kernels/cuda/linear.h"

namespace lacuna {

void Linear(CudaStream& stream, const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
            const float* bias, float* y, int64_t y_stride) {
  DotProducts dots;
  dots.x = x;
  dots.x_stride = x_stride;
  dots.tokens = tokens;
  dots.w = w;
  dots.y = y;
  dots.row_stride = 1;
  dots.token_stride = y_stride;
  dots.bias = bias;
  ComputeDotProducts(stream, "Linear", dots);
}

void ComputeDotProducts(CudaStream& stream, const char* name, const DotProducts& dots) {
  if (dots.tokens == 0 || dots.w.rows == 0) return;
  if (dots.tokens <= 4 || dots.w.dtype == DType::kF32) {
    DotRows(stream, name, dots);
  } else {
    DotTiles(stream, name, dots);
  }
}

}  // namespace lacuna
