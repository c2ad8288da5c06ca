// The emulated GPU itself: that it does what a GPU does, and notices what a GPU would not forgive.
#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/ptx.cuh"

namespace cuda_emulation {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFu;

// Memory that host and kernels can touch.
template <class T>
struct PinnedAllocator {
  using value_type = T;
  PinnedAllocator() = default;
  template <class U>
  explicit PinnedAllocator(const PinnedAllocator<U>&) {}
  T* allocate(size_t n) {
    void* p = nullptr;
    EXPECT_EQ(cudaMallocHost(&p, n * sizeof(T)), cudaSuccess);
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) { cudaFreeHost(p); }
  bool operator==(const PinnedAllocator&) const { return true; }
};
template <class T>
using Vector = std::vector<T, PinnedAllocator<T>>;

// Runs one kernel; what the device says about it.
template <class... Parameters, class... Arguments>
std::string Execute(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
                    Arguments... arguments) {
  cudaStream_t stream;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  cudaLaunchConfig_t config = {grid, block, shared, stream, nullptr, 0};
  cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  const std::string text = error == cudaSuccess ? "" : cudaGetErrorString(error);
  cudaDeviceReset();
  cudaStreamDestroy(stream);
  return text;
}

// Every order of turns that the tests try.
template <class Function>
void InEveryOrder(Function test) {
  for (int order = 0; order < 5; ++order) {
    SetOrder(order == 0   ? Order::kForward
             : order == 1 ? Order::kBackward
                          : Order::kShuffled,
             order);
    test();
  }
  SetOrder(Order::kForward);
}

__global__ void WriteIndex(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] += static_cast<int>(i) + 1;
}

TEST(EmulationTest, EveryThreadOfEveryBlockRunsOnce) {
  InEveryOrder([] {
    Vector<int> out(2 * 3 * 2 * 4 * 5 * 3);
    EXPECT_EQ(Execute(WriteIndex, dim3(2, 3, 2), dim3(4, 5, 3), 0, out.data()), "");
    for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], static_cast<int>(i) + 1);
  });
}

// Reverses each block's part of `data` through shared memory.
template <bool kWithBarrier>
__global__ void Reverse(int* data) {
  int* const shared = lacuna::DynamicShared<int>();
  const unsigned n = blockDim.x, i = threadIdx.x;
  shared[i] = data[blockIdx.x * n + i];
  if (kWithBarrier) __syncthreads();
  data[blockIdx.x * n + i] = shared[n - 1 - i];
}

Vector<int> Reversed(void (*kernel)(int*)) {
  Vector<int> data(3 * 100);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<int>(i);
  EXPECT_EQ(Execute(kernel, 3, 100, 100 * sizeof(int), data.data()), "");
  return data;
}

TEST(EmulationTest, ABarrierOrdersSharedMemory) {
  InEveryOrder([] {
    const Vector<int> data = Reversed(Reverse<true>);
    for (int i = 0; i < 300; ++i) ASSERT_EQ(data[i], i / 100 * 100 + 99 - i % 100);
  });
}

TEST(EmulationTest, AMissingBarrierShowsInEveryOrder) {
  const Vector<int> right = Reversed(Reverse<true>);
  InEveryOrder([&] { EXPECT_NE(Reversed(Reverse<false>), right); });
}

// Sums 256 numbers in shared memory, halving; kBroken lacks the barrier between two halvings.
template <bool kBroken>
__global__ void Sum(const int* in, int* out) {
  __shared__ int partial[256];
  partial[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    if (!kBroken) __syncthreads();
  }
  if (threadIdx.x == 0) *out = partial[0];
}

