#include "kernels/cuda/dot_output.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

// Tiles of kRowTiles * 16 rows and kTokenTiles * 8 tokens. The warps of a block take turns with the
// parts of the rows, and their sums are added up in the order of the warps.
//
// The index over which a product of tensor cores sums is ours to order, as long as rows and tokens
// agree. So a lane takes the operands of several products from 16 neighbouring bytes of a row, and
// nothing is staged in shared memory. With g = lane / 4 and i = lane % 4 a lane loads parts of the
// rows g and g + 8 of each tile of rows, and of token g of each tile of tokens (MmaBf16, MmaInt8).
//
// Bound by the bytes of the rows for up to about 32 tokens; from then on by the activations, which
// each block reads from the second-level cache. A warp has 2 kRowTiles chunks a lane in flight, and
// twice as many where the loop is unrolled: 8 warps are 16 KiB, times 2 or more blocks.
namespace lacuna {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpLanes;

// The sums that a lane holds of a product: [token tile][row tile][of MmaBf16's d].
template <int kTokenTiles, int kRowTiles>
using Sums = float[kTokenTiles][kRowTiles][4];

template <int kTokenTiles, int kRowTiles>
__device__ __forceinline__ void SumTiles(const RowShape& shape,
                                         const std::byte* const (&rows)[kRowTiles][2],
                                         const std::byte* const (&x)[kTokenTiles],
                                         const std::byte* const (&)[kTokenTiles][2],
                                         Sums<kTokenTiles, kRowTiles>& sums,
                                         std::integral_constant<DType, DType::kBf16>) {
  using Chunk = WeightChunk<DType::kBf16>;
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int part = static_cast<int>(threadIdx.x % 4);
#pragma unroll 2
  for (int first = 4 * warp; first < shape.chunks; first += 4 * kWarps) {
    const int chunk = first + part;
    const bool valid = chunk < shape.chunks;
    typename Chunk::Weights w[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        w[r][half] = valid ? Chunk::Load(rows[r][half], shape, chunk) : Chunk::Zero();
      }
    }
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      typename Chunk::Input in = {};
      if (valid) in = Chunk::LoadInput(x[t], shape, chunk);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        uint32_t high[2], low[2];
        SplitPair(in.x[4 * m], in.x[4 * m + 1], &high[0], &low[0]);
        SplitPair(in.x[4 * m + 2], in.x[4 * m + 3], &high[1], &low[1]);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          const uint32_t a[4] = {w[r][0].pairs[2 * m], w[r][1].pairs[2 * m],
                                 w[r][0].pairs[2 * m + 1], w[r][1].pairs[2 * m + 1]};
          MmaBf16(sums[t][r], a, low);
          MmaBf16(sums[t][r], a, high);
        }
      }
    }
  }
}

__device__ __forceinline__ uint4 LoadOrZero(const std::byte* p, bool valid) {
  return valid ? *reinterpret_cast<const uint4*>(p) : uint4{0, 0, 0, 0};
}

// Quantized rows: a product takes one group, so that its sums are exact, from 8 vectors: lane part
// i has two of them. A block of 16 vectors is two products for each of its 16 groups, of which 4
// share 16 bytes.
template <DType kType, int kTokenTiles, int kRowTiles>
__device__ __forceinline__ void SumTiles(const RowShape& shape,
                                         const std::byte* const (&rows)[kRowTiles][2],
                                         const std::byte* const (&x)[kTokenTiles],
                                         const std::byte* const (&result_tokens)[kTokenTiles][2],
                                         Sums<kTokenTiles, kRowTiles>& sums,
                                         std::integral_constant<DType, kType>) {
  using Chunk = WeightChunk<kType>;
  constexpr bool kInt8 = kType == DType::kInt8;
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int part = static_cast<int>(threadIdx.x % 4);
  const int vectors = shape.chunks / 4 * (kInt8 ? 1 : 2);
  const int quarters = (vectors + 15) / 16 * 4;  // of blocks: 4 groups each
  for (int quarter = warp; quarter < quarters; quarter += kWarps) {
    const int first_vector = quarter / 4 * 16;
    const int at = quarter % 4 * 16;                       // of the 16 bytes in 64
    const int group = quarter / 4 * 16 + quarter % 4 * 4;  // the first of 4
    // [product][which of the lane's two vectors]
    int vector[2][2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        vector[m][v] = first_vector + 8 * m + (kInt8 ? part + 4 * v : 2 * part + v);
      }
    }
    uint4 codes[kRowTiles][2][2][kInt8 ? 2 : 1];  // [tile][half][product][vector]
    uint2 scales[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scales[r][half] = *reinterpret_cast<const uint2*>(rows[r][half] + shape.scales + group * 2);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int v = 0; v < (kInt8 ? 2 : 1); ++v) {
            codes[r][half][m][v] = LoadOrZero(
                rows[r][half] + vector[m][v] / (kInt8 ? 1 : 2) * 64 + at, vector[m][v] < vectors);
          }
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kTokenTiles; ++t) {
      uint4 in[2][2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          in[m][v] = LoadOrZero(x[t] + vector[m][v] * 64 + at, vector[m][v] < vectors);
        }
      }
      // Of the two tokens that the lane has sums of.
      float4 input_scales[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        input_scales[k] =
            *reinterpret_cast<const float4*>(result_tokens[t][k] + shape.input_scales + group * 4);
      }
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          int32_t products[4] = {0, 0, 0, 0};
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            uint32_t a[4];
#pragma unroll
            for (int v = 0; v < 2; ++v) {
#pragma unroll
              for (int half = 0; half < 2; ++half) {
                a[2 * v + half] = static_cast<uint32_t>(
                    Chunk::Codes(WordOf(codes[r][half][m][kInt8 ? v : 0], w), v));
              }
            }
            const uint32_t b[2] = {WordOf(in[m][0], w), WordOf(in[m][1], w)};
            MmaInt8(products, a, b);
          }
