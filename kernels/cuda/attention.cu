#include <algorithm>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/softmax_sum.cuh"

namespace lacuna {
namespace {

constexpr int kWarps = 4;
// Positions that a part of a context has at least: two rounds of a block's warps.
constexpr int64_t kMinPart = 64;
// Queries that a warp of PrefillAttention reads a key or value for: as many as fit into registers.
constexpr int kPrefillQueries = 8;
constexpr float kLog2E = 1.44269504f;

// Positions that a token at `position` attends to.
struct Range {
  int32_t first, end;
};
__device__ __forceinline__ Range Attended(int32_t position, int64_t window) {
  const int32_t end = position + 1;
  return {window > 0 && end > window ? end - static_cast<int32_t>(window) : 0, end};
}

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
  const Range range = Attended(position, args.window);
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
  sum.Add(args.kv, kv_head,
          args.places.block_tables + args.places.sequences[token] * args.places.block_table_stride,
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
  const Range range = Attended(position, args.window);
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

// blockIdx: (key/value head, chunk of a tile's queries), tile. A query is a head of a token; each
// warp has kPrefillQueries of them, and goes through all positions that one of them attends to.
// Bound by multiplications: a warp reads each row for kPrefillQueries queries, and the block's
// warps read the same rows at about the same time, so that most come from the L1 cache.
template <class T, int kLanes>
__global__ void __launch_bounds__(kWarps * 32)
    PrefillKernel(CudaAttentionArgs args, const int32_t* tile_begins) {
  using Sum = SoftmaxSum<T, kLanes, kPrefillQueries>;
  __shared__ typename Sum::Shared shared[kWarps];
  const int64_t group = args.heads / args.kv.kv_heads;
  const int64_t chunks = CeilDiv(kTileTokens * group, kWarps * kPrefillQueries);
  const int64_t kv_head = blockIdx.x / chunks;
  const int64_t first_token = tile_begins[blockIdx.y];
  const int64_t tokens = tile_begins[blockIdx.y + 1] - first_token;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  // Queries of the tile, by token, then head.
  const int64_t first = (blockIdx.x % chunks * kWarps + warp) * kPrefillQueries;
  const int64_t left = tokens * group - first;
  if (left <= 0) return;
  const int queries = static_cast<int>(min(left, static_cast<int64_t>(kPrefillQueries)));
  const auto token_of = [&](int q) { return first_token + (first + q) / group; };
  const auto head_of = [&](int q) { return kv_head * group + (first + q) % group; };

  Sum sum;
  Range ranges[kPrefillQueries];
#pragma unroll
  for (int q = 0; q < kPrefillQueries; ++q) {
    ranges[q] = {0, 0};
    const float* from = nullptr;
    if (q < queries) {
      ranges[q] = Attended(args.places.positions[token_of(q)], args.window);
      from = args.q + token_of(q) * args.q_stride + head_of(q) * args.kv.head_dim;
    }
    sum.SetQuery(q, from, args.kv.head_dim, args.scale * kLog2E);
  }
  // Positions ascend within a tile.
  const int32_t begin = ranges[0].first;
  const int32_t end = args.places.positions[token_of(queries - 1)] + 1;
  sum.Add(args.kv, kv_head,
          args.places.block_tables +
              args.places.sequences[first_token] * args.places.block_table_stride,
          begin, end, Sum::kStep,
          [&](int q, int32_t p) { return p >= ranges[q].first && p < ranges[q].end; });
  sum.Combine();
  sum.Store(&shared[warp]);
  __syncwarp();
  const int dim = static_cast<int>(args.kv.head_dim);
  for (int i = static_cast<int>(threadIdx.x) % 32; i < queries * dim; i += 32) {
    const int q = i / dim, column = i % dim;
    args.out[(token_of(q) * args.heads + head_of(q)) * dim + column] =
        shared[warp].values[q][column] / shared[warp].weights[q];
  }
}

// Calls launch(T{}, lanes), with lanes an integral constant, for the type of the cache and
// head_dim.
template <class T, class Function>
void ForLanes(int64_t head_dim, Function launch) {
  if (head_dim <= 64) return launch(T{}, std::integral_constant<int, 8>());
  if (head_dim <= 128) return launch(T{}, std::integral_constant<int, 16>());
  return launch(T{}, std::integral_constant<int, 32>());
}
template <class Function>
void ForShape(CudaStream& stream, const char* name, const CudaAttentionArgs& args,
              Function launch) {
  const KvView& kv = args.kv;
  if (kv.head_dim % 8 != 0 || kv.head_dim > kMaxHeadDim) {
    stream.Fail(absl::UnimplementedError(absl::StrCat(name, " for heads of ", kv.head_dim,
                                                      " elements: multiples of 8 up to ",
                                                      kMaxHeadDim, " are")));
  } else if (kv.type == DType::kF32) {
    ForLanes<float>(kv.head_dim, launch);
  } else if (kv.type == DType::kBf16) {
    ForLanes<uint16_t>(kv.head_dim, launch);
  } else {
    stream.Fail(
        absl::UnimplementedError(absl::StrCat(name, " for a cache of type ", DTypeName(kv.type))));
  }
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
  ForShape(stream, kName, args, [&](auto type, auto lanes) {
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

void PrefillAttention(CudaStream& stream, const CudaAttentionArgs& args, const int32_t* tile_begins,
                      int64_t num_tiles) {
  constexpr const char* kName = "PrefillAttention";
  const int64_t chunks =
      CeilDiv(args.heads / args.kv.kv_heads * kTileTokens, kWarps * kPrefillQueries);
  ForShape(stream, kName, args, [&](auto type, auto lanes) {
    Launch(stream, kName, PrefillKernel<decltype(type), lanes()>,
           dim3(Unsigned(args.kv.kv_heads * chunks), Unsigned(num_tiles)), kWarps * 32, 0, args,
           tile_begins);
  });
}

}  // namespace lacuna
