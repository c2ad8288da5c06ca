// The FFN of one token behind the gate, in one pass over the active [up | down] bundles.
#include <algorithm>

#include "kernels/cuda/ffn.h"
#include "kernels/cuda/ffn_kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/weight_chunk.cuh"

namespace lacuna {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kMaxWarps = kMaxThreads / kWarpLanes;

// Neurons that a group takes at once: at most 8, and so few that a thread's registers, of 128, hold
// its part of x, of the sums and of the bundles.
template <class Chunk>
constexpr int BatchOf(int chunks) {
  constexpr int kInput = sizeof(typename Chunk::Input) / 4;
  constexpr int kWeights = sizeof(typename Chunk::Weights) / 4;
  const int left = 88 - chunks * (kInput + Chunk::kElements);
  return std::clamp(left / (2 * chunks * kWeights), 1, 8);
}

struct UpDownArgs {
  const std::byte* x;
  const std::byte* up;  // null: no `up` weights
  int64_t up_stride;
  const std::byte* down;
  int64_t down_stride;
  RowShape shape;
  const uint8_t* marks;
  int32_t neurons;
  float* values;
  bool relu;
  CudaFfnCounts counts;
  int64_t list_room;    // for the neurons of a block
  int threads_per_row;  // a multiple of 32; a group of so many threads takes a neuron at a time
  float* partial;       // [blocks, cols]
};

// Word w of the marks, which are of the neurons from 16 w on: bit 8 i + k is of neuron 16 w + 4 i +
// k.
__device__ __forceinline__ uint32_t MarksWord(const UpDownArgs& args, int w) {
  const int bytes = (args.neurons + 3) / 4 - 4 * w;
  const uint32_t word = reinterpret_cast<const uint32_t*>(args.marks)[w];
  return bytes >= 4 ? word : word & ((1u << (8 * bytes)) - 1);
}

// Writes the active neurons that are this block's share, ascending, to `list`; *begin is the
// position of the first one among all. Returns how many there are in all. A thread counts the
// neurons of some neighbouring words of the marks.
__device__ __forceinline__ int ListShare(const UpDownArgs& args, int32_t* list, int* begin) {
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int words = (args.neurons + 15) / 16;
  const int per_thread = (words + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
  const int first = min(static_cast<int>(threadIdx.x) * per_thread, words);
  const int last = min(first + per_thread, words);
  int mine = 0;
  for (int w = first; w < last; ++w) mine += __popc(MarksWord(args, w));
  int before = mine;  // in the lanes up to this one
#pragma unroll
  for (int step = 1; step < kWarpLanes; step *= 2) {
    const int other = __shfl_up_sync(kFullWarp, before, step);
    if (lane >= step) before += other;
  }
  __shared__ int of_warps[kMaxWarps];
  if (lane == kWarpLanes - 1) of_warps[warp] = before;
  __syncthreads();
  before -= mine;
  int n = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarpLanes; ++w) {
    if (w == warp) before += n;
    n += of_warps[w];
  }
  const int64_t blocks = gridDim.x;
  *begin = static_cast<int>(n * static_cast<int64_t>(blockIdx.x) / blocks);
  const int end = static_cast<int>(n * (static_cast<int64_t>(blockIdx.x) + 1) / blocks);
  if (before < end && before + mine > *begin) {
    for (int w = first; w < last; ++w) {
      for (uint32_t word = MarksWord(args, w); word != 0; word &= word - 1, ++before) {
        const int bit = __ffs(static_cast<int>(word)) - 1;
        if (before >= *begin && before < end) {
          list[before - *begin] = 16 * w + bit / 8 * 4 + bit % 8;
        }
      }
    }
  }
  __syncthreads();
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *args.counts.active = *args.counts.union_active = n;
    *args.counts.negative = 0;
    if (args.counts.union_gates != nullptr) *args.counts.union_gates = n;
  }
  return n;
}