// With the highest thread first the broken sum is right: what one order hides another one shows.
TEST(EmulationTest, AMissingBarrierHiddenByOneOrderShowsInAnother) {
  const Vector<int> in(256, 1);
  Vector<int> out(1);
  int right = 0, wrong = 0;
  InEveryOrder([&] {
    EXPECT_EQ(Execute(Sum<false>, 1, 256, 0, in.data(), out.data()), "");
    EXPECT_EQ(out[0], 256);
    EXPECT_EQ(Execute(Sum<true>, 1, 256, 0, in.data(), out.data()), "");
    ++(out[0] == 256 ? right : wrong);
  });
  EXPECT_GT(right, 0);
  EXPECT_GT(wrong, 0);
}

// Each lane passes its value on through memory of the warp.
template <bool kWithBarrier>
__global__ void PassOn(int* out) {
  __shared__ int slots[32];
  slots[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kWithBarrier) __syncwarp();
  out[threadIdx.x] = slots[(threadIdx.x + 1) % 32];
  // So that the next kernel finds none of it.
  __syncwarp();
  slots[threadIdx.x] = -1;
}

TEST(EmulationTest, AMissingWarpBarrierShows) {
  InEveryOrder([] {
    Vector<int> with(32), without(32);
    EXPECT_EQ(Execute(PassOn<true>, 1, 32, 0, with.data()), "");
    EXPECT_EQ(Execute(PassOn<false>, 1, 32, 0, without.data()), "");
    for (int i = 0; i < 32; ++i) EXPECT_EQ(with[i], (i + 1) % 32);
    EXPECT_NE(with, without);
  });
}

__global__ void Collectives(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int* const mine = out + threadIdx.x * 9;
  mine[0] = __shfl_sync(kAll, lane * 10, 5);
  mine[1] = __shfl_sync(kAll, lane * 10, 9, 8);
  mine[2] = __shfl_xor_sync(kAll, lane, 16);
  mine[3] = __shfl_up_sync(kAll, lane, 3);
  mine[4] = __shfl_down_sync(kAll, lane, 1, 4);
  mine[5] = static_cast<int>(__ballot_sync(kAll, lane % 3 == 0));
  mine[6] = __any_sync(kAll, lane == 40);
  // Halves of a warp by themselves.
  mine[7] = __shfl_sync(lane < 16 ? 0xFFFFu : 0xFFFF0000u, lane, lane < 16 ? 1 : 20);
  mine[8] = __syncthreads_count(lane < 4);
}

TEST(EmulationTest, CollectivesDoWhatCudaSays) {
  InEveryOrder([] {
    Vector<int> out(64 * 9);
    ASSERT_EQ(Execute(Collectives, 1, 64, 0, out.data()), "");
    unsigned thirds = 0;
    for (int lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
    for (int t = 0; t < 64; ++t) {
      const int lane = t % 32;
      const int* const mine = &out[t * 9];
      EXPECT_EQ(mine[0], 50);
      EXPECT_EQ(mine[1], (lane / 8 * 8 + 1) * 10);
      EXPECT_EQ(mine[2], lane ^ 16);
      EXPECT_EQ(mine[3], lane < 3 ? lane : lane - 3);
      EXPECT_EQ(mine[4], lane % 4 == 3 ? lane : lane + 1);
      EXPECT_EQ(mine[5], static_cast<int>(thirds));
      EXPECT_EQ(mine[6], 0);
      EXPECT_EQ(mine[7], lane < 16 ? 1 : 20);
      EXPECT_EQ(mine[8], 8);
    }
  });
}

__global__ void LeaveBeforeBarrier() {
  if (threadIdx.x < 3) return;
  __syncthreads();
}
__global__ void DisagreeOnMask() {
  if (threadIdx.x < 31) __ballot_sync(threadIdx.x == 7 ? kAll : kAll >> 1, 1);
}
__global__ void LeaveSelfOut() { __syncwarp(~(1u << (threadIdx.x % 32))); }

TEST(EmulationTest, SaysWhichThreadsNeverReachABarrier) {
  EXPECT_EQ(Execute(LeaveBeforeBarrier, dim3(1, 2), 64, 0),
            "block (0, 0, 0): of 64 threads, 3 have ended, 61 wait at __syncthreads");
}

TEST(EmulationTest, SaysWhenLanesDisagree) {
  const std::string error = Execute(DisagreeOnMask, 1, 32, 0);
  EXPECT_NE(error.find("31 in warp collectives"), std::string::npos) << error;
  EXPECT_NE(error.find("__ballot_sync"), std::string::npos) << error;
  EXPECT_NE(Execute(LeaveSelfOut, 1, 32, 0).find("leaves it out"), std::string::npos);
}

TEST(EmulationTest, RefusesWhatAGpuRefuses) {
  const auto nothing = +[] {};
  EXPECT_EQ(Execute(nothing, 1, 1025, 0), "cudaErrorInvalidConfiguration");
  EXPECT_EQ(Execute(nothing, dim3(1, 70000), 1, 0), "cudaErrorInvalidConfiguration");
  EXPECT_EQ(Execute(nothing, 1, 32, 49 << 10), "cudaErrorInvalidValue");
  EXPECT_EQ(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10),
            cudaSuccess);
  EXPECT_EQ(Execute(nothing, 1, 32, 49 << 10), "");
  EXPECT_NE(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10),
            cudaSuccess);
}

