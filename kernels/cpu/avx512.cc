#include "kernels/cpu/avx512_inl.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/table_inl.h"

namespace lacuna {
namespace {

struct Avx512 : Avx512Base {
  static constexpr int kInt8Offset = 0;

  static LACUNA_INLINE B Int8Codes(B a) {
    return _mm512_xor_si512(a, _mm512_set1_epi8(static_cast<char>(128)));
  }
  static LACUNA_INLINE I Dot8(I acc, B w, B x) {
    // The sign moves to the other factor: |w| * (x * sign(w)), at most 2 * 127^2 in 16 bits.
    const B signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), B{}, x);
    return Dot4(acc, _mm512_abs_epi8(w), signed_x);
  }
  static LACUNA_INLINE I Dot4(I acc, B w, B x) {
    const __m512i pairs = _mm512_maddubs_epi16(w, x);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

}  // namespace

constinit const KernelTable kAvx512Table = MakeTable<Avx512>("avx512");

}  // namespace lacuna