// A group holds x and its own sums of `down` rows in registers, kChunks chunks a thread. It loads
// the bundles of kBatch neurons at once, adds up their dot products across its warps, then uses the
// `down` rows, which have arrived with the others. At the end the groups of a block add up their
// sums, in order, and each block writes one row of `partial`.
//
// Bound by the bytes of the bundles: bf16, 512 threads with 2 * 8 chunks each are 128 KiB in flight
// on a multiprocessor (int4: 48 KiB), of which an H100 needs about 40 KiB. A LLaMA2-7B layer of
// 10.7 % density has 9 neurons for each of 132 multiprocessors: two rounds.
template <DType kType, int kChunks, int kBatch>
__global__ void __launch_bounds__(kMaxThreads) UpDownKernel(const UpDownArgs args) {
  using Chunk = WeightChunk<kType>;
  constexpr int kElements = Chunk::kElements;
  constexpr int kSums = kBatch > 4 ? 8 : kBatch > 2 ? 4 : kBatch;  // a power of two
  const int group = static_cast<int>(threadIdx.x) / args.threads_per_row;
  const int id = static_cast<int>(threadIdx.x) % args.threads_per_row;
  const int groups = static_cast<int>(blockDim.x) / args.threads_per_row;
  const int lane = static_cast<int>(threadIdx.x % kWarpLanes);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int warps_per_row = args.threads_per_row / kWarpLanes;

  // Shares of groups differ by one neuron at most; all take the same number of rounds.
  int32_t* const list = DynamicShared<int32_t>();  // [args.list_room]
  int block_begin = 0;
  const int n = ListShare(args, list, &block_begin);
  const int in_block =
      static_cast<int>(n * (static_cast<int64_t>(blockIdx.x) + 1) / gridDim.x) - block_begin;
  const int begin = in_block * group / groups;
  const int end = in_block * (group + 1) / groups;
  const int most = (in_block + groups - 1) / groups;
  const int rounds = (most + kBatch - 1) / kBatch;

  typename Chunk::Input x[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int chunk = id + c * args.threads_per_row;
    if (args.up != nullptr && chunk < args.shape.chunks) {
      x[c] = Chunk::LoadInput(args.x, args.shape, chunk);
    } else {
      x[c] = {};
    }
  }
  float sums[kChunks][kElements] = {};
  __shared__ float dots[kMaxWarps][kSums];
  __shared__ float x1[kMaxWarps][kBatch];  // by group, of which there may be as many as warps

  for (int round = 0; round < rounds; ++round) {
    // As even as possible: 9 neurons are 5 and 4.
    const int first = begin + most * round / rounds;
    const int count = min(end, begin + most * (round + 1) / rounds) - first;
    typename Chunk::Weights up[kBatch][kChunks], down[kBatch][kChunks];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t j = b < count ? list[first + b] : 0;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int chunk = id + c * args.threads_per_row;
        const bool wanted = b < count && chunk < args.shape.chunks;
        up[b][c] = down[b][c] = Chunk::Zero();
        if (wanted && args.up != nullptr) {
          up[b][c] = Chunk::Load(args.up + j * args.up_stride, args.shape, chunk);
        }
        if (wanted) down[b][c] = Chunk::Load(args.down + j * args.down_stride, args.shape, chunk);
      }
    }
    float sums_of_warp[kSums] = {};
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        sums_of_warp[b] = Chunk::Dot(up[b][c], x[c], sums_of_warp[b]);
      }
    }
    const float dot_of_warp = WarpSums(sums_of_warp);
    if (lane % (kWarpLanes / kSums) == 0) dots[warp][lane / (kWarpLanes / kSums)] = dot_of_warp;
    __syncthreads();
    if (id < count) {
      float* const value = args.values + list[first + id];
      float result = *value;
      if (args.up != nullptr) {
        float dot = 0;
        for (int w = 0; w < warps_per_row; ++w) dot += dots[group * warps_per_row + w][id];
        result *= args.relu && dot <= 0.0f ? 0.0f : dot;
        *value = result;
      }
      x1[group][id] = result;
    }
    __syncthreads();
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const float a = b < count ? x1[group][b] : 0.0f;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) AddChunk<Chunk>(a, down[b][c], sums[c]);
    }
  }

  float* const partial = args.partial + blockIdx.x * args.shape.cols;
  float* const shared =
      DynamicShared<float>();  // [chunks * kElements], if there are several groups
  for (int g = 0; g < groups; ++g) {
    if (g == group) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int chunk = id + c * args.threads_per_row;
        if (chunk >= args.shape.chunks) continue;
#pragma unroll
        for (int e = 0; e < kElements; ++e) {
          const int64_t column = Chunk::Column(chunk, e);
          const int at = e * args.shape.chunks + chunk;
          const float sum = g == 0 ? sums[c][e] : shared[at] + sums[c][e];
          if (g < groups - 1) {
            shared[at] = sum;
          } else if (column < args.shape.cols) {
            partial[column] = sum;
          }
        }
      }
    }
    __syncthreads();
  }
}

template <DType kType, int kChunks>
void LaunchUpDown(CudaStream& stream, UpDownArgs args, int multiprocessors) {
  constexpr int kBatch = BatchOf<WeightChunk<kType>>(kChunks);
  args.threads_per_row =
      static_cast<int>(CeilDiv(CeilDiv(args.shape.chunks, kChunks), kWarpLanes) * kWarpLanes);
  const int groups = kMaxThreads / args.threads_per_row;
  args.list_room = args.neurons / multiprocessors + 1;
  const int64_t sums = groups == 1 ? 0 : args.shape.chunks * WeightChunk<kType>::kElements;
  const size_t shared = (args.list_room + sums) * sizeof(float);
  Launch(stream, "UpDown", UpDownKernel<kType, kChunks, kBatch>,
         dim3(static_cast<unsigned>(multiprocessors)),
         dim3(static_cast<unsigned>(groups * args.threads_per_row)), shared, args);
}

}  // namespace

void UpDown(CudaStream& stream, const void* x, const RowMatrix& up, const RowMatrix& down,
            const uint8_t* marks, bool relu, float* values, const float* bias, int multiprocessors,
            float* partial, float* y, const CudaFfnCounts& counts) {
  UpDownArgs args{};
  args.x = static_cast<const std::byte*>(x);
  args.up = up.data;
  args.up_stride = up.row_stride;
  args.down = down.data;
  args.down_stride = down.row_stride;
  args.shape = RowShapeOf(down.dtype, down.cols);
  args.marks = marks;
  args.neurons = static_cast<int32_t>(down.rows);
  args.values = values;
  args.relu = relu;
  args.counts = counts;
  args.partial = partial;
  ForWeightType(down.dtype, [&](auto type) {
    constexpr DType kType = decltype(type)::value;
    if (args.shape.chunks <= kMaxThreads) {
      LaunchUpDown<kType, 1>(stream, args, multiprocessors);
    } else {
      LaunchUpDown<kType, 2>(stream, args, multiprocessors);
    }
  });
  SumPartials(stream, partial, multiprocessors, 1, down.cols, bias, y);
}

}  // namespace lacuna