TEST(EmulationTest, NothingRunsBeforeSomebodyWaits) {
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  Vector<int> out(1);
  cudaLaunchConfig_t config = {1, 1, 0, stream, nullptr, 0};
  ASSERT_EQ(cudaLaunchKernelEx(&config, WriteIndex, out.data()), cudaSuccess);
  EXPECT_EQ(out[0], 0);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(out[0], 1);
  cudaStreamDestroy(stream);
}

TEST(EmulationTest, CopiesTellHostFromDeviceMemory) {
  void* device = nullptr;
  ASSERT_EQ(cudaMalloc(&device, 16), cudaSuccess);
  int host[5] = {1, 2, 3, 4, 5};
  EXPECT_EQ(cudaMemcpy(device, host, 16, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(device, host, 20, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host, device, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  // Not pinned.
  EXPECT_EQ(cudaMemcpyAsync(device, host, 4, cudaMemcpyHostToDevice, stream),
            cudaErrorInvalidValue);
  cudaStreamDestroy(stream);
  cudaFree(device);
}

struct Pointers {
  char type;  // behind which there is padding
  const int* a;
  int64_t n;
};
__global__ void Read(Pointers p, const int* b, int* out) { *out = p.a[0] + *b; }

TEST(EmulationTest, NoKernelIsLaunchedWithAnAddressOfHostMemory) {
  const int host = 1;
  const Vector<int> pinned(1, 20);
  Vector<int> out(1);
  int* device = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), 4), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(device, &host, 4, cudaMemcpyHostToDevice), cudaSuccess);
  const Pointers good = {1, device, 5}, bad = {1, &host, 5};
  EXPECT_EQ(Execute(Read, 1, 1, 0, good, pinned.data(), out.data()), "");
  EXPECT_EQ(out[0], 21);
  EXPECT_EQ(Execute(Read, 1, 1, 0, good, &host, out.data()), "cudaErrorInvalidValue");
  EXPECT_EQ(Execute(Read, 1, 1, 0, bad, device, out.data()), "cudaErrorInvalidValue");
  cudaFree(device);
}

__global__ void WriteAt(int* p, int64_t i) { p[i] = 7; }

TEST(EmulationDeathTest, DeviceMemoryIsForKernelsAndHasAnEnd) {
  int* device = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&device), 4096), cudaSuccess);
  EXPECT_EQ(Execute(WriteAt, 1, 1, 0, device, int64_t{1023}), "");
  EXPECT_DEATH(device[0] = 1, "");
  EXPECT_DEATH(Execute(WriteAt, 1, 1, 0, device, int64_t{1024}), "");
  EXPECT_DEATH(Execute(WriteAt, 1, 1, 0, device, int64_t{-1}), "");
