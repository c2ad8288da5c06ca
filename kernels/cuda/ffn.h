#ifndef LACUNA_KERNELS_CUDA_FFN_H_
#define LACUNA_KERNELS_CUDA_FFN_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/base/activation.h"
#include "kernels/base/row_matrix.h"
#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

struct CudaFfnShape {
  int64_t hidden = 0;
  int64_t neurons = 0;
  int64_t max_tokens = 0;  // of one Run
  DType dtype = DType::kF32;
  Activation activation;
};

// One layer's weights in device memory, laid out as LayerWeights lays them out on the host. Row
// addresses are multiples of 16 bytes.
struct CudaFfnWeights {
  RowMatrix gate;                    // [neurons, hidden]
  RowMatrix up;                      // [neurons, hidden]; empty without a gate
  RowMatrix down;                    // [neurons, hidden], neuron-major
  const float* gate_bias = nullptr;  // [neurons], or null
  const float* down_bias = nullptr;  // [hidden], or null
};

// What Run found, in device memory; overwritten. As Ffn::Run counts on the CPU.
struct CudaFfnCounts {
  int32_t* active = nullptr;  // [tokens]: neurons of each token whose gate (kDRelu: x1) is not 0
  int32_t* union_active = nullptr;  // [1]: neurons active for at least one token
  int32_t* negative = nullptr;      // [1]: (token, neuron) pairs with a gate < 0; 0 without kSilu
  // [1], may be null: neurons whose gate is not 0 for at least one token, so that `up` is read.
  // Only with kDRelu they can be more than union_active.
  int32_t* union_gates = nullptr;
};

// Computes feed-forward layers on the GPU:
//   gate = activation(x . Wgate + bias), x1 = gate * (x . Wup), y = x1 . Wdown + bias
// as Ffn does on the CPU. The gate is computed in full. `sparse` then reads only the rows of `up`
// and `down` that a gate leaves for some token; dense reads all rows, and agrees to rounding.
//
// Run only enqueues, launches the same grids for the same shape and arguments, and can be captured
// in a graph. Scratch memory is the object's: use one stream. Movable, not copyable.
class CudaFfn {
 public:
  static constexpr int64_t kMaxSparseTokens = 64;

  // Allocates the scratch memory. UNIMPLEMENTED for int2 weights.
  static absl::StatusOr<CudaFfn> Create(const CudaFfnShape& shape);
  static int64_t ScratchBytes(const CudaFfnShape& shape, int multiprocessors);

  // x: [tokens], x_stride bytes apart, in the form that weights of this type are multiplied with
  // (see Linear) -> y: float32 [tokens, hidden], overwritten. tokens is in [1, max_tokens], and at
  // most kMaxSparseTokens if `sparse`. A token t with positions[t] < 0 is padding: it has no active
  // neuron, and y[t] is of no use. positions may be null.
  void Run(CudaStream& stream, const CudaFfnWeights& weights, const void* x, int64_t x_stride,
           int64_t tokens, const int32_t* positions, bool sparse, float* y,
           const CudaFfnCounts& counts);

 private:
  CudaFfn(const CudaFfnShape& shape, int multiprocessors, DeviceBuffer scratch);

  CudaFfnShape shape_;
  int multiprocessors_;
  DeviceBuffer scratch_;
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_FFN_H_
