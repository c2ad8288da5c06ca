#include <immintrin.h>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/table_inl.h"

namespace lacuna {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int64_t kLanes = 8;
  static constexpr int kTileTokens = 3;  // 12 + 3 + 1 of 16 registers

  static LACUNA_INLINE F Set(float s) { return _mm256_set1_ps(s); }
  static LACUNA_INLINE F Load(const float* p) { return _mm256_loadu_ps(p); }
  static LACUNA_INLINE F Load(const Bf16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static LACUNA_INLINE void Store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static LACUNA_INLINE F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static LACUNA_INLINE F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static LACUNA_INLINE F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static LACUNA_INLINE F Round(F a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static LACUNA_INLINE F ScalePow2(F a, F n) {
    // In two factors, since 2^n alone may be out of range.
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return a * Pow2(half) * Pow2(_mm256_sub_epi32(whole, half));
  }

  static LACUNA_INLINE float Sum(F a) {
    float out[4];
    Sum4(a, a, a, a, out);
    return out[0];
  }
  static LACUNA_INLINE void Sum4(F a, F b, F c, F d, float* out) {
    __m128 r0 = Halves(a), r1 = Halves(b), r2 = Halves(c), r3 = Halves(d);
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_storeu_ps(out, (r0 + r2) + (r1 + r3));
  }
  static LACUNA_INLINE float MaxLane(F a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }

  static LACUNA_INLINE F Relu(F a) { return _mm256_and_ps(_mm256_cmp_ps(a, F{}, _CMP_NLE_UQ), a); }
  static LACUNA_INLINE F FatRelu(F a, F t) {
    return _mm256_and_ps(_mm256_cmp_ps(a, t, _CMP_NLT_UQ), a);
  }
  static LACUNA_INLINE int StoreActive(F a, int32_t base, int32_t* out) {
    int active = _mm256_movemask_ps(_mm256_cmp_ps(a, F{}, _CMP_NEQ_UQ));
    int count = 0;
    for (; active != 0; active &= active - 1) out[count++] = base + __builtin_ctz(active);
    return count;
  }

  using I = __m256i;
  using B = __m256i;
  static constexpr int kDotTokens = 2;  // 8 sums, 4 rows of codes, an input and temporaries
  static constexpr int kInt8Offset = 0;

  static LACUNA_INLINE I LoadI(const int32_t* p) { return LoadB(p); }
  static LACUNA_INLINE F ToFloat(I a) { return _mm256_cvtepi32_ps(a); }
  template <int kBits>
  static LACUNA_INLINE I ShiftLeft(I a) {
    return _mm256_slli_epi32(a, kBits);
  }
  template <int kBits>
  static LACUNA_INLINE I ShiftRight(I a) {
    return _mm256_srli_epi32(a, kBits);
  }
  static LACUNA_INLINE I AddI(I a, I b) { return _mm256_add_epi32(a, b); }
  static LACUNA_INLINE B LoadB(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static LACUNA_INLINE void StoreB(void* p, B a) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), a);
  }
  static LACUNA_INLINE B LowNibbles(B a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
  static LACUNA_INLINE B HighNibbles(B a) { return LowNibbles(_mm256_srli_epi16(a, 4)); }
  template <int kCrumb>
  static LACUNA_INLINE B TwiceCrumbs(B a) {
    const B shifted = kCrumb == 0 ? _mm256_slli_epi16(a, 1) : _mm256_srli_epi16(a, 2 * kCrumb - 1);
    return _mm256_and_si256(shifted, _mm256_set1_epi8(6));
  }
  static LACUNA_INLINE B Int8Codes(B a) {
    return _mm256_xor_si256(a, _mm256_set1_epi8(static_cast<char>(128)));
  }
  static LACUNA_INLINE I Dot8(I acc, B w, B x) {
    // The sign moves to the other factor: |w| * (x * sign(w)), at most 2 * 127^2 in 16 bits.
    return Dot4(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  }
  static LACUNA_INLINE I Dot4(I acc, B w, B x) {
    const __m256i pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  template <int kMask, int kSet>
  static LACUNA_INLINE F Bits(I a) {
    return _mm256_castsi256_ps(
        _mm256_or_si256(_mm256_and_si256(a, _mm256_set1_epi32(kMask)), _mm256_set1_epi32(kSet)));
  }
  static LACUNA_INLINE void Deinterleave4(F* r) {
    TransposeHalves(r);
    const __m256i lanes = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int i = 0; i < 4; ++i) r[i] = _mm256_permutevar8x32_ps(r[i], lanes);
  }
  static LACUNA_INLINE void Interleave4(F* r) {
    const __m256i lanes = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    for (int i = 0; i < 4; ++i) r[i] = _mm256_permutevar8x32_ps(r[i], lanes);
    TransposeHalves(r);
  }
  static LACUNA_INLINE F Repeat4(const float* p) {
    return _mm256_set_m128(_mm_set1_ps(p[1]), _mm_set1_ps(p[0]));
  }
  static LACUNA_INLINE F MaxOf4(F a) {
    a = Max(a, _mm256_permute_ps(a, 0xB1));
    return Max(a, _mm256_permute_ps(a, 0x4E));
  }
  static LACUNA_INLINE F SumOf4(F a) {
    a = a + _mm256_permute_ps(a, 0xB1);
    return a + _mm256_permute_ps(a, 0x4E);
  }
  static LACUNA_INLINE F Select(F a, F b, F yes, F no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GE_OQ));
  }
  static LACUNA_INLINE void StoreInt8(int8_t* p, F a) {
    const __m256i wide = _mm256_cvtps_epi32(a);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }

 private:
  static LACUNA_INLINE F Pow2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  // In each 128-bit half, element i of r[k] becomes element k of r[i].
  static LACUNA_INLINE void TransposeHalves(F* r) {
    const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
    const __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
    const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
    const __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
    r[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23));
    r[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23));
    r[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23));
    r[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23));
  }
  static LACUNA_INLINE __m128 Halves(F a) {
    return _mm256_castps256_ps128(a) + _mm256_extractf128_ps(a, 1);
  }
};

}  // namespace

constinit const KernelTable kAvx2Table = MakeTable<Avx2>("avx2");

}  // namespace lacuna