#ifdef __SANITIZE_ADDRESS__
  int* odd = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&odd), 20), cudaSuccess);
  EXPECT_EQ(Execute(WriteAt, 1, 1, 0, odd, int64_t{4}), "");
  EXPECT_DEATH(Execute(WriteAt, 1, 1, 0, odd, int64_t{5}), "AddressSanitizer");
  cudaFree(odd);
#endif
  cudaFree(device);
  EXPECT_DEATH(Execute(WriteAt, 1, 1, 0, device, int64_t{0}), "");
}

// Two neighbouring numbers, `step` apart in memory, as bf16 in a register.
uint32_t Pack(const float* m, int step) {
  return (__float_as_uint(m[0]) >> 16) | (__float_as_uint(m[step]) & 0xFFFF0000u);
}

__global__ void MultiplyBf16(const float* a, const float* b, float* d) {
  const int g = static_cast<int>(threadIdx.x) / 4, i = static_cast<int>(threadIdx.x) % 4;
  const uint32_t fa[4] = {Pack(a + g * 16 + 2 * i, 1), Pack(a + (g + 8) * 16 + 2 * i, 1),
                          Pack(a + g * 16 + 2 * i + 8, 1), Pack(a + (g + 8) * 16 + 2 * i + 8, 1)};
  const uint32_t fb[2] = {Pack(b + 2 * i * 8 + g, 8), Pack(b + (2 * i + 8) * 8 + g, 8)};
  float fd[4] = {1, 1, 1, 1};
  lacuna::MmaBf16(fd, fa, fb);
  for (int r = 0; r < 4; ++r) d[(g + r / 2 * 8) * 8 + 2 * i + r % 2] = fd[r];
}

// Fragments laid out as PTX's manual says under "Matrix Fragments for mma.m16n8k16".
TEST(EmulationTest, MultipliesTilesOfBf16) {
  Vector<float> a(16 * 16), b(16 * 8), d(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7 % 23) - 11;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 5 % 17) - 8;
  ASSERT_EQ(Execute(MultiplyBf16, 1, 32, 0, a.data(), b.data(), d.data()), "");
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 8; ++c) {
      float sum = 1;
      for (int k = 0; k < 16; ++k) sum += a[r * 16 + k] * b[k * 8 + c];
      EXPECT_EQ(d[r * 8 + c], sum) << r << ", " << c;
    }
  }
}

__global__ void MultiplyInt8(const int8_t* a, const int8_t* b, int32_t* d) {
  const int g = static_cast<int>(threadIdx.x) / 4, i = static_cast<int>(threadIdx.x) % 4;
  uint32_t fa[4] = {}, fb[2] = {};
  for (int r = 0; r < 4; ++r) std::memcpy(&fa[r], a + (g + r % 2 * 8) * 32 + 4 * i + r / 2 * 16, 4);
  for (int r = 0; r < 2; ++r) {
    for (int k = 0; k < 4; ++k) {
      fb[r] |= uint32_t{static_cast<uint8_t>(b[(4 * i + k + r * 16) * 8 + g])} << (8 * k);
    }
  }
  int32_t fd[4] = {1, 1, 1, 1};
  lacuna::MmaInt8(fd, fa, fb);
  for (int r = 0; r < 4; ++r) d[(g + r / 2 * 8) * 8 + 2 * i + r % 2] = fd[r];
}

TEST(EmulationTest, MultipliesTilesOfInt8) {
  Vector<int8_t> a(16 * 32), b(32 * 8);
  Vector<int32_t> d(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<int8_t>(i * 37 % 255 - 127);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>(i * 91 % 255 - 127);
  ASSERT_EQ(Execute(MultiplyInt8, 1, 32, 0, a.data(), b.data(), d.data()), "");
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 8; ++c) {
      int32_t sum = 1;
      for (int k = 0; k < 32; ++k) sum += a[r * 32 + k] * b[k * 8 + c];
      EXPECT_EQ(d[r * 8 + c], sum) << r << ", " << c;
    }
  }
}

}  // namespace
}  // namespace cuda_emulation
