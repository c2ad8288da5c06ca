#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"

// At decode all of these are bound by latency: a token's activations are 16 KiB where the layer's
// weights are hundreds of MiB. So a token is spread over many threads, with all of its loads in
// flight at once. For prompts they are bound by the bytes of the activations, read and written
// once.
namespace lacuna {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(CeilDiv(items, per_block));
}

__device__ __forceinline__ int64_t ThreadOfGrid() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Element i of a row, exactly.
template <DType kType>
__device__ __forceinline__ float Element(const std::byte* row, int64_t cols, int64_t i) {
  if constexpr (kType == DType::kF32) {
    return reinterpret_cast<const float*>(row)[i];
  } else if constexpr (kType == DType::kBf16) {
    return Bf16ToFloat(reinterpret_cast<const uint16_t*>(row)[i]);
  } else {
    const auto* codes = reinterpret_cast<const uint8_t*>(row);
    const auto* scales = reinterpret_cast<const uint16_t*>(row + CodeBytes(kType, cols));
    const int64_t vector = i / kVectorElements, place = i % kVectorElements;
    const uint8_t byte = codes[vector / VectorsIn64Bytes(kType) * kVectorElements + place];
    const int code = kType == DType::kInt8 ? byte - 128 : (byte >> (vector % 2 * 4) & 15) - 8;
    const int64_t group = i / kBlockElements * kBlockGroups + place / 4;
    return static_cast<float>(code) * Bf16ToFloat(scales[group]);
  }
}

template <DType kType>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(RowMatrix table, const int32_t* ids, int64_t tokens, float scale, float* out) {
  const int64_t i = ThreadOfGrid();
  if (i >= tokens * table.cols) return;
  const int64_t token = i / table.cols, column = i % table.cols;
  const std::byte* const row = table.data + ids[token] * table.row_stride;
  out[i] = scale * Element<kType>(row, table.cols, column);
}

__global__ void __launch_bounds__(kThreads)
    AddPositionsKernel(RowMatrix table, const int32_t* positions, int64_t offset, int64_t tokens,
                       float* x) {
  const int64_t i = ThreadOfGrid();
  if (i >= tokens * table.cols) return;
  const int64_t position = positions[i / table.cols];
  if (position < 0) return;
  const auto* row =
      reinterpret_cast<const float*>(table.data + (position + offset) * table.row_stride);
  x[i] += row[i % table.cols];
}

// One block per token.
__global__ void __launch_bounds__(1024)
    RmsNormKernel(const float* x, const float* weight, float eps, int64_t n, float* out) {
  __shared__ float scratch[33];
  x += blockIdx.x * n;
  out += blockIdx.x * n;
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) squares = fmaf(x[i], x[i], squares);
  const float mean = BlockSum(squares, scratch) / static_cast<float>(n);
  const float scale = 1.0f / sqrtf(mean + eps);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) out[i] = x[i] * scale * weight[i];
}

// One block per token.
__global__ void __launch_bounds__(1024)
    LayerNormKernel(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                    float* out) {
  __shared__ float scratch[2][33];
  x += blockIdx.x * n;
  out += blockIdx.x * n;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
  const float mean = BlockSum(sum, scratch[0]) / static_cast<float>(n);
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float d = x[i] - mean;
    squares = fmaf(d, d, squares);
  }
  const float variance = BlockSum(squares, scratch[1]) / static_cast<float>(n);
  const float scale = 1.0f / sqrtf(variance + eps);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    out[i] = fmaf((x[i] - mean) * scale, weight[i], bias[i]);
  }
}

// As many threads for a row as give each 4 elements.
unsigned NormThreads(int64_t n) {
  return static_cast<unsigned>(std::min<int64_t>(1024, CeilDiv(std::max<int64_t>(n, 1), 128) * 32));
}

__global__ void __launch_bounds__(kThreads)
    AddScaledKernel(float scale, const float* x, int64_t n, float* y) {
  const int64_t i = ThreadOfGrid();
  if (i < n) y[i] = fmaf(scale, x[i], y[i]);
}

__global__ void __launch_bounds__(kThreads) ScaleKernel(float scale, int64_t n, float* x) {
  const int64_t i = ThreadOfGrid();
  if (i < n) x[i] *= scale;
}

__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(const float* x, const int32_t* rows, int64_t num_rows, int64_t n, float* out) {
  const int64_t i = ThreadOfGrid();
  if (i < num_rows * n) out[i] = x[rows[i / n] * n + i % n];
}

