// Activations, and the list of the neurons that they leave, without a word to the host.
#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/ffn.h"
#include "kernels/cuda/ffn_kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {
namespace {

constexpr int kThreads = 256;
constexpr int kWordsPerBlock = kThreads / kWarpLanes;

// A thread for each neuron. Bound by the latency of its loads: all values are 44 KiB per token of a
// LLaMA2-7B layer, in the second-level cache.
template <bool kActivate>
__global__ void __launch_bounds__(kThreads)
    MarkActiveKernel(Activation activation, const int32_t* positions, NeuronValues values,
                     ActiveNeurons active) {
  const int64_t j = blockIdx.x * kThreads + threadIdx.x;
  const int64_t word = j / kWarpLanes;
  const bool first_lane = threadIdx.x % kWarpLanes == 0 && j < values.neurons;
  float* const mine = values.values + j * values.stride;
  bool any = false;
  int negative = 0;
  for (int64_t t = 0; t < values.stride; ++t) {
    const bool counts = t < values.tokens && (positions == nullptr || positions[t] >= 0);
    float value = counts && j < values.neurons ? mine[t] : 0.0f;
    if (kActivate) {
      if (activation.kind == ActivationKind::kSilu) {
        negative += __popc(__ballot_sync(kFullWarp, value < 0.0f));
      }
      value = Activate(activation, value);
      if (j < values.neurons) mine[t] = value;
    }
    const uint32_t lanes = __ballot_sync(kFullWarp, value != 0.0f);
    any = any || value != 0.0f;
    if (first_lane && t < values.tokens) {
      active.word_active[word * values.tokens + t] = __popc(lanes);
    }
  }
  const uint32_t lanes = __ballot_sync(kFullWarp, any);
  if (first_lane) {
    active.words[word] = lanes;
    if (kActivate) active.word_negative[word] = negative;
  }
}

__device__ __forceinline__ int WarpSum(int value) {
#pragma unroll
  for (int step = kWarpLanes / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, step);
  }
  return value;
}

// The sum of values[i * stride] for i in [0, n), to all lanes of a warp.
__device__ __forceinline__ int WarpSumOf(const int32_t* values, int64_t n, int64_t stride) {
  int sum = 0;
  for (int64_t i = threadIdx.x % kWarpLanes; i < n; i += kWarpLanes) sum += values[i * stride];
  return WarpSum(sum);
}

// A thread for each neuron writes it where the neurons before it leave off. Bound by latency.
__global__ void __launch_bounds__(kThreads)
    ListKernel(NeuronValues values, ActiveNeurons active, CudaFfnCounts counts, bool gates) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int words = static_cast<int>((values.neurons + kWarpLanes - 1) / kWarpLanes);
  const int word = static_cast<int>(blockIdx.x) * kWordsPerBlock + warp;

  // Each warp sums up its share of the words before the block's, and its own one.
  __shared__ int before_block[kWordsPerBlock];
  __shared__ int in_word[kWordsPerBlock];
  int sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(blockIdx.x) * kWordsPerBlock;
       i += kThreads) {
    sum += __popc(active.words[i]);
  }
  sum = WarpSum(sum);
  const uint32_t bits = word < words ? active.words[word] : 0;
  if (lane == 0) {
    before_block[warp] = sum;
    in_word[warp] = __popc(bits);
  }
  __syncthreads();
  int position = 0;
  for (int w = 0; w < kWordsPerBlock; ++w) {
    position += before_block[w] + (w < warp ? in_word[w] : 0);
  }
  if (bits >> lane & 1) {
    active.list[position + __popc(bits & ((1u << lane) - 1))] = word * kWarpLanes + lane;
  }
  if (word == words - 1 && lane == 0) {
    const int size = position + __popc(bits);
    *active.size = *counts.union_active = size;
    if (gates && counts.union_gates != nullptr) *counts.union_gates = size;
  }

  const int all_warps = static_cast<int>(gridDim.x) * kWordsPerBlock;
  for (int64_t t = word; t < values.tokens; t += all_warps) {
    const int total = WarpSumOf(active.word_active + t, words, values.tokens);
    if (lane == 0) counts.active[t] = total;
  }
  if (gates && word == all_warps - 1) {
    const int total = WarpSumOf(active.word_negative, words, 1);
    if (lane == 0) *counts.negative = total;
  }
}

template <bool kActivate>
void MarkAndList(CudaStream& stream, Activation activation, const int32_t* positions,
                 const NeuronValues& values, const ActiveNeurons& active,
                 const CudaFfnCounts& counts) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(values.neurons, kThreads)));
  Launch(stream, "MarkActive", MarkActiveKernel<kActivate>, grid, dim3(kThreads), 0, activation,
         positions, values, active);
  Launch(stream, "ListActive", ListKernel, grid, dim3(kThreads), 0, values, active, counts,
         kActivate);
}

}  // namespace

void ActivateAndList(CudaStream& stream, Activation activation, const int32_t* positions,
                     const NeuronValues& values, const ActiveNeurons& active,
                     const CudaFfnCounts& counts) {
  MarkAndList<true>(stream, activation, positions, values, active, counts);
}

void ListAgain(CudaStream& stream, const NeuronValues& values, const ActiveNeurons& active,
               const CudaFfnCounts& counts) {
  MarkAndList<false>(stream, Activation(), nullptr, values, active, counts);
}

}  // namespace lacuna
