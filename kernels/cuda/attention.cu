#include <algorithm>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/softmax_sum.cuh"

namespace lacuna {
namespace {

constexpr int kWarps = 4;
// Positions that a part of a context has at least: two rounds of a block's warps.
constexpr int64_t kMinPart = 64;

// Positions of each part when a context of `n` is split.
__device__ __forceinline__ int32_t PartSize(int32_t n, int64_t splits) {
  const int64_t even = CeilDiv(n, splits);
  return static_cast<int32_t>(CeilDiv(even < kMinPart ? kMinPart : even, 32) * 32);
}

// One part of one head's context: head_dim sums of values, then the weights' sum and the maximum.
__device__ __forceinline__ float* PartialResult(float* scratch, const CudaAttentionArgs& args,
                                                int64_t splits, int64_t token, int64_t head,
                                                int64_t part) {
  return scratch + ((token * args.heads + head) * splits + part) * (args.kv.head_dim + 2);
}

// blockIdx: part of the context, (key/value head, chunk of its query heads), token. Bound by the
// bytes of keys and values: each is read once for all of a chunk's heads, by 16 bytes a lane, with
// 2 * kUnroll rows of every row group in flight: 4 KiB a warp with bf16, so that 3 blocks on a
// multiprocessor have 48 KiB.
template <class T, int kLanes, int kQueries>
__global__ void __launch_bounds__(kWarps * 32)
    DecodeKernel(CudaAttentionArgs args, int64_t splits, float* scratch) {
  using Sum = SoftmaxSum<T, kLanes, kQueries>;
  __shared__ typename Sum::Shared shared[kWarps];
  const int64_t token = blockIdx.z, part = blockIdx.x;
  const int64_t group = args.heads / args.kv.kv_heads, chunks = CeilDiv(group, kQueries);
  const int64_t kv_head = blockIdx.y / chunks;
  const int64_t first_head = kv_head * group + blockIdx.y % chunks * kQueries;
  const int64_t heads = min(static_cast<int64_t>(kQueries), (kv_head + 1) * group - first_head);
  const int32_t position = args.places.positions[token];
  if (position < 0) return;
  const AttendedRange range = Attended(position, args.window);
  const int32_t size = PartSize(range.end - range.first, splits);
  const int64_t begin = range.first + part * size;
  if (begin >= range.end) return;
  const int32_t end = static_cast<int32_t>(min(begin + size, static_cast<int64_t>(range.end)));

  const int warp = static_cast<int>(threadIdx.x) / 32;
  Sum sum;
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    const float* from = args.q + token * args.q_stride + (first_head + q) * args.kv.head_dim;
    sum.SetQuery(q, q < heads ? from : nullptr, args.kv.head_dim, args.scale * kLog2E);
  }
  sum.Add(args.kv, kv_head, BlockTable(args.places, token),
          static_cast<int32_t>(begin) + warp * Sum::kStep, end, kWarps * Sum::kStep,
          [](int, int32_t) { return true; });
  sum.Combine();
  sum.Store(&shared[warp]);
  __syncthreads();

  // Every thread has some of the elements of the result of all heads.
  const int dim = static_cast<int>(args.kv.head_dim);
  for (int i = static_cast<int>(threadIdx.x); i < heads * dim; i += kWarps * 32) {
    const int q = i / dim, column = i % dim;
    float max = -INFINITY, weights = 0.0f, values = 0.0f;
    for (int w = 0; w < kWarps; ++w) max = fmaxf(max, shared[w].max[q]);
    for (int w = 0; w < kWarps; ++w) {
      const float scale = Weight(shared[w].max[q], max);
      weights += scale * shared[w].weights[q];
      values += scale * shared[w].values[q][column];
    }
    float* const to = PartialResult(scratch, args, splits, token, first_head + q, part);
    to[column] = values;
    if (column == 0) {
      to[dim] = weights;
      to[dim + 1] = max;
    }
  }
}

// blockIdx: head, token. Adds the parts in ascending order.
__global__ void __launch_bounds__(kMaxHeadDim)
    CombineKernel(CudaAttentionArgs args, int64_t splits, float* scratch) {
  const int64_t head = blockIdx.x, token = blockIdx.y, dim = args.kv.head_dim;
  if (threadIdx.x >= dim) return;
  float* const out = args.out + (token * args.heads + head) * dim + threadIdx.x;
  const int32_t position = args.places.positions[token];
  if (position < 0) {
    *out = 0.0f;
    return;
  }
  const AttendedRange range = Attended(position, args.window);
  const int32_t n = range.end - range.first;
  const int64_t parts = CeilDiv(n, PartSize(n, splits));
  float max = -INFINITY, weights = 0.0f, values = 0.0f;
  for (int64_t part = 0; part < parts; ++part) {
    max = fmaxf(max, PartialResult(scratch, args, splits, token, head, part)[dim + 1]);
  }
  for (int64_t part = 0; part < parts; ++part) {
    const float* const from = PartialResult(scratch, args, splits, token, head, part);
    const float scale = Weight(from[dim + 1], max);
    weights += scale * from[dim];
    values += scale * from[threadIdx.x];
  }
  *out = values / weights;
}

unsigned Unsigned(int64_t x) { return static_cast<unsigned>(x); }

}  // namespace

int64_t AttentionSplits(int multiprocessors, int64_t tokens, int64_t kv_heads) {
  // 4 blocks on each multiprocessor.
  return std::clamp<int64_t>(CeilDiv(4 * multiprocessors, tokens * kv_heads), 1, 64);
}

int64_t DecodeAttentionScratchBytes(int64_t tokens, int64_t heads, int64_t head_dim,
                                    int64_t splits) {
  return tokens * heads * splits * (head_dim + 2) * static_cast<int64_t>(sizeof(float));
}

void DecodeAttention(CudaStream& stream, const CudaAttentionArgs& args, int64_t splits,
                     std::byte* scratch) {
  constexpr const char* kName = "DecodeAttention";
  const int64_t group = args.heads / args.kv.kv_heads;
  auto* const partial = reinterpret_cast<float*>(scratch);
  ForShape(stream, kName, args.kv, [&](auto type, auto lanes) {
    using T = decltype(type);
    auto* const kernel = group > 4   ? DecodeKernel<T, lanes(), 8>
                         : group > 2 ? DecodeKernel<T, lanes(), 4>
                         : group > 1 ? DecodeKernel<T, lanes(), 2>
                                     : DecodeKernel<T, lanes(), 1>;
    const int64_t queries = group > 4 ? 8 : group > 2 ? 4 : group > 1 ? 2 : 1;
    const int64_t chunks = CeilDiv(group, queries);
    Launch(stream, kName, kernel,
           dim3(Unsigned(splits), Unsigned(args.kv.kv_heads * chunks), Unsigned(args.tokens)),
           kWarps * 32, 0, args, splits, partial);
    Launch(stream, kName, CombineKernel, dim3(Unsigned(args.heads), Unsigned(args.tokens)),
           Unsigned(CeilDiv(args.kv.head_dim, 32) * 32), 0, args, splits, partial);
  });
}

}  // namespace lacuna
