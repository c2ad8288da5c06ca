#ifndef LACUNA_KERNELS_CUDA_ATTENTION_TILE_CUH_
#define LACUNA_KERNELS_CUDA_ATTENTION_TILE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {

// The attention of 16 tokens' queries of one head over some positions of a bf16 cache, computed by
// one warp on tensor cores, with an online softmax (as SoftmaxSum). head_dim is a multiple of 8 and
// at most 64 k64s. Queries and weights, which are floats, are the sum of two bf16, and multiplied
// twice: what is left out is below 2^-16 of each (SplitPair).
//
// The indices that a product of tensor cores sums over, and the order of its columns, are ours to
// choose. So every lane loads 16 neighbouring bytes of keys and values and uses them as they are;
// nothing goes through shared memory. With g = lane / 4 and i = lane % 4 (MmaBf16) a lane has
//   queries: rows g and g + 8; of each 32 elements of a head, elements 8 i .. 8 i + 7
//   keys: position g of 8; the same elements
//   scores and weights: rows g and g + 8, positions 2 i and 2 i + 1 of 8
//   values: positions 2 i, 2 i + 1 of each 8 of 16; of each 64 elements, elements 8 g .. 8 g + 7
//   sums: rows g and g + 8; of each 64 elements, elements 16 i .. 16 i + 15
template <int k64s>
class AttentionTile {
 public:
  static constexpr int kPositions = 16;  // of one step
  struct Shared {
    float sums[16][64 * k64s];
    float max[16], weights[16];
  };

  // query(row): [head_dim], or null for a row that is not there. Scores are `scale` times products.
  template <class Query>
  __device__ __forceinline__ AttentionTile(Query query, int64_t head_dim, float scale) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* const from = query(Group() + 8 * half);
      max_[half] = -INFINITY;
      weights_[half] = 0.0f;
#pragma unroll
      for (int k = 0; k < 2 * k64s; ++k) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const int at = 32 * k + 8 * Part() + 2 * w;
          const bool there = from != nullptr && at < head_dim;
          // Words 2 m and 2 m + 1 are for product m.
          SplitPair(there ? from[at] * scale : 0.0f, there ? from[at + 1] * scale : 0.0f,
                    &high_[k][w / 2][half + w % 2 * 2], &low_[k][w / 2][half + w % 2 * 2]);
        }
      }
#pragma unroll
      for (int k = 0; k < k64s; ++k) {
#pragma unroll
        for (int j = 0; j < 8; ++j) sums_[k][j][2 * half] = sums_[k][j][2 * half + 1] = 0.0f;
      }
    }
  }

  // Takes the positions begin + [0, kPositions), begin + stride + [0, kPositions) ... below `end`,
  // as far as ranges[half] of rows g + 8 half say. All lanes call it with the same arguments but
  // `ranges`.
  __device__ __forceinline__ void Add(const KvView& kv, int64_t kv_head, const int32_t* table,
                                      int32_t begin, int32_t end, int32_t stride,
                                      const AttendedRange (&ranges)[2]) {
    for (int32_t p = begin; p < end; p += stride) {
      uint4 keys[2][2 * k64s], values[2][2][k64s];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        LoadRow<2 * k64s>(kv.keys, kv, kv_head, table, p + 8 * t + Group(), end, 8 * Part(), 32,
                          keys[t]);
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          LoadRow<k64s>(kv.values, kv, kv_head, table, p + 8 * t + 2 * Part() + odd, end,
                        8 * Group(), 64, values[t][odd]);
        }
      }
      float scores[2][4];
      Score(keys, scores);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const int32_t position = p + 8 * t + 2 * Part() + r % 2;
          const AttendedRange range = ranges[r / 2];
          if (position < range.first || position >= range.end) scores[t][r] = -INFINITY;
        }
      }
      Reweigh(scores);
      AddValues(scores, values);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      weights_[half] += __shfl_xor_sync(kFullWarp, weights_[half], 1);
      weights_[half] += __shfl_xor_sync(kFullWarp, weights_[half], 2);
    }
  }

  // After Add: hands the sums to another warp, which adds them to its own.
  __device__ __forceinline__ void Store(Shared* to) const {
    ForSums([&](int row, int element, float value, float) { to->sums[row][element] = value; });
    if (Part() != 0) return;  // four lanes have the same of these
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      to->weights[Group() + 8 * half] = weights_[half];
      to->max[Group() + 8 * half] = max_[half];
    }
  }
  __device__ __forceinline__ void Merge(const Shared& other) {
    float scale[2], other_scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Group() + 8 * half;
      const float max = fmaxf(max_[half], other.max[row]);
      scale[half] = Weight(max_[half], max);
      other_scale[half] = Weight(other.max[row], max);
      max_[half] = max;
      weights_[half] = weights_[half] * scale[half] + other.weights[row] * other_scale[half];
    }