#pragma unroll
          for (int d = 0; d < 4; ++d) {
            const uint2& s = scales[r][d / 2];
            const uint32_t pair = w < 2 ? s.x : s.y;
            const float4& in_scale = input_scales[d % 2];
            const float scale = (w % 2 == 0 ? LowBf16(pair) : HighBf16(pair)) * Chunk::kCodeScale *
                                (w == 0   ? in_scale.x
                                 : w == 1 ? in_scale.y
                                 : w == 2 ? in_scale.z
                                          : in_scale.w);
            sums[t][r][d] = fmaf(static_cast<float>(products[d]), scale, sums[t][r][d]);
          }
        }
      }
    }
  }
}

// Block (x, y): the tokens from x * kTokenTiles * 8 on, and the rows of y.
template <DType kType, int kTokenTiles, int kRowTiles>
__global__ void __launch_bounds__(kThreads) DotTilesKernel(const DotArgs args) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int n = args.NumRows();
  const int first = static_cast<int>(blockIdx.y) * kRowTiles * 16;
  const int first_token = static_cast<int>(blockIdx.x) * kTokenTiles * 8;
  if (first >= n) return;

  const std::byte* rows[kRowTiles][2];
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = first + r * 16 + half * 8 + lane / 4;
      rows[r][half] = args.Weights(args.Row(min(i, n - 1)));
    }
  }
  const std::byte* x[kTokenTiles];
  const std::byte* result_tokens[kTokenTiles][2];
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
    x[t] = args.Token(min(first_token + t * 8 + lane / 4, args.tokens - 1));
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      result_tokens[t][k] =
          args.Token(min(first_token + t * 8 + lane % 4 * 2 + k, args.tokens - 1));
    }
  }
  Sums<kTokenTiles, kRowTiles> sums = {};
  SumTiles(args.shape, rows, x, result_tokens, sums, std::integral_constant<DType, kType>());

  __shared__ float of_warps[kWarps][4][kWarpLanes];
#pragma unroll
  for (int t = 0; t < kTokenTiles; ++t) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int d = 0; d < 4; ++d) of_warps[warp][d][lane] = sums[t][r][d];
      __syncthreads();
      if (warp < 4) {  // warp d adds up and stores sum d of all lanes
        float sum = of_warps[0][warp][lane];
#pragma unroll
        for (int w = 1; w < kWarps; ++w) sum += of_warps[w][warp][lane];
        const int i = first + r * 16 + warp / 2 * 8 + lane / 4;
        const int token = first_token + t * 8 + lane % 4 * 2 + warp % 2;
        if (i < n && token < args.tokens) args.Store(args.Row(i), token, sum);
      }
      __syncthreads();
    }
  }
}

template <DType kType, int kTokenTiles, int kRowTiles>
void LaunchDotTiles(CudaStream& stream, const char* name, const DotArgs& args) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(args.tokens, kTokenTiles * 8)),
                  static_cast<unsigned>(CeilDiv(args.dots.w.rows, kRowTiles * 16)));
  Launch(stream, name, DotTilesKernel<kType, kTokenTiles, kRowTiles>, grid, dim3(kThreads), 0,
         args);
}

template <DType kType>
void DotQuantizedTiles(CudaStream& stream, const char* name, const DotArgs& args) {
  if (args.tokens <= 8) {
    LaunchDotTiles<kType, 1, 1>(stream, name, args);
  } else if (args.tokens <= 16) {
    LaunchDotTiles<kType, 2, 1>(stream, name, args);
  } else {
    LaunchDotTiles<kType, 4, 1>(stream, name, args);
  }
}

}  // namespace

void DotTiles(CudaStream& stream, const char* name, const DotProducts& dots) {
  const DotArgs args(dots);
  if (dots.w.dtype == DType::kInt8) return DotQuantizedTiles<DType::kInt8>(stream, name, args);
  if (dots.w.dtype == DType::kInt4) return DotQuantizedTiles<DType::kInt4>(stream, name, args);
  if (args.tokens <= 8) {
    LaunchDotTiles<DType::kBf16, 1, 1>(stream, name, args);
  } else if (args.tokens <= 16) {
    LaunchDotTiles<DType::kBf16, 2, 1>(stream, name, args);
  } else if (args.tokens <= 32) {
    LaunchDotTiles<DType::kBf16, 4, 2>(stream, name, args);
  } else {
    LaunchDotTiles<DType::kBf16, 8, 4>(stream, name, args);
  }
}

}  // namespace lacuna
