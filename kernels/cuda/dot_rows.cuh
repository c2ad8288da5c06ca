#ifndef LACUNA_KERNELS_CUDA_DOT_ROWS_CUH_
#define LACUNA_KERNELS_CUDA_DOT_ROWS_CUH_

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_chunk.cuh"

// Dot products of a few tokens with rows of weights, all of a matrix or those of a list.
namespace lacuna {

struct DotRowsArgs {
  const std::byte* x;  // [tokens], x_stride bytes apart
  int64_t x_stride;
  int32_t tokens;
  const std::byte* rows;
  int64_t row_stride;
  RowShape shape;
  // Which rows: list[0 .. *list_size), or with a null list all of [0, num_rows).
  const int32_t* list;
  const int32_t* list_size;
  int32_t num_rows;
};

inline DotRowsArgs MakeDotRowsArgs(const void* x, int64_t x_stride, int64_t tokens,
                                   const RowMatrix& w) {
  return {static_cast<const std::byte*>(x),
          x_stride,
          static_cast<int32_t>(tokens),
          w.data,
          w.row_stride,
          RowShapeOf(w.dtype, w.cols),
          nullptr,
          nullptr,
          static_cast<int32_t>(w.rows)};
}

inline constexpr int kDotRowsThreads = 256;

// Calls epilogue(row, token, dot) for each row and token; tokens from args.tokens on may come too,
// with any dot. The grid has in y a warp, or fewer, for each kRows rows, and in x a block for each
// kTokens tokens: blocks that share rows run at about the same time.
//
// Bound by the bytes of the rows: a multiprocessor of an H100 gets 14.5 of them per clock, for
// which it does 7.3 kTokens multiply-adds (bf16) of 128 possible. A lane has kRows chunks and,
// unrolled, twice as many in flight: 256 threads with kRows = 4 are 32 KiB, and two or more blocks
// fit.
template <DType kType, int kTokens, int kRows, class Epilogue>
__global__ void __launch_bounds__(kDotRowsThreads)
    DotRowsKernel(const DotRowsArgs args, const Epilogue epilogue) {
  using Chunk = WeightChunk<kType>;
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>((blockIdx.y * blockDim.x + threadIdx.x) / kWarpLanes);
  const int warps = static_cast<int>(gridDim.y * blockDim.x / kWarpLanes);
  const int first_token = static_cast<int>(blockIdx.x) * kTokens;
  const int n = args.list == nullptr ? args.num_rows : *args.list_size;

  const std::byte* x[kTokens];
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    x[t] = args.x + min(first_token + t, args.tokens - 1) * args.x_stride;
  }
  for (int first = warp * kRows; first < n; first += warps * kRows) {
    const std::byte* rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = min(first + r, n - 1);
      rows[r] = args.rows + (args.list == nullptr ? i : args.list[i]) * args.row_stride;
    }
    float sums[kRows * kTokens] = {};
#pragma unroll 2
    for (int chunk = lane; chunk < args.shape.chunks; chunk += kWarpLanes) {
      typename Chunk::Weights w[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) w[r] = Chunk::Load(rows[r], args.shape, chunk);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const typename Chunk::Input in = Chunk::LoadInput(x[t], args.shape, chunk);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          sums[r * kTokens + t] = Chunk::Dot(w[r], in, sums[r * kTokens + t]);
        }
      }
    }
    const float sum = WarpSums(sums);
    constexpr int kLanesPerSum = kWarpLanes / (kRows * kTokens);
    const int r = lane / kLanesPerSum / kTokens, t = lane / kLanesPerSum % kTokens;
    if (lane % kLanesPerSum == 0 && first + r < n) {
      epilogue(args.list == nullptr ? first + r : args.list[first + r], first_token + t, sum);
    }
  }
}

template <DType kType, int kTokens, int kRows, class Epilogue>
void LaunchDotRows(CudaStream& stream, const char* name, const DotRowsArgs& args,
                   const Epilogue& epilogue) {
  // So many blocks keep all multiprocessors busy until the end.
  constexpr int64_t kMaxBlocks = 4096;
  constexpr int64_t kRowsPerBlock = kDotRowsThreads / kWarpLanes * kRows;
  const dim3 grid(
      static_cast<unsigned>(CeilDiv(args.tokens, kTokens)),
      static_cast<unsigned>(std::min<int64_t>(CeilDiv(args.num_rows, kRowsPerBlock), kMaxBlocks)));
  Launch(stream, name, DotRowsKernel<kType, kTokens, kRows, Epilogue>, grid, dim3(kDotRowsThreads),
         0, args, epilogue);
}

// DotRowsKernel for any type and any number of tokens.
template <class Epilogue>
void DotRows(CudaStream& stream, const char* name, DType dtype, const DotRowsArgs& args,
             const Epilogue& epilogue) {
  if (args.num_rows == 0 || args.tokens == 0) return;
  ForWeightType(dtype, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    if (args.tokens == 1) {
      LaunchDotRows<kType, 1, 4>(stream, name, args, epilogue);
    } else if (args.tokens == 2) {
      LaunchDotRows<kType, 2, 4>(stream, name, args, epilogue);
    } else if (args.tokens <= 4) {
      LaunchDotRows<kType, 4, 4>(stream, name, args, epilogue);
    } else {
      LaunchDotRows<kType, 8, 2>(stream, name, args, epilogue);
    }
  });
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_DOT_ROWS_CUH_
