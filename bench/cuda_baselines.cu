#include <cublas_v2.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/cuda_baselines.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {
namespace {

__device__ __forceinline__ float Bf16At(const std::byte* row, int64_t i) {
  return LowBf16(reinterpret_cast<const uint16_t*>(row)[i]);
}

__global__ void __launch_bounds__(1024) PaperUpKernel(const float* gate, const float* x, RowMatrix up, float* x1) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t j = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (j >= up.rows) return;
  if (gate[j] <= 0.0f) {
    if (lane == 0) x1[j] = 0.0f;
    return;
  }
  const std::byte* const row = up.data + j * up.row_stride;
  const int64_t run = (up.cols + kWarpLanes - 1) / kWarpLanes;
  const int64_t end = min((lane + 1) * run, up.cols);
  float sum[1] = {};
  for (int64_t i = lane * run; i < end; ++i) sum[0] += Bf16At(row, i) * x[i];
  const float dot = WarpSums(sum);
  if (lane == 0) x1[j] = gate[j] * dot;
}

__global__ void __launch_bounds__(1024) PaperDownKernel(const float* x1, RowMatrix down, float* y) {
  __shared__ float sums[kWarpLanes];
  if (threadIdx.y == 0) sums[threadIdx.x] = 0.0f;
  __syncthreads();
  const int64_t column = int64_t{blockIdx.x} * kWarpLanes + threadIdx.x;
  const int64_t share = (down.rows + blockDim.y - 1) / blockDim.y;
  const int64_t end = min((threadIdx.y + 1) * share, down.rows);
  float sum = 0;
  for (int64_t j = threadIdx.y * share; j < end; ++j) {
    const float a = x1[j];
    if (a == 0.0f) continue;
    if (column < down.cols) sum += a * Bf16At(down.data + j * down.row_stride, column);
  }
  atomicAdd(&sums[threadIdx.x], sum);
  __syncthreads();
  if (threadIdx.y == 0 && column < down.cols) y[column] = sums[threadIdx.x];
}

absl::Status CublasStatus(const char* what, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, ": ", cublasGetStatusString(status)));
}

}  // namespace

void PaperUp(CudaStream& stream, const float* gate, const float* x, const RowMatrix& up,
             float* x1) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(up.rows, kWarpLanes)));
  Launch(stream, "PaperUp", PaperUpKernel, grid, dim3(kWarpLanes, kWarpLanes), 0, gate, x, up, x1);
}

void PaperDown(CudaStream& stream, const float* x1, const RowMatrix& down, float* y) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(down.cols, kWarpLanes)));
  Launch(stream, "PaperDown", PaperDownKernel, grid, dim3(kWarpLanes, kWarpLanes), 0, x1, down, y);
}

absl::StatusOr<CublasFfn> CublasFfn::Create(int64_t hidden, int64_t neurons) {
  cublasHandle_t handle = nullptr;
  const absl::Status status = CublasStatus("cublasCreate", cublasCreate(&handle));
  if (!status.ok()) return status;
  CublasFfn ffn(handle, hidden, neurons);
  absl::StatusOr<DeviceBuffer> workspace = DeviceBuffer::Allocate(kWorkspaceBytes);
  if (!workspace.ok()) return workspace.status();
  ffn.workspace_ = *std::move(workspace);
  return ffn;
}

CublasFfn::~CublasFfn() {
  if (handle_ != nullptr) cublasDestroy(static_cast<cublasHandle_t>(handle_));
}

CublasFfn::CublasFfn(CublasFfn&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)),
      hidden_(other.hidden_),
      neurons_(other.neurons_),
      workspace_(std::move(other.workspace_)) {}

void CublasFfn::Run(CudaStream& stream, const std::byte* weights, const std::byte* x,
                    int64_t tokens, std::byte* gate, std::byte* up, std::byte* y) {
  const cublasHandle_t handle = static_cast<cublasHandle_t>(handle_);
  cublasSetStream(handle, stream.get());  // which forgets the workspace
  cublasSetWorkspace(handle, workspace_.data(), workspace_.size());
  // out = in . w^T, with w [rows, cols] row by row: column-major, out^T = w . in^T.
  const auto multiply = [&](const std::byte* w, int64_t rows, int64_t cols, const std::byte* in,
                            std::byte* out) {
    const float one = 1.0f, zero = 0.0f;
    const cublasStatus_t status =
        cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(rows),
                     static_cast<int>(tokens), static_cast<int>(cols), &one, w, CUDA_R_16BF,
                     static_cast<int>(cols), in, CUDA_R_16BF, static_cast<int>(cols), &zero, out,
                     CUDA_R_16BF, static_cast<int>(rows), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) stream.Fail(CublasStatus("cublasGemmEx", status));
  };
  const int64_t matrix_bytes = neurons_ * hidden_ * 2;
  multiply(weights, neurons_, hidden_, x, gate);
  multiply(weights + matrix_bytes, neurons_, hidden_, x, up);
  multiply(weights + 2 * matrix_bytes, hidden_, neurons_, up, y);
}

}  // namespace lacuna