// One warp per block of 1024 elements of a token: lane l has the elements of group l % 16 in every
// second vector, from vector l / 16 on; 8 loads of 16 bytes in flight each.
__global__ void __launch_bounds__(32)
    QuantizeActivationsKernel(const float* x, int64_t n, std::byte* out) {
  const int64_t vectors = ActivationVectors(n);
  const int64_t block = blockIdx.x, token = blockIdx.y;
  x += token * n;
  out += token * ActivationBytes(DType::kInt8, n);
  const int group = threadIdx.x % 16;
  const int64_t first = block * kBlockElements + threadIdx.x / 16 * kVectorElements + 4 * group;
  constexpr int kQuads = 8;
  float values[kQuads][4];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    const int64_t at = first + k * 2 * kVectorElements;
    if (n % 4 == 0 && at < n) {
      const float4 quad = *reinterpret_cast<const float4*>(x + at);
      values[k][0] = quad.x, values[k][1] = quad.y, values[k][2] = quad.z, values[k][3] = quad.w;
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) values[k][j] = at + j < n ? x[at + j] : 0.0f;
  }
  // fmaxf leaves NaN out; it comes back with the sum of the codes.
  float max = 0.0f;
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
#pragma unroll
    for (int j = 0; j < 4; ++j) max = fmaxf(max, fabsf(values[k][j]));
  }
  max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 16));
  // A group of zeros, or of values whose reciprocal overflows, gets codes of 0.
  const float inverse = 127.0f / fmaxf(max, 1e-36f);
  float total = 0.0f;  // exact: integers
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    uint32_t bytes = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float code = rintf(values[k][j] * inverse);
      total += code;
      const int integer = code == code ? static_cast<int>(code) : 0;
      bytes |= static_cast<uint32_t>(integer & 0xFF) << (8 * j);
    }
    const int64_t at = first + k * 2 * kVectorElements;
    if (at < vectors * kVectorElements) *reinterpret_cast<uint32_t*>(out + at) = bytes;
  }
  total += __shfl_xor_sync(kFullWarp, total, 16);
  if (threadIdx.x >= 16) return;
  const int64_t at = block * kBlockGroups + group;
  auto* scales = reinterpret_cast<float*>(out + vectors * kVectorElements);
  auto* sums = reinterpret_cast<int32_t*>(scales + QuantizedBlocks(n) * kBlockGroups);
  // An infinity or a NaN made a NaN of the sum, and so makes one of the scale.
  scales[at] = max / 127.0f + 0.0f * total;
  sums[at] = total == total ? -static_cast<int32_t>(total) : 0;
}

template <class T>
__device__ __forceinline__ void StoreKv(std::byte* at, int64_t i, float x);
template <>
__device__ __forceinline__ void StoreKv<float>(std::byte* at, int64_t i, float x) {
  reinterpret_cast<float*>(at)[i] = x;
}
template <>
__device__ __forceinline__ void StoreKv<uint16_t>(std::byte* at, int64_t i, float x) {
  reinterpret_cast<uint16_t*>(at)[i] = FloatToBf16(x);
}

// One thread per pair of elements that are rotated together, or half a head apart in a value.
// blockIdx.y is the token. T is the type of the cache.
template <class T>
__global__ void __launch_bounds__(kThreads)
    RotateAndStoreKernel(TokenPlaces places, int64_t heads, const float* cos, const float* sin,
                         float* qkv, KvView kv) {
  const int64_t token = blockIdx.y, half = kv.head_dim / 2;
  const int64_t head = ThreadOfGrid() / half, i = ThreadOfGrid() % half;
  const int64_t position = places.positions[token];
  if (head >= heads + 2 * kv.kv_heads || position < 0) return;
  float* const at = qkv + (token * (heads + 2 * kv.kv_heads) + head) * kv.head_dim;
  float low = at[i], high = at[i + half];
  if (cos != nullptr && head < heads + kv.kv_heads) {
    const float c = cos[position * half + i], s = sin[position * half + i];
    // Rounded after each operation, as the CPU's.
    const float rotated = __fadd_rn(__fmul_rn(low, c), -__fmul_rn(high, s));
    high = __fadd_rn(__fmul_rn(high, c), __fmul_rn(low, s));
    low = rotated;
    at[i] = low;
    at[i + half] = high;
  }
  if (head < heads) return;
  const int32_t* const table =
      places.block_tables + places.sequences[token] * places.block_table_stride;
  const int64_t kv_head = (head - heads) % kv.kv_heads;
  const int64_t offset =
      kv.Offset(table[position / kv.block_size], kv_head, position % kv.block_size);
  std::byte* const to = (head < heads + kv.kv_heads ? kv.keys : kv.values) + offset;
  StoreKv<T>(to, i, low);
  StoreKv<T>(to, i + half, high);
}

}  // namespace

