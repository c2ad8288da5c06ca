#ifndef LACUNA_KERNELS_CUDA_SOFTMAX_SUM_CUH_
#define LACUNA_KERNELS_CUDA_SOFTMAX_SUM_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/warp.cuh"

namespace lacuna {

// 8 neighbouring elements of a row of keys or values, as loaded.
template <class T>
struct Elements8;
template <>
struct Elements8<uint16_t> {
  uint4 bits;
  __device__ __forceinline__ void Load(const std::byte* row, int lane) {
    bits = reinterpret_cast<const uint4*>(row)[lane];
  }
  __device__ __forceinline__ void Clear() { bits = make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ void Widen(float (&out)[8]) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[2 * i] = __uint_as_float(words[i] << 16);
      out[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
    }
  }
};
template <>
struct Elements8<float> {
  float4 low, high;
  __device__ __forceinline__ void Load(const std::byte* row, int lane) {
    low = reinterpret_cast<const float4*>(row)[2 * lane];
    high = reinterpret_cast<const float4*>(row)[2 * lane + 1];
  }
  __device__ __forceinline__ void Clear() { low = high = make_float4(0, 0, 0, 0); }
  __device__ __forceinline__ void Widen(float (&out)[8]) const {
    const float all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = all[i];
  }
};

// The attention of up to kQueries query vectors over some positions of one key/value head, computed
// by one warp: for each query the largest score, the sum of the weights 2^(score - largest), and
// the sum of the values by these weights (online softmax, Milakov and Gimelshein, arXiv
// 1805.02867).
//
// kLanes lanes, a row group, share one row of keys or values of type T (float, or uint16_t for
// bf16), 8 elements each: head_dim is a multiple of 8 and at most 8 kLanes. The row groups of the
// warp take different positions, and each has a sum of its own until Combine.
template <class T, int kLanes, int kQueries>
class SoftmaxSum {
 public:
  static constexpr int kRowGroups = 32 / kLanes;
  static constexpr int kUnroll = kQueries > 4 ? 2 : 4;
  static constexpr int kStep = kRowGroups * kUnroll;  // positions of one round of the warp
  struct Shared {
    float values[kQueries][8 * kLanes];
    float weights[kQueries];
    float max[kQueries];
  };

  // query: [head_dim], or null for one that is not there. Scores are `scale` times its products.
  __device__ __forceinline__ void SetQuery(int q, const float* query, int64_t head_dim,
                                           float scale) {
    max_[q] = -INFINITY;
    weights_[q] = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int column = 8 * Lane() + i;
      query_[q][i] = query != nullptr && column < head_dim ? query[column] * scale : 0.0f;
      values_[q][i] = 0.0f;
    }
  }

  // Takes the positions begin + [0, kStep), begin + stride + [0, kStep) ... below `end`, as far as
  // attends(query, position) says. All lanes of the warp call it with the same arguments.
  template <class Attends>
  __device__ __forceinline__ void Add(const KvView& kv, int64_t kv_head, const int32_t* table,
                                      int32_t begin, int32_t end, int32_t stride, Attends attends) {
    const bool has_elements = 8 * Lane() < kv.head_dim;
    for (int32_t p = begin; p < end; p += stride) {
      Elements8<T> keys[kUnroll], values[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int32_t position = p + u * kRowGroups + RowGroup();
        keys[u].Clear();
        values[u].Clear();
        if (position >= end || !has_elements) continue;
        const int64_t row = RowOffset(kv, table, kv_head, position);
        keys[u].Load(kv.keys + row, Lane());
        values[u].Load(kv.values + row, Lane());
      }
      AddRows(keys, values, [&](int q, int u) {
        const int32_t position = p + u * kRowGroups + RowGroup();
        return position < end && attends(q, position);
      });
    }
  }

  // Adds up the row groups' sums, in every one of them. In an order that does not depend on the
  // lane, because the addition of two numbers does not.
  __device__ __forceinline__ void Combine() {
#pragma unroll
    for (int lanes = kLanes; lanes < 32; lanes *= 2) {
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        const float max = fmaxf(max_[q], __shfl_xor_sync(kFullWarp, max_[q], lanes));
        const float scale = Weight(max_[q], max);
        max_[q] = max;
        weights_[q] *= scale;
        weights_[q] += __shfl_xor_sync(kFullWarp, weights_[q], lanes);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          values_[q][i] *= scale;
          values_[q][i] += __shfl_xor_sync(kFullWarp, values_[q][i], lanes);
        }
      }
    }
  }

  // After Combine.
  __device__ __forceinline__ void Store(Shared* to) const {
    if (RowGroup() != 0) return;
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
#pragma unroll
      for (int i = 0; i < 8; ++i) to->values[q][8 * Lane() + i] = values_[q][i];
      if (Lane() == 0) {
        to->weights[q] = weights_[q];
        to->max[q] = max_[q];
      }
    }
  }

 private:
  static __device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kLanes; }
  static __device__ __forceinline__ int RowGroup() {
    return static_cast<int>(threadIdx.x) % 32 / kLanes;
  }

  template <class Attends>
  __device__ __forceinline__ void AddRows(const Elements8<T> (&keys)[kUnroll],
                                          const Elements8<T> (&values)[kUnroll], Attends attends) {
    float scores[kQueries][kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float key[8];
      keys[u].Widen(key);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        float score = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) score = fmaf(query_[q][i], key[i], score);
#pragma unroll
        for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
          score += __shfl_xor_sync(kFullWarp, score, lanes);
        }
        scores[q][u] = attends(q, u) ? score : -INFINITY;
      }
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      float max = max_[q];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) max = fmaxf(max, scores[q][u]);
      const float scale = Weight(max_[q], max);
      max_[q] = max;
      weights_[q] *= scale;
#pragma unroll
      for (int i = 0; i < 8; ++i) values_[q][i] *= scale;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        scores[q][u] = Weight(scores[q][u], max);
        weights_[q] += scores[q][u];
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float value[8];
      values[u].Widen(value);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
#pragma unroll
        for (int i = 0; i < 8; ++i) values_[q][i] = fmaf(scores[q][u], value[i], values_[q][i]);
      }
    }
  }

  float query_[kQueries][8];
  float max_[kQueries], weights_[kQueries], values_[kQueries][8];
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_SOFTMAX_SUM_CUH_
