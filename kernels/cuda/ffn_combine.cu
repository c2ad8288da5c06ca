// The down projection: sums of listed rows, for several tokens at once.
#include <algorithm>

#include "kernels/cuda/ffn_kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kTileChunks = 8;  // of a block of CombineTilesKernel

struct CombineArgs {
  NeuronValues values;
  const std::byte* rows;
  int64_t row_stride;
  RowShape shape;
  RowList list;
  float* partial;  // [splits, tokens, cols]
};

template <int kTokens>
__device__ __forceinline__ void LoadValues(const float* from, float* out) {
  if (kTokens % 4 == 0) {
#pragma unroll
    for (int t = 0; t < kTokens; t += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + t);
      out[t] = v.x;
      out[t + 1] = v.y;
      out[t + 2] = v.z;
      out[t + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) out[t] = from[t];
  }
}

// Block (x, y, z): tokens x * kTokens on, 32 chunks of columns from 32 y on, and part z of the
// list. Its warps take turns with the rows; their sums are added up in the order of the warps.
//
// Bound by the bytes of the rows. A lane has 4 chunks in flight: 16 KiB a block; of one token,
// whose sums take few registers, 6 blocks of 256 threads fit into a multiprocessor, of 8 tokens, 2.
template <DType kType, int kTokens>
__global__ void __launch_bounds__(kThreads) CombineKernel(const CombineArgs args) {
  using Chunk = WeightChunk<kType>;
  constexpr int kElements = Chunk::kElements;
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * kTokens;
  const int first_chunk = static_cast<int>(blockIdx.y * kWarpLanes);
  const int chunk = first_chunk + lane;
  const int64_t n = args.list.list == nullptr ? args.values.neurons : *args.list.size;
  const int64_t begin = n * blockIdx.z / gridDim.z, end = n * (blockIdx.z + 1) / gridDim.z;

  float sums[kTokens][kElements] = {};
  if (chunk < args.shape.chunks) {
#pragma unroll 4
    for (int64_t i = begin + warp; i < end; i += kWarps) {
      const int64_t j = args.list.list == nullptr ? i : args.list.list[i];
      const typename Chunk::Weights w =
          Chunk::Load(args.rows + j * args.row_stride, args.shape, chunk);
      float a[kTokens];
      LoadValues<kTokens>(args.values.values + j * args.values.stride + first_token, a);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) AddChunk<Chunk>(a[t], w, sums[t]);
    }
  }

  // Lane-minor, so that neighbouring lanes meet different banks.
  __shared__ float all[kWarps][kElements][kWarpLanes];
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int e = 0; e < kElements; ++e) all[warp][e][lane] = sums[t][e];
    __syncthreads();
    const int64_t token = first_token + t;
    for (int e = warp; e < kElements; e += kWarps) {
      const int64_t column = Chunk::Column(chunk, e);
      float sum = all[0][e][lane];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) sum += all[w][e][lane];
      if (token < args.values.tokens && chunk < args.shape.chunks && column < args.shape.cols) {
        args.partial[(blockIdx.z * args.values.tokens + token) * args.shape.cols + column] = sum;
      }
    }
    __syncthreads();
  }
}

// The same for tokens x * kTokenTiles * 16 on, and 8 chunks of columns from 8 y on, on tensor
// cores: 16 neurons by 8 columns, times 16 tokens by 16 neurons. With g = lane / 4 and i = lane % 4
// (see MmaBf16) a lane loads chunk g of the neurons 2 i, 2 i + 1, 2 i + 8 and 2 i + 9, and element
// e of each is its part of product e, whose column n is element e of chunk n. Values and weights
// are split into two bf16, of which bf16 weights need one; the product of the two lesser parts is
// left out.
//
// Bound by the bytes of the rows: a lane has 4 chunks in flight, twice as many where the loop is
// unrolled: 32 KiB a block.
template <DType kType, int kTokenTiles>
__global__ void __launch_bounds__(kThreads) CombineTilesKernel(const CombineArgs args) {
  using Chunk = WeightChunk<kType>;
  constexpr int kElements = Chunk::kElements;
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int g = lane / 4, i = lane % 4;
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * kTokenTiles * 16;
  const int first_chunk = static_cast<int>(blockIdx.y) * kTileChunks;
  const bool has_chunk = first_chunk + g < args.shape.chunks;
  const int64_t n = args.list.list == nullptr ? args.values.neurons : *args.list.size;
  const int64_t begin = n * blockIdx.z / gridDim.z, end = n * (blockIdx.z + 1) / gridDim.z;

  float sums[kTokenTiles][kElements][4] = {};
#pragma unroll 2
  for (int64_t first = begin + warp * 16; first < end; first += kWarps * 16) {
    typename Chunk::Weights w[4];
    float values[kTokenTiles][2][4];  // of tokens g and g + 8
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t at = first + 2 * i + k % 2 + k / 2 * 8;
      const int64_t j = at >= end ? -1 : args.list.list == nullptr ? at : args.list.list[at];
      w[k] = j >= 0 && has_chunk
                 ? Chunk::Load(args.rows + j * args.row_stride, args.shape, first_chunk + g)
                 : Chunk::Zero();
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int64_t token = first_token + t * 16 + half * 8 + g;
          values[t][half][k] = j >= 0 && token < args.values.tokens
                                   ? args.values.values[j * args.values.stride + token]
                                   : 0.0f;
        }
      }
    }
    uint32_t high[kTokenTiles][4], low[kTokenTiles][4];
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float* const pair = &values[t][r % 2][r / 2 * 2];
        SplitPair(pair[0], pair[1], &high[t][r], &low[t][r]);
      }
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      uint32_t w_high[2], w_low[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        SplitPair(Chunk::At(w[2 * r], e), Chunk::At(w[2 * r + 1], e), &w_high[r], &w_low[r]);
      }
