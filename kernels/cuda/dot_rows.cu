#include <algorithm>

#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/dot_output.cuh"
#include "kernels/cuda/launch.cuh"

namespace lacuna {
namespace {

constexpr int kThreads = 256;

// What DotGate adds.
struct GateArgs {
  Activation activation;
  const int32_t* position = nullptr;
  uint8_t* marks = nullptr;
};

// A warp takes kRows rows at a time. Block (x, y) has the tokens from x * kTokens on, and blocks y
// take turns with the rows: blocks that share rows run at about the same time.
//
// Bound by the bytes of the rows: a multiprocessor of an H100 gets 14.5 of them per clock, for
// which it does 7.3 kTokens multiply-adds (bf16) of 128 possible. A lane has kRows chunks and,
// unrolled, twice as many in flight: 256 threads with kRows = 4 are 32 KiB, and two or more blocks
// fit.
template <DType kType, int kTokens, int kRows, bool kGate>
__global__ void __launch_bounds__(kThreads) DotRowsKernel(const DotArgs args, const GateArgs gate) {
  static_assert(!kGate || (kTokens == 1 && kRows == 4), "a byte of marks for each warp");
  using Chunk = WeightChunk<kType>;
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>((blockIdx.y * kThreads + threadIdx.x) / kWarpLanes);
  const int warps = static_cast<int>(gridDim.y) * (kThreads / kWarpLanes);
  const int first_token = static_cast<int>(blockIdx.x) * kTokens;
  const int n = args.NumRows();

  const std::byte* x[kTokens];
#pragma unroll
  for (int t = 0; t < kTokens; ++t) x[t] = args.Token(min(first_token + t, args.tokens - 1));
  for (int first = warp * kRows; first < n; first += warps * kRows) {
    const std::byte* rows[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) rows[r] = args.Weights(args.Row(min(first + r, n - 1)));
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
    const int r = lane / kLanesPerSum / kTokens, t = first_token + lane / kLanesPerSum % kTokens;
    const bool stores = lane % kLanesPerSum == 0 && first + r < n && t < args.tokens;
    if (kGate) {
      const bool is_padding = gate.position != nullptr && *gate.position < 0;
      float value = 0.0f;
      if (stores && !is_padding) {
        const float bias = args.dots.bias == nullptr ? 0.0f : args.dots.bias[first + r];
        value = Activate(gate.activation, sum + bias);
      }
      if (stores) args.dots.y[(first + r) * args.dots.row_stride] = value;
      const uint32_t active = __ballot_sync(kFullWarp, value != 0.0f);  // in every eighth bit
      if (lane == 0) {
        gate.marks[first / 4] =
            static_cast<uint8_t>((active | active >> 7 | active >> 14 | active >> 21) & 15);
      }
    } else if (stores) {
      args.Store(args.Row(first + r), t, sum);
    }
  }
}

template <DType kType, int kTokens, int kRows, bool kGate = false>
void LaunchDotRows(CudaStream& stream, const char* name, const DotArgs& args,
                   const GateArgs& gate = {}) {
  // So many blocks keep all multiprocessors busy until the end.
  constexpr int64_t kMaxBlocks = 4096;
  constexpr int64_t kRowsPerBlock = kThreads / kWarpLanes * kRows;
  const dim3 grid(
      static_cast<unsigned>(CeilDiv(args.tokens, kTokens)),
      static_cast<unsigned>(std::min(CeilDiv(args.dots.w.rows, kRowsPerBlock), kMaxBlocks)));
  Launch(stream, name, DotRowsKernel<kType, kTokens, kRows, kGate>, grid, dim3(kThreads), 0, args,
         gate);
}

}  // namespace

void DotGate(CudaStream& stream, const DotProducts& dots, Activation activation,
             const int32_t* position, uint8_t* marks) {
  ForWeightType(dots.w.dtype, [&](auto type) {
    LaunchDotRows<decltype(type)::value, 1, 4, true>(stream, "Gate", DotArgs(dots),
                                                     {activation, position, marks});
  });
}

void DotRows(CudaStream& stream, const char* name, const DotProducts& dots) {
  const DotArgs args(dots);
  ForWeightType(dots.w.dtype, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    if (args.tokens == 1) {
      LaunchDotRows<kType, 1, 4>(stream, name, args);
    } else if (args.tokens == 2) {
      LaunchDotRows<kType, 2, 4>(stream, name, args);
    } else if (args.tokens <= 4) {
      LaunchDotRows<kType, 4, 4>(stream, name, args);
    } else {
      LaunchDotRows<kType, 8, 2>(stream, name, args);
    }
  });
}

}  // namespace lacuna
