#include <type_traits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/softmax_sum.cuh"

namespace lacuna {
namespace {

constexpr int kWarps = 4;
static_assert(kTileTokens == 16, "the rows of an AttentionTile");
// Queries that a warp of SumKernel reads a key or value for: as many as fit into registers.
constexpr int kQueries = 8;

// A tile of tokens.
struct Tile {
  int64_t first;
  int tokens;
};
__device__ __forceinline__ Tile TileOf(const int32_t* tile_begins, int64_t i) {
  return {tile_begins[i], tile_begins[i + 1] - tile_begins[i]};
}

// For a bf16 cache and heads of up to 64 k64s elements, on tensor cores. blockIdx: (key/value head,
// chunk of kHeads of its query heads), tile. Each warp takes one head's queries; if there are fewer
// heads than warps, several warps take parts of the positions, which are added in their order.
// Bound by what tensor cores do for 16 rows with each product done twice, and by reading keys and
// values from the second-level cache once per tile.
template <int k64s, int kHeads>
__global__ void __launch_bounds__(kWarps * 32)
    TileKernel(CudaAttentionArgs args, const int32_t* tile_begins) {
  constexpr int kParts = kWarps / kHeads;
  __shared__ typename AttentionTile<k64s>::Shared shared[kParts > 1 ? kHeads : 1];
  const int64_t group = args.heads / args.kv.kv_heads, chunks = CeilDiv(group, kHeads);
  const int64_t kv_head = blockIdx.x / chunks;
  const int warp = static_cast<int>(threadIdx.x) / 32, part = warp / kHeads;
  const int64_t in_group = blockIdx.x % chunks * kHeads + warp % kHeads;
  const int64_t head = kv_head * group + in_group;
  const Tile tile = TileOf(tile_begins, blockIdx.y);
  if (tile.tokens == 0) return;
  const int rows = in_group < group ? tile.tokens : 0;

  const int64_t dim = args.kv.head_dim;
  const auto query = [&](int row) {
    return row < rows ? args.q + (tile.first + row) * args.q_stride + head * dim : nullptr;
  };
  AttentionTile<k64s> sum(query, dim, args.scale * kLog2E);
  AttendedRange ranges[2] = {{0, 0}, {0, 0}};
  for (int half = 0; half < 2; ++half) {
    const int row = sum.Group() + 8 * half;
    if (row < rows) {
      ranges[half] = Attended(args.places.positions[tile.first + row], args.window);
    }
  }
  if (rows > 0) {
    // Positions ascend within a tile.
    const int32_t* const positions = args.places.positions + tile.first;
    const int32_t begin = Attended(positions[0], args.window).first;
    sum.Add(args.kv, kv_head, BlockTable(args.places, tile.first), begin + part * sum.kPositions,
            positions[rows - 1] + 1, kParts * sum.kPositions, ranges);
  }
  for (int from = 1; from < kParts; ++from) {
    if (part == from) sum.Store(&shared[warp % kHeads]);
    __syncthreads();
    if (part == 0) sum.Merge(shared[warp % kHeads]);
    __syncthreads();
  }
  if (part > 0) return;
  sum.ForSums([&](int row, int element, float value, float weights) {
    if (row >= rows || element >= dim) return;
    args.out[((tile.first + row) * args.heads + head) * dim + element] = value / weights;
  });
}

// For every cache. blockIdx: (key/value head, chunk of a tile's queries), tile. A query is a head
// of a token; each warp has kQueries of them, and goes through all positions that one of them
// attends to. Bound by multiplications: a warp reads each row for kQueries queries, and the block's
// warps read the same rows at about the same time, so that most come from the first-level cache.
template <class T, int kLanes>
__global__ void __launch_bounds__(kWarps * 32)
    SumKernel(CudaAttentionArgs args, const int32_t* tile_begins) {
  using Sum = SoftmaxSum<T, kLanes, kQueries>;
  __shared__ typename Sum::Shared shared[kWarps];
  const int64_t group = args.heads / args.kv.kv_heads;
  const int64_t chunks = CeilDiv(kTileTokens * group, kWarps * kQueries);
  const int64_t kv_head = blockIdx.x / chunks;
  const Tile tile = TileOf(tile_begins, blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  // Queries of the tile, by token, then head.
  const int64_t first = (blockIdx.x % chunks * kWarps + warp) * kQueries;
  const int64_t left = tile.tokens * group - first;
  if (left <= 0) return;
  const int queries = static_cast<int>(min(left, static_cast<int64_t>(kQueries)));
  const auto token_of = [&](int q) { return tile.first + (first + q) / group; };
  const auto head_of = [&](int q) { return kv_head * group + (first + q) % group; };

  Sum sum;
  AttendedRange ranges[kQueries];
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    ranges[q] = {0, 0};
    const float* from = nullptr;
    if (q < queries) {
      ranges[q] = Attended(args.places.positions[token_of(q)], args.window);
      from = args.q + token_of(q) * args.q_stride + head_of(q) * args.kv.head_dim;
    }
    sum.SetQuery(q, from, args.kv.head_dim, args.scale * kLog2E);
  }
  // Positions ascend within a tile.
  sum.Add(args.kv, kv_head, BlockTable(args.places, tile.first), ranges[0].first,
          args.places.positions[token_of(queries - 1)] + 1, Sum::kStep,
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

}  // namespace

void PrefillAttention(CudaStream& stream, const CudaAttentionArgs& args, const int32_t* tile_begins,
                      int64_t num_tiles) {
  constexpr const char* kName = "PrefillAttention";
  const int64_t group = args.heads / args.kv.kv_heads;
  const auto grid = [&](int64_t chunks) {
    return dim3(static_cast<unsigned>(args.kv.kv_heads * chunks), static_cast<unsigned>(num_tiles));
  };
  ForShape(stream, kName, args.kv, [&](auto type, auto lanes) {
    using T = decltype(type);
    if constexpr (std::is_same_v<T, uint16_t> && lanes() <= 16) {
      constexpr int k64s = lanes() / 8;
      auto* const kernel = group == 1   ? TileKernel<k64s, 1>
                           : group == 2 ? TileKernel<k64s, 2>
                                        : TileKernel<k64s, 4>;
      Launch(stream, kName, kernel, grid(CeilDiv(group, group > 2 ? 4 : group)), kWarps * 32, 0,
             args, tile_begins);
    } else {
      Launch(stream, kName, SumKernel<T, lanes()>,
             grid(CeilDiv(group * kTileTokens, kWarps * kQueries)), kWarps * 32, 0, args,
             tile_begins);
    }
  });
}

}  // namespace lacuna
