// The down projection: sums of listed rows, for several tokens at once.
#include <algorithm>

#include "kernels/cuda/ffn_kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpLanes;

struct CombineArgs {
  NeuronValues values;
  const std::byte* rows;
  int64_t row_stride;
  RowShape shape;
  RowList list;
  float* partial;  // [splits, tokens, cols]
};

// How many tokens one block takes: so many that a thread's sums are 64 registers at most.
constexpr int TokensPerBlock(DType dtype) {
  if (dtype == DType::kInt8) return 4;
  return dtype == DType::kInt4 ? 2 : 8;
}

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
      for (int t = 0; t < kTokens; ++t) Chunk::Add(a[t], w, sums[t]);
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

// Parts that the list is split into: 4 blocks for each multiprocessor.
int64_t Splits(const RowShape& shape, int64_t token_tiles, int multiprocessors) {
  const int64_t slabs = CeilDiv(shape.chunks, kWarpLanes);
  return std::max<int64_t>(1, 4 * multiprocessors / (slabs * token_tiles));
}

template <DType kType, int kTokens>
void Combine(CudaStream& stream, const CombineArgs& args, const float* bias, int multiprocessors,
             float* y) {
  const int64_t tiles = CeilDiv(args.values.tokens, kTokens);
  const int64_t splits = Splits(args.shape, tiles, multiprocessors);
  const dim3 grid(static_cast<unsigned>(tiles),
                  static_cast<unsigned>(CeilDiv(args.shape.chunks, kWarpLanes)),
                  static_cast<unsigned>(splits));
  Launch(stream, "CombineRows", CombineKernel<kType, kTokens>, grid, dim3(kThreads), 0, args);
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
  // Splits is largest for one tile; with more, splits * tiles is at most that, or one split.
  const int64_t splits = Splits(RowShapeOf(dtype, cols), 1, multiprocessors);
  return (splits * TokensPerBlock(dtype) + tokens) * cols;
}

void CombineRows(CudaStream& stream, const NeuronValues& values, const RowMatrix& down,
                 RowList rows, const float* bias, int multiprocessors, float* partial, float* y) {
  const CombineArgs args{values, down.data, down.row_stride, RowShapeOf(down.dtype, down.cols),
                         rows,   partial};
  ForWeightType(down.dtype, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    constexpr int kMost = TokensPerBlock(kType);
    if (values.tokens == 1) {
      Combine<kType, 1>(stream, args, bias, multiprocessors, y);
    } else if (values.tokens == 2) {
      Combine<kType, std::min(kMost, 2)>(stream, args, bias, multiprocessors, y);
    } else if (values.tokens <= 4) {
      Combine<kType, std::min(kMost, 4)>(stream, args, bias, multiprocessors, y);
    } else {
      Combine<kType, kMost>(stream, args, bias, multiprocessors, y);
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