#pragma unroll
    for (int k = 0; k < k64s; ++k) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float value = other.sums[Group() + r / 2 * 8][Element(k, j, r % 2)];
          sums_[k][j][r] = sums_[k][j][r] * scale[r / 2] + value * other_scale[r / 2];
        }
      }
    }
  }

  // Calls f(row, element, sum, weights) for all sums of the lane, after Add. element is below
  // 64 k64s.
  template <class Function>
  __device__ __forceinline__ void ForSums(Function f) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int k = 0; k < k64s; ++k) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            f(Group() + 8 * half, Element(k, j, odd), sums_[k][j][2 * half + odd], weights_[half]);
          }
        }
      }
    }
  }

  static __device__ __forceinline__ int Group() { return static_cast<int>(threadIdx.x) % 32 / 4; }

 private:
  static __device__ __forceinline__ int Part() { return static_cast<int>(threadIdx.x) % 4; }
  // Which element of a head sums_[k][j] is of, in the even or odd column.
  static __device__ __forceinline__ int Element(int k, int j, int odd) {
    return 64 * k + 16 * Part() + 8 * odd + j;
  }

  // 8 elements from `first` on, and kCount - 1 times `step` elements later, of a key or value;
  // zeros beyond the head and for positions from `end` on.
  template <int kCount>
  static __device__ __forceinline__ void LoadRow(const std::byte* data, const KvView& kv,
                                                 int64_t kv_head, const int32_t* table,
                                                 int32_t position, int32_t end, int first, int step,
                                                 uint4 (&out)[kCount]) {
    const std::byte* const row =
        position < end ? data + RowOffset(kv, table, kv_head, position) : nullptr;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const int at = first + k * step;
      out[k] = row != nullptr && at < kv.head_dim ? *reinterpret_cast<const uint4*>(row + 2 * at)
                                                  : make_uint4(0, 0, 0, 0);
    }
  }

  __device__ __forceinline__ void Score(const uint4 (&keys)[2][2 * k64s], float (&scores)[2][4]) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      scores[t][0] = scores[t][1] = scores[t][2] = scores[t][3] = 0.0f;
#pragma unroll
      for (int k = 0; k < 2 * k64s; ++k) {
        const uint32_t b[2][2] = {{keys[t][k].x, keys[t][k].y}, {keys[t][k].z, keys[t][k].w}};
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          MmaBf16(scores[t], low_[k][m], b[m]);
          MmaBf16(scores[t], high_[k][m], b[m]);
        }
      }
    }
  }

  // Turns scores into weights, and gives what has been summed up so far its new weight.
  __device__ __forceinline__ void Reweigh(float (&scores)[2][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float max = max_[half];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        max = fmaxf(max, fmaxf(scores[t][2 * half], scores[t][2 * half + 1]));
      }
      max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 1));
      max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 2));
      const float scale = Weight(max_[half], max);
      max_[half] = max;
      weights_[half] *= scale;
#pragma unroll
      for (int k = 0; k < k64s; ++k) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          sums_[k][j][2 * half] *= scale;
          sums_[k][j][2 * half + 1] *= scale;
        }
      }
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int r = 2 * half; r < 2 * half + 2; ++r) {
          scores[t][r] = Weight(scores[t][r], max);
          weights_[half] += scores[t][r];
        }
      }
    }
  }

  __device__ __forceinline__ void AddValues(const float (&weights)[2][4],
                                            const uint4 (&values)[2][2][k64s]) {
    uint32_t high[4], low[4];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        SplitPair(weights[t][2 * half], weights[t][2 * half + 1], &high[2 * t + half],
                  &low[2 * t + half]);
      }
    }
#pragma unroll
    for (int k = 0; k < k64s; ++k) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        // Element j of the position 2 i in the low half, of 2 i + 1 in the high half.
        const uint32_t selector = j % 2 == 0 ? 0x5410 : 0x7632;
        uint32_t b[2];
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          b[t] = __byte_perm(Word(values[t][0][k], j / 2), Word(values[t][1][k], j / 2), selector);
        }
        MmaBf16(sums_[k][j], low, b);
        MmaBf16(sums_[k][j], high, b);
      }
    }
  }

  static __device__ __forceinline__ uint32_t Word(const uint4& words, int i) {
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
  }

  uint32_t high_[2 * k64s][2][4], low_[2 * k64s][2][4];  // of the queries, for MmaBf16
  float max_[2], weights_[2];                            // of rows g and g + 8
  float sums_[k64s][8][4];                               // [64 elements][j]: MmaBf16's d
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_ATTENTION_TILE_CUH_
