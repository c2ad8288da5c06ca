#ifndef LACUNA_KERNELS_CPU_SIMD_H_
#define LACUNA_KERNELS_CPU_SIMD_H_

#include <stdint.h>

#include "kernels/base/row_matrix.h"

// What the per-ISA sources (generic.cc, avx2.cc and so on) share with the *_inl.h templates.
//
// Each of them is compiled for its own instruction set, so nothing in it may be emitted as a weak
// symbol: the linker would pick one copy for the whole program, perhaps one this CPU cannot run.
// Hence they include C headers and the plain structs of kernels/base only, and every template is
// instantiated over a vector type of an anonymous namespace, which gives it internal linkage.
//
// A vector type V has
//   F                          kLanes floats; + - * / are the compiler's own on vectors
//   kTileTokens                tokens per register tile: kTileTokens * 4 accumulators,
//                              kTileTokens inputs and one weight fit into the registers
//   Set(s)  Load(float*)  Load(Bf16*)  Store(float*, F)
//   Fma(a, b, c)               a * b + c; rounded once, except in "generic"
//   Max(a, b)  Min(a, b)       b where either is NaN
//   Round(a)                   to the nearest integer, |a| < 2^22
//   ScalePow2(a, n)            a * 2^n for integers n in [-151, 129]
//   Sum(a)  Sum4(a, b, c, d, float out[4])
//                              sums of all lanes, pairing lane i with i + kLanes/2, then
//                              i + kLanes/4 and so on: equal bit for bit
//   MaxLane(a)                 NaN lanes may be ignored
//   Relu(a)  FatRelu(a, t)     0 where a <= 0 (a < t), else a: a NaN stays
//   StoreActive(a, base, int32_t* out)
//                              writes base + i for each lane i with a != 0 (a NaN counts),
//                              ascending, possibly garbage after them up to kLanes; returns how
//                              many
// and, for quantized rows (kernels/base/quantized_row.h),
//   I                          kLanes int32
//   B                          4 * kLanes bytes in the same register
//   kInt8Offset                by how much what Int8Codes gives exceeds the codes: 128 or 0
//   kDotTokens                 tokens per register tile of integer dot products
//   LoadI(int32_t*)  ToFloat(I)  ShiftLeft<bits>(I)  ShiftRight<bits>(I)  AddI(I, I)
//   LoadB(p)  StoreB(p, B)  LowNibbles(B)  HighNibbles(B)
//   TwiceCrumbs<i>(B)          bits 2 i and 2 i + 1 of each byte, times 2
//   Int8Codes(B)               stored int8 weights in the form that Dot8 takes
//   Dot8(acc, w, x)            acc + the sums of 4 neighbouring products w * x: x int8 in
//   Dot4(acc, w, x)            [-127, 127], w from Int8Codes, or for Dot4 in [0, 15]
//   Deinterleave4(F* r)        r[b] = elements b, b + 4, b + 8, ... of what r[0..4) held
//   Interleave4(F* r)          the inverse
//   Bits<mask, set>(I)         (lane & mask) | set, taken as floats
//   Repeat4(float* p)          kLanes / 4 floats, each 4 times
//   MaxOf4(a)  SumOf4(a)       in each lane the maximum, or sum, of its aligned group of 4
//   Select(a, b, yes, no)      yes where a >= b, else no
//   StoreInt8(int8_t* p, a)    integers in [-128, 127]; a NaN gives any

#define LACUNA_INLINE inline __attribute__((always_inline))
#define LACUNA_INLINE_LAMBDA __attribute__((always_inline))

#ifdef __clang__
#define LACUNA_UNROLL _Pragma("unroll")
#else
#define LACUNA_UNROLL _Pragma("GCC unroll 16")
#endif

