#ifndef LACUNA_TESTS_CUDA_EMULATION_INCLUDE_CUDA_RUNTIME_H_
#define LACUNA_TESTS_CUDA_EMULATION_INCLUDE_CUDA_RUNTIME_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"
#include "tests/cuda_emulation/block_runner.h"

// CUDA C++ as far as kernels/cuda uses it: keywords, built-in variables and device functions.

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static  // blocks run one after the other
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

static cuda_emulation::Dim3& threadIdx = cuda_emulation::thread_index;
static cuda_emulation::Dim3& blockIdx = cuda_emulation::block_index;
static cuda_emulation::Dim3& blockDim = cuda_emulation::block_dim;
static cuda_emulation::Dim3& gridDim = cuda_emulation::grid_dim;
constexpr int warpSize = 32;

using std::max;
using std::min;

namespace cuda_emulation {

template <class To, class From>
To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
uint64_t ToWord(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(value));
  return word;
}

template <class T>
T FromWord(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

// What lane `source` of the own group of `width` lanes brought; the own value if `in_group` is
// false.
template <class T>
T Shuffle(const char* operation, unsigned mask, T value, unsigned source, bool in_group) {
  const uint64_t* const values = Collective(operation, mask, ToWord(value));
  if (!in_group || !(mask >> source & 1)) return value;
  return FromWord<T>(values[source]);
}

template <class T, class Function>
T AtomicUpdate(T* address, Function update) {
  const T old = *address;
  *address = update(old);
  return old;
}

}  // namespace cuda_emulation

// Barriers and warp collectives.

inline void __syncthreads() { cuda_emulation::SyncThreads(0); }
inline int __syncthreads_count(int predicate) {
  return static_cast<int>(cuda_emulation::SyncThreads(predicate != 0));
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  cuda_emulation::Collective("__syncwarp", mask, 0);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned group = cuda_emulation::Lane() & ~(width - 1u);
  return cuda_emulation::Shuffle("__shfl_sync", mask, value,
                                 group + (static_cast<unsigned>(source) & (width - 1u)), true);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const unsigned lane = cuda_emulation::Lane();
  const unsigned source = lane ^ static_cast<unsigned>(lanes);
  // A lane of an earlier group can be read, one of a later group cannot.
  return cuda_emulation::Shuffle("__shfl_xor_sync", mask, value, source & 31,
                                 source < (lane & ~(width - 1u)) + width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = cuda_emulation::Lane();
  return cuda_emulation::Shuffle("__shfl_up_sync", mask, value, (lane - delta) & 31,
                                 (lane & (width - 1u)) >= delta);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = cuda_emulation::Lane();
  return cuda_emulation::Shuffle("__shfl_down_sync", mask, value, (lane + delta) & 31,
                                 (lane & (width - 1u)) + delta < static_cast<unsigned>(width));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* const values = cuda_emulation::Collective("__ballot_sync", mask, predicate != 0);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) result |= static_cast<unsigned>(values[lane]) << lane;
  }
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}

// Atomics: nothing else runs meanwhile.

template <class T>
T atomicAdd(T* address, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T old) { return std::max(old, value); });
}
template <class T>
T atomicMin(T* address, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T old) { return std::min(old, value); });
}
template <class T>
T atomicOr(T* address, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T old) { return old | value; });
}
template <class T>
T atomicAnd(T* address, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T old) { return old & value; });
}
template <class T>
T atomicExch(T* address, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
  return cuda_emulation::AtomicUpdate(address, [&](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return cuda_emulation::AtomicUpdate(address,
                                      [&](unsigned old) { return old >= limit ? 0 : old + 1; });
}

// Loads and stores with hints for the caches.

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}

// Integers.

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline unsigned __brev(unsigned x) {
  unsigned out = 0;
  for (int i = 0; i < 32; ++i) out |= (x >> i & 1) << (31 - i);
  return out;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned pick = selector >> (4 * i) & 0xF;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (pick & 7)) & 0xFF);
    if (pick & 8) byte = byte & 0x80 ? 0xFF : 0;  // its sign, repeated
    out |= byte << (8 * i);
  }
  return out;
}
inline int __dp4a(int a, int b, int c) {
  unsigned sum = static_cast<unsigned>(c);
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<unsigned>(static_cast<int8_t>(a >> (8 * i)) *
                                 static_cast<int8_t>(b >> (8 * i)));
  }
  return static_cast<int>(sum);
}

// Floating point.

inline float __int_as_float(int x) { return cuda_emulation::BitCast<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_emulation::BitCast<float>(x); }
inline int __float_as_int(float x) { return cuda_emulation::BitCast<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_emulation::BitCast<unsigned>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#endif  // LACUNA_TESTS_CUDA_EMULATION_INCLUDE_CUDA_RUNTIME_H_
