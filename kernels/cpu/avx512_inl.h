#ifndef LACUNA_KERNELS_CPU_AVX512_INL_H_
#define LACUNA_KERNELS_CPU_AVX512_INL_H_

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace lacuna {
namespace {

// Everything but the integer dot products. In an anonymous namespace, since three sources compile
// it for different instruction sets.
struct Avx512Base {
  using F = __m512;
  static constexpr int64_t kLanes = 16;
  static constexpr int kTileTokens = 6;  // 24 + 6 + 1 of 32 registers

  static LACUNA_INLINE F Set(float s) { return _mm512_set1_ps(s); }
  static LACUNA_INLINE F Load(const float* p) { return _mm512_loadu_ps(p); }
  static LACUNA_INLINE F Load(const Bf16* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static LACUNA_INLINE void Store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static LACUNA_INLINE F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static LACUNA_INLINE F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static LACUNA_INLINE F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static LACUNA_INLINE F Round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static LACUNA_INLINE F ScalePow2(F a, F n) { return _mm512_scalef_ps(a, n); }

  static LACUNA_INLINE float Sum(F a) {
    float out[4];
    Sum4(a, a, a, a, out);
    return out[0];
  }
  static LACUNA_INLINE void Sum4(F a, F b, F c, F d, float* out) {
    const F ab = _mm512_shuffle_f32x4(a, b, 0x44) + _mm512_shuffle_f32x4(a, b, 0xEE);
    const F cd = _mm512_shuffle_f32x4(c, d, 0x44) + _mm512_shuffle_f32x4(c, d, 0xEE);
    // One 128-bit part for each of a, b, c, d.
    F s = _mm512_shuffle_f32x4(ab, cd, 0x88) + _mm512_shuffle_f32x4(ab, cd, 0xDD);
    s = s + _mm512_permute_ps(s, 0x4E);
    s = s + _mm512_permute_ps(s, 0xB1);
    const __m512i first_lanes = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(first_lanes, s)));
  }
  static LACUNA_INLINE float MaxLane(F a) { return _mm512_reduce_max_ps(a); }

  static LACUNA_INLINE F Relu(F a) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, F{}, _CMP_NLE_UQ), a);
  }
  static LACUNA_INLINE F FatRelu(F a, F t) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, t, _CMP_NLT_UQ), a);
  }
  static LACUNA_INLINE int StoreActive(F a, int32_t base, int32_t* out) {
    const __mmask16 active = _mm512_cmp_ps_mask(a, F{}, _CMP_NEQ_UQ);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(base), lanes);
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(active, index));
    return __builtin_popcount(active);
  }

  using I = __m512i;
  using B = __m512i;
  static constexpr int kDotTokens = 4;  // 16 sums, 4 rows of codes, their nibbles and an input

  static LACUNA_INLINE I LoadI(const int32_t* p) { return _mm512_loadu_si512(p); }
  static LACUNA_INLINE F ToFloat(I a) { return _mm512_cvtepi32_ps(a); }
  template <int kBits>
  static LACUNA_INLINE I ShiftLeft(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  static LACUNA_INLINE I ShiftRight(I a) {
    return _mm512_srli_epi32(a, kBits);
  }
  static LACUNA_INLINE I AddI(I a, I b) { return _mm512_add_epi32(a, b); }
  static LACUNA_INLINE B LoadB(const void* p) { return _mm512_loadu_si512(p); }
  static LACUNA_INLINE void StoreB(void* p, B a) { _mm512_storeu_si512(p, a); }
  static LACUNA_INLINE B LowNibbles(B a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
  static LACUNA_INLINE B HighNibbles(B a) { return LowNibbles(_mm512_srli_epi16(a, 4)); }
  template <int kCrumb>
  static LACUNA_INLINE B TwiceCrumbs(B a) {
    const B shifted = kCrumb == 0 ? _mm512_slli_epi16(a, 1) : _mm512_srli_epi16(a, 2 * kCrumb - 1);
    return _mm512_and_si512(shifted, _mm512_set1_epi8(6));
  }
  template <int kMask, int kSet>
  static LACUNA_INLINE F Bits(I a) {
    constexpr int kAndOr = 0xEA;  // (a & b) | c
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(a, _mm512_set1_epi32(kMask), _mm512_set1_epi32(kSet), kAndOr));
  }
  static LACUNA_INLINE void Deinterleave4(F* r) {
    TransposeQuarters(r);
    TransposeLanes(r);
  }
  static LACUNA_INLINE void Interleave4(F* r) {
    TransposeLanes(r);
    TransposeQuarters(r);
  }
  static LACUNA_INLINE F Repeat4(const float* p) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(_mm_loadu_ps(p)));
  }
  static LACUNA_INLINE F MaxOf4(F a) {
    a = Max(a, _mm512_permute_ps(a, 0xB1));
    return Max(a, _mm512_permute_ps(a, 0x4E));
  }
  static LACUNA_INLINE F SumOf4(F a) {
    a = a + _mm512_permute_ps(a, 0xB1);
    return a + _mm512_permute_ps(a, 0x4E);
  }
  static LACUNA_INLINE F Select(F a, F b, F yes, F no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), no, yes);
  }
  static LACUNA_INLINE void StoreInt8(int8_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a)));
  }

  // In each 128-bit quarter, element i of r[k] becomes element k of r[i].
  static LACUNA_INLINE void TransposeQuarters(F* r) {
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
    r[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
    r[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
    r[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
    r[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
  }

 private:
  // In each register, element k of quarter j becomes element j of quarter k.
  static LACUNA_INLINE void TransposeLanes(F* r) {
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int i = 0; i < 4; ++i) r[i] = _mm512_permutexvar_ps(lanes, r[i]);
  }
};

}  // namespace
}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_AVX512_INL_H_
