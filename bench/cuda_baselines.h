#ifndef LACUNA_BENCH_CUDA_BASELINES_H_
#define LACUNA_BENCH_CUDA_BASELINES_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_stream.h"

// What the CUDA kernels are measured against, for bf16 weights. Every pointer is to device memory.
namespace lacuna {

// The three products of a dense FFN by cuBLAS, without what is between them. Movable, not copyable.
class CublasFfn {
 public:
  static absl::StatusOr<CublasFfn> Create(int64_t hidden, int64_t neurons);
  ~CublasFfn();
  CublasFfn(CublasFfn&& other) noexcept;

  // weights: three dense bf16 matrices one after the other, two of [neurons, hidden] and one of
  // [hidden, neurons]. x: bf16 [tokens, hidden]. gate, up: bf16 [tokens, neurons]. y: bf16 [tokens,
  // hidden].
  void Run(CudaStream& stream, const std::byte* weights, const std::byte* x, int64_t tokens,
           std::byte* gate, std::byte* up, std::byte* y);

 private:
  CublasFfn(void* handle, int64_t hidden, int64_t neurons)
      : handle_(handle), hidden_(hidden), neurons_(neurons) {}

  // What NVIDIA recommends for Hopper. An own workspace, since cuBLAS would allocate one within a
  // captured graph.
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  void* handle_;
  int64_t hidden_;
  int64_t neurons_;
  DeviceBuffer workspace_;
};

// The sparse operators of ProSparse (arXiv 2402.13516, section 4.4), written anew from their
// description. One warp for each neuron: x1[j] = gate[j] * (x . up.row(j)) where gate[j] > 0, else
// 0, each lane walking along its own piece of the row. x: float32.
void PaperUp(CudaStream& stream, const float* gate, const float* x, const RowMatrix& up, float* x1);
// One block for 32 columns, whose 32 warps look at all neurons and add up those that are not 0. y
// is overwritten.
void PaperDown(CudaStream& stream, const float* x1, const RowMatrix& down, float* y);

}  // namespace lacuna

#endif  // LACUNA_BENCH_CUDA_BASELINES_H_
