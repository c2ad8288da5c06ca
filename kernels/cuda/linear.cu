#include "kernels/cuda/dot_rows.cuh"
#include "kernels/cuda/linear.h"

namespace lacuna {
namespace {

struct StoreWithBias {
  float* y;
  int64_t y_stride;
  const float* bias;
  int32_t tokens;

  __device__ void operator()(int row, int token, float dot) const {
    if (token >= tokens) return;
    y[token * y_stride + row] = bias == nullptr ? dot : dot + bias[row];
  }
};

}  // namespace

void Linear(CudaStream& stream, const void* x, int64_t x_stride, int64_t tokens, const RowMatrix& w,
            const float* bias, float* y, int64_t y_stride) {
  DotRows(stream, "Linear", w.dtype, MakeDotRowsArgs(x, x_stride, tokens, w),
          StoreWithBias{y, y_stride, bias, static_cast<int32_t>(tokens)});
}

}  // namespace lacuna
