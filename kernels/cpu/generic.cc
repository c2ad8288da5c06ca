#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/table_inl.h"

namespace lacuna {
namespace {

// The compiler's own four-lane vectors: SSE2 on every x86-64.
struct Generic {
  using F = float __attribute__((vector_size(16)));
  using I = int32_t __attribute__((vector_size(16)));
  using H = uint16_t __attribute__((vector_size(16)));
  using L = uint64_t __attribute__((vector_size(16)));
  static constexpr int64_t kLanes = 4;
  static constexpr int kTileTokens = 2;  // 8 + 2 + 1, and a product, of 16 registers

  static LACUNA_INLINE F Set(float s) { return F{s, s, s, s}; }
  static LACUNA_INLINE F Load(const float* p) {
    F a;
    __builtin_memcpy(&a, p, sizeof(a));
    return a;
  }
  static LACUNA_INLINE F Load(const Bf16* p) {
    // Each element becomes the upper half of a lane.
    uint64_t bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    const H upper = reinterpret_cast<H>(L{bits, 0});
    return reinterpret_cast<F>(__builtin_shufflevector(H{}, upper, 0, 8, 1, 9, 2, 10, 3, 11));
  }
  static LACUNA_INLINE void Store(float* p, F a) { __builtin_memcpy(p, &a, sizeof(a)); }
  static LACUNA_INLINE F Fma(F a, F b, F c) { return a * b + c; }
  static LACUNA_INLINE F Max(F a, F b) { return Select(a > b, a, b); }
  static LACUNA_INLINE F Min(F a, F b) { return Select(a < b, a, b); }
  static LACUNA_INLINE F Round(F a) {
    // 1.5 * 2^23: in its binade neighbouring floats are 1 apart.
    const F magic = Set(12582912.0f);
    return (a + magic) - magic;
  }
  static LACUNA_INLINE F ScalePow2(F a, F n) {
    // In two factors, since 2^n alone may be out of range.
    const I whole = __builtin_convertvector(n, I);
    const I half = whole >> 1;
    return a * Pow2(half) * Pow2(whole - half);
  }

  static LACUNA_INLINE float Sum(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
  static LACUNA_INLINE void Sum4(F a, F b, F c, F d, float* out) {
    out[0] = Sum(a);
    out[1] = Sum(b);
    out[2] = Sum(c);
    out[3] = Sum(d);
  }
  static LACUNA_INLINE float MaxLane(F a) {
    const float even = a[0] > a[2] ? a[0] : a[2];
    const float odd = a[1] > a[3] ? a[1] : a[3];
    return even > odd ? even : odd;
  }

  static LACUNA_INLINE F Relu(F a) { return Select(a <= F{}, F{}, a); }
  static LACUNA_INLINE F FatRelu(F a, F t) { return Select(a < t, F{}, a); }
  static LACUNA_INLINE int StoreActive(F a, int32_t base, int32_t* out) {
    int count = 0;
    for (int i = 0; i < kLanes; ++i) {
      out[count] = base + i;
      count += a[i] != 0.0f;
    }
    return count;
  }

  using B = int8_t __attribute__((vector_size(16)));
  using W = int16_t __attribute__((vector_size(16)));
  static constexpr int kDotTokens = 1;
  static constexpr int kInt8Offset = 0;

  static LACUNA_INLINE I LoadI(const int32_t* p) {
    I a;
    __builtin_memcpy(&a, p, sizeof(a));
    return a;
  }
  static LACUNA_INLINE F ToFloat(I a) { return __builtin_convertvector(a, F); }
  template <int kBits>
  static LACUNA_INLINE I ShiftLeft(I a) {
    return a << kBits;
  }
  template <int kBits>
  static LACUNA_INLINE I ShiftRight(I a) {
    using U = uint32_t __attribute__((vector_size(16)));
    return reinterpret_cast<I>(reinterpret_cast<U>(a) >> kBits);
  }
  static LACUNA_INLINE I AddI(I a, I b) { return a + b; }
  static LACUNA_INLINE B LoadB(const void* p) {
    B a;
    __builtin_memcpy(&a, p, sizeof(a));
    return a;
  }
  static LACUNA_INLINE void StoreB(void* p, B a) { __builtin_memcpy(p, &a, sizeof(a)); }
  static LACUNA_INLINE B LowNibbles(B a) { return a & 15; }
  static LACUNA_INLINE B HighNibbles(B a) { return (a >> 4) & 15; }
  template <int kCrumb>
  static LACUNA_INLINE B TwiceCrumbs(B a) {
    return ((kCrumb == 0 ? a << 1 : a >> ((2 * kCrumb - 1) & 7))) & 6;
  }
  static LACUNA_INLINE B Int8Codes(B a) { return a ^ static_cast<int8_t>(128); }
  static LACUNA_INLINE I Dot8(I acc, B w, B x) {
    // In 16 bits the products of even and of odd bytes fit, and so do the sums of the two.
    const W sums = Even(w) * Even(x) + Odd(w) * Odd(x);
    const I pairs = reinterpret_cast<I>(sums);
    return acc + ((pairs << 16) >> 16) + (pairs >> 16);
  }
  static LACUNA_INLINE I Dot4(I acc, B w, B x) { return Dot8(acc, w, x); }
  template <int kMask, int kSet>
  static LACUNA_INLINE F Bits(I a) {
    return reinterpret_cast<F>((a & kMask) | kSet);
  }
  static LACUNA_INLINE void Deinterleave4(F* r) {
    const F a = r[0], b = r[1], c = r[2], d = r[3];
    for (int i = 0; i < 4; ++i) r[i] = F{a[i], b[i], c[i], d[i]};
  }
  static LACUNA_INLINE void Interleave4(F* r) { Deinterleave4(r); }
  static LACUNA_INLINE F Repeat4(const float* p) { return Set(p[0]); }
  static LACUNA_INLINE F MaxOf4(F a) { return Set(MaxLane(a)); }
  static LACUNA_INLINE F SumOf4(F a) { return Set(Sum(a)); }
  static LACUNA_INLINE F Select(F a, F b, F yes, F no) { return Select(a >= b, yes, no); }
  static LACUNA_INLINE void StoreInt8(int8_t* p, F a) {
    for (int i = 0; i < kLanes; ++i) {
      p[i] = a[i] >= -128.0f && a[i] <= 127.0f ? static_cast<int8_t>(a[i]) : 0;
    }
  }

 private:
  static LACUNA_INLINE W Even(B a) { return (reinterpret_cast<W>(a) << 8) >> 8; }
  static LACUNA_INLINE W Odd(B a) { return reinterpret_cast<W>(a) >> 8; }
  static LACUNA_INLINE F Select(I mask, F yes, F no) {
    return reinterpret_cast<F>((mask & reinterpret_cast<I>(yes)) |
                               (~mask & reinterpret_cast<I>(no)));
  }
  static LACUNA_INLINE F Pow2(I n) { return reinterpret_cast<F>((n + 127) << 23); }
};

}  // namespace

constinit const KernelTable kGenericTable = MakeTable<Generic>("generic");

}  // namespace lacuna