void EmbedTokens(CudaStream& stream, const RowMatrix& table, const int32_t* ids, int64_t tokens,
                 float scale, float* out) {
  void (*kernel)(RowMatrix, const int32_t*, int64_t, float, float*) = nullptr;
  switch (table.dtype) {
    case DType::kF32:
      kernel = EmbedKernel<DType::kF32>;
      break;
    case DType::kBf16:
      kernel = EmbedKernel<DType::kBf16>;
      break;
    case DType::kInt8:
      kernel = EmbedKernel<DType::kInt8>;
      break;
    case DType::kInt4:
      kernel = EmbedKernel<DType::kInt4>;
      break;
    case DType::kInt2:
      stream.Fail(absl::UnimplementedError("embeddings of type int2 on a GPU"));
      return;
  }
  Launch(stream, "EmbedTokens", kernel, Blocks(tokens * table.cols, kThreads), kThreads, 0, table,
         ids, tokens, scale, out);
}

void AddPositions(CudaStream& stream, const RowMatrix& table, const int32_t* positions,
                  int64_t offset, int64_t tokens, float* x) {
  if (table.dtype != DType::kF32) {
    stream.Fail(absl::UnimplementedError(
        absl::StrCat("positions of type ", DTypeName(table.dtype), " on a GPU")));
    return;
  }
  Launch(stream, "AddPositions", AddPositionsKernel, Blocks(tokens * table.cols, kThreads),
         kThreads, 0, table, positions, offset, tokens, x);
}

void RmsNorm(CudaStream& stream, const float* x, const float* weight, float eps, int64_t tokens,
             int64_t n, float* out) {
  Launch(stream, "RmsNorm", RmsNormKernel, Blocks(tokens, 1), NormThreads(n), 0, x, weight, eps, n,
         out);
}

void LayerNorm(CudaStream& stream, const float* x, const float* weight, const float* bias,
               float eps, int64_t tokens, int64_t n, float* out) {
  Launch(stream, "LayerNorm", LayerNormKernel, Blocks(tokens, 1), NormThreads(n), 0, x, weight,
         bias, eps, n, out);
}

void AddScaled(CudaStream& stream, float scale, const float* x, int64_t n, float* y) {
  Launch(stream, "AddScaled", AddScaledKernel, Blocks(n, kThreads), kThreads, 0, scale, x, n, y);
}

void Scale(CudaStream& stream, float scale, int64_t n, float* x) {
  Launch(stream, "Scale", ScaleKernel, Blocks(n, kThreads), kThreads, 0, scale, n, x);
}

void GatherRows(CudaStream& stream, const float* x, const int32_t* rows, int64_t num_rows,
                int64_t n, float* out) {
  Launch(stream, "GatherRows", GatherRowsKernel, Blocks(num_rows * n, kThreads), kThreads, 0, x,
         rows, num_rows, n, out);
}

void QuantizeActivations(CudaStream& stream, const float* x, int64_t tokens, int64_t n,
                         std::byte* out) {
  Launch(stream, "QuantizeActivations", QuantizeActivationsKernel,
         dim3(Blocks(n, kBlockElements), Blocks(tokens, 1)), 32, 0, x, n, out);
}

void RotateAndStore(CudaStream& stream, const TokenPlaces& places, int64_t tokens, int64_t heads,
                    const float* cos, const float* sin, float* qkv, const KvView& kv) {
  if (kv.type != DType::kF32 && kv.type != DType::kBf16) {
    stream.Fail(absl::UnimplementedError(
        absl::StrCat("a cache of type ", DTypeName(kv.type), " on a GPU")));
    return;
  }
  const int64_t pairs = (heads + 2 * kv.kv_heads) * (kv.head_dim / 2);
  Launch(stream, "RotateAndStore",
         kv.type == DType::kF32 ? RotateAndStoreKernel<float> : RotateAndStoreKernel<uint16_t>,
         dim3(Blocks(pairs, kThreads), Blocks(tokens, 1)), kThreads, 0, places, heads, cos, sin,
         qkv, kv);
}

}  // namespace lacuna