#pragma unroll
      for (int t = 0; t < kTokenTiles; ++t) {
        MmaBf16(sums[t][e], low[t], w_high);
        if (kType != DType::kBf16) MmaBf16(sums[t][e], high[t], w_low);
        MmaBf16(sums[t][e], high[t], w_high);
      }
    }
  }

  // 4 elements at a time: 16 sums of each lane, of which every warp adds up 2.
  __shared__ float all[kWarps][16][kWarpLanes];
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (int e = 0; e < kElements; e += 4) {
#pragma unroll
      for (int s = 0; s < 16; ++s) all[warp][s][lane] = sums[t][e + s / 4][s % 4];
      __syncthreads();
      for (int s = warp; s < 16; s += kWarps) {
        float sum = all[0][s][lane];
#pragma unroll
        for (int w = 1; w < kWarps; ++w) sum += all[w][s][lane];
        const int chunk = first_chunk + 2 * i + s % 2;
        const int64_t token = first_token + t * 16 + s % 4 / 2 * 8 + g;
        const int64_t column = Chunk::Column(chunk, e + s / 4);
        if (token < args.values.tokens && chunk < args.shape.chunks && column < args.shape.cols) {
          args.partial[(blockIdx.z * args.values.tokens + token) * args.shape.cols + column] = sum;
        }
      }
      __syncthreads();
    }
  }
}

// Parts that the list is split into: 4 blocks for each multiprocessor.
int64_t Splits(int64_t blocks, int multiprocessors) {
  return std::max<int64_t>(1, 4 * multiprocessors / blocks);
}

// Launches a kernel whose blocks take so many chunks and tokens, and adds up their sums.
void Combine(CudaStream& stream, void (*kernel)(CombineArgs), int chunks, int tokens,
             const CombineArgs& args, const float* bias, int multiprocessors, float* y) {
  const int64_t tiles = CeilDiv(args.values.tokens, tokens);
  const int64_t slabs = CeilDiv(args.shape.chunks, chunks);
  const int64_t splits = Splits(tiles * slabs, multiprocessors);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(slabs),
                  static_cast<unsigned>(splits));
  Launch(stream, "CombineRows", kernel, grid, dim3(kThreads), 0, args);
  SumPartials(stream, args.partial, splits, args.values.tokens, args.shape.cols, bias, y);
}

constexpr int kSumWarps = 16;

// A block for 32 columns of a token (x, y). Its warps take turns with the parts, which come from
// the second-level cache.
__global__ void __launch_bounds__(kSumWarps * 32)
    SumPartialsKernel(const float* partial, int64_t parts, int64_t tokens, int64_t cols,
                      const float* bias, float* y) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int64_t column = blockIdx.x * kWarpLanes + lane;
  const int64_t token = blockIdx.y;
  float sum = 0;
  if (column < cols) {
#pragma unroll 4
    for (int64_t p = warp; p < parts; p += kSumWarps) {
      sum += partial[(p * tokens + token) * cols + column];
    }
  }
  __shared__ float sums[kSumWarps][kWarpLanes];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= cols) return;
#pragma unroll
  for (int w = 1; w < kSumWarps; ++w) sum += sums[w][lane];
  y[token * cols + column] = bias == nullptr ? sum : sum + bias[column];
}

}  // namespace

int64_t CombineRowsFloats(DType dtype, int64_t cols, int64_t tokens, int multiprocessors) {
  // A block has kTileChunks chunks of at most 32 tokens, or 4 times as many of at most 8; splits
  // times blocks is at most 4 times the multiprocessors, or there is one split.
  const int64_t slabs = CeilDiv(RowShapeOf(dtype, cols).chunks, kTileChunks);
  return (CeilDiv(4 * multiprocessors, slabs) * 32 + tokens) * cols;
}

void CombineRows(CudaStream& stream, const NeuronValues& values, const RowMatrix& down,
                 RowList rows, const float* bias, int multiprocessors, float* partial, float* y) {
  const CombineArgs args{values, down.data, down.row_stride, RowShapeOf(down.dtype, down.cols),
                         rows,   partial};
  const auto combine = [&](void (*kernel)(CombineArgs), int chunks, int tokens) {
    Combine(stream, kernel, chunks, tokens, args, bias, multiprocessors, y);
  };
  ForWeightType(down.dtype, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    if (values.tokens == 1) {
      combine(CombineKernel<kType, 1>, kWarpLanes, 1);
    } else if (values.tokens == 2) {
      combine(CombineKernel<kType, 2>, kWarpLanes, 2);
    } else if constexpr (kType == DType::kF32) {
      combine(CombineKernel<kType, 8>, kWarpLanes, 8);
    } else if constexpr (kType == DType::kBf16) {
      if (values.tokens <= 16) {
        combine(CombineTilesKernel<kType, 1>, kTileChunks, 16);
      } else {
        combine(CombineTilesKernel<kType, 2>, kTileChunks, 32);
      }
    } else {
      combine(CombineTilesKernel<kType, 1>, kTileChunks, 16);
    }
  });
}

void SumPartials(CudaStream& stream, const float* partial, int64_t parts, int64_t tokens,
                 int64_t cols, const float* bias, float* y) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(cols, kWarpLanes)), static_cast<unsigned>(tokens));
  Launch(stream, "SumPartials", SumPartialsKernel, grid, dim3(kSumWarps * kWarpLanes), 0, partial,
         parts, tokens, cols, bias, y);
}

}  // namespace lacuna