namespace lacuna {

// The upper half of a float32.
struct Bf16 {
  uint16_t bits;
};

// Rows of quantized codes, as template arguments beside float and Bf16.
template <DType kDType>
struct Quantized {
  static constexpr DType kType = kDType;
  static constexpr int64_t kVectors = VectorsIn64Bytes(kDType);
};
using Int8 = Quantized<DType::kInt8>;
using Int4 = Quantized<DType::kInt4>;
using Int2 = Quantized<DType::kInt2>;

// The first n elements at p (0 < n <= kLanes), in the first lanes; `pad` in the others.
template <class V>
LACUNA_INLINE typename V::F LoadN(const float* p, int64_t n, float pad = 0.0f) {
  if (n == V::kLanes) return V::Load(p);
  float lanes[V::kLanes];
  V::Store(lanes, V::Set(pad));
  __builtin_memcpy(lanes, p, n * sizeof(float));
  return V::Load(lanes);
}
template <class V>
LACUNA_INLINE typename V::F LoadN(const Bf16* p, int64_t n) {
  if (n == V::kLanes) return V::Load(p);
  Bf16 lanes[V::kLanes] = {};
  __builtin_memcpy(lanes, p, n * sizeof(Bf16));
  return V::Load(lanes);
}

// Stores the first n lanes (0 < n <= kLanes).
template <class V>
LACUNA_INLINE void StoreN(float* p, int64_t n, typename V::F a) {
  if (n == V::kLanes) {
    V::Store(p, a);
    return;
  }
  float lanes[V::kLanes];
  V::Store(lanes, a);
  __builtin_memcpy(p, lanes, n * sizeof(float));
}

// Calls f(i, m) for i = 0, kLanes, ... below n, where m = min(kLanes, n - i).
template <class V, class Function>
LACUNA_INLINE void ForVectors(int64_t n, Function f) {
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) f(i, V::kLanes);
  if (i < n) f(i, n - i);
}

// Fetches the cache line of element i of a row into the L2 cache, if i starts one. Not for float
// rows: hardware keeps up with them, but not with narrower ones, which take more instructions per
// byte.
template <class W>
LACUNA_INLINE void Prefetch(const void* row, int64_t i) {
  if constexpr (sizeof(W) < sizeof(float)) {
    if (i % (64 / sizeof(W)) == 0) __builtin_prefetch(static_cast<const W*>(row) + i, 0, 2);
  }
}

// How many tiles of rows to fetch ahead, for tiles of some bytes: rows as short as keys and values
// are done before memory answers. 4 KiB is more than a core takes in within the latency of memory.
LACUNA_INLINE int64_t TilesAhead(int64_t bytes) {
  return bytes > 0 && bytes < 4096 ? CeilDiv(4096, bytes) : 1;
}

// Fetches rows, or of each row two runs of 64-byte lines, into the L2 cache a few lines at a time.
// Memory works beside arithmetic only if it is asked evenly: a core that asks for more lines at
// once than it can wait for stands still (bench/README.md).
class Fetcher {
 public:
  // Of each of n rows, `lines` lines from `offset` on, and `more_lines` from `more_offset` on.
  LACUNA_INLINE Fetcher(const void* const* rows, int64_t n, int64_t offset, int64_t lines,
                        int64_t more_offset, int64_t more_lines)
      : rows_(rows),
        end_(rows + n),
        offset_(offset),
        lines_(lines),
        more_offset_(more_offset - lines * 64),
        row_lines_(lines + more_lines) {}
  // Whole rows of some bytes.
  LACUNA_INLINE Fetcher(const void* const* rows, int64_t n, int64_t bytes)
      : Fetcher(rows, n, 0, CeilDiv(bytes, 64), 0, 0) {}

  // Lines that are left.
  LACUNA_INLINE int64_t lines() const { return (end_ - rows_) * row_lines_ - line_; }
  LACUNA_INLINE void FetchRest() { Fetch(lines()); }
  LACUNA_INLINE void Fetch(int64_t lines) {
    for (; lines > 0 && rows_ < end_; --lines) {
      const int64_t offset = line_ < lines_ ? offset_ : more_offset_;
      __builtin_prefetch(static_cast<const char*>(*rows_) + offset + line_ * 64, 0, 2);
      if (++line_ < row_lines_) continue;
      line_ = 0;
      ++rows_;
    }
  }

 private:
  const void* const* rows_;
  const void* const* end_;
  int64_t offset_, lines_, more_offset_, row_lines_;
  int64_t line_ = 0;
};

// Row pointers prepared at a time.
inline constexpr int64_t kRowBatch = 512;

// Calls f(first, rows, n) for runs of at most kRowBatch rows of [row_begin, row_end).
template <class Function>
LACUNA_INLINE void ForRowBatches(const RowMatrix& w, int64_t row_begin, int64_t row_end,
                                 Function f) {
  const void* rows[kRowBatch];
  for (int64_t r = row_begin; r < row_end; r += kRowBatch) {
    const int64_t n = row_end - r < kRowBatch ? row_end - r : kRowBatch;
    for (int64_t i = 0; i < n; ++i) rows[i] = w.row(r + i);
    f(r, rows, n);
  }
}

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_SIMD_H_
