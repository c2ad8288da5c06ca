#ifndef LACUNA_KERNELS_CUDA_ATTENTION_COMMON_CUH_
#define LACUNA_KERNELS_CUDA_ATTENTION_COMMON_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"

// What the attention kernels of decode steps and of prompts share.
namespace lacuna {

// exp(x) = 2^(kLog2E x): scores are computed times kLog2E.
inline constexpr float kLog2E = 1.44269504f;

// Positions that a token at `position` attends to.
struct AttendedRange {
  int32_t first, end;
};
__device__ __forceinline__ AttendedRange Attended(int32_t position, int64_t window) {
  const int32_t end = position + 1;
  return {window > 0 && end > window ? end - static_cast<int32_t>(window) : 0, end};
}

__device__ __forceinline__ const int32_t* BlockTable(const TokenPlaces& places, int64_t token) {
  return places.block_tables + places.sequences[token] * places.block_table_stride;
}

// Byte offset of a key or value.
__device__ __forceinline__ int64_t RowOffset(const KvView& kv, const int32_t* table,
                                             int64_t kv_head, int32_t position) {
  // 32 bits, because a division of 64 takes many times as long.
  const unsigned block_size = static_cast<unsigned>(kv.block_size);
  const unsigned block = static_cast<unsigned>(position) / block_size;
  return kv.Offset(table[block], kv_head, position - block * block_size);
}

// 2^(of - max): what a sum whose largest score is `of` weighs in one whose largest is `max`. An
// empty sum (-infinity) weighs nothing, in an empty sum too.
__device__ __forceinline__ float Weight(float of, float max) {
  return of == -INFINITY ? 0.0f : exp2f(of - max);
}

// Calls launch(T{}, lanes), for the type of the cache, float or uint16_t for bf16, and with `lanes`
// an integral constant such that 8 lanes elements hold a head. Fails for other caches, with `name`.
template <class T, class Function>
void ForLanes(int64_t head_dim, Function launch) {
  if (head_dim <= 64) return launch(T{}, std::integral_constant<int, 8>());
  if (head_dim <= 128) return launch(T{}, std::integral_constant<int, 16>());
  return launch(T{}, std::integral_constant<int, 32>());
}
template <class Function>
void ForShape(CudaStream& stream, const char* name, const KvView& kv, Function launch) {
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

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_ATTENTION_COMMON_CUH_
