#ifndef LACUNA_KERNELS_CPU_AVX512VNNI_INL_H_
#define LACUNA_KERNELS_CPU_AVX512VNNI_INL_H_

#include "kernels/cpu/avx512_inl.h"

namespace lacuna {
namespace {

struct Avx512Vnni : Avx512Base {
  static constexpr int kInt8Offset = 128;

  // The instruction takes unsigned bytes times signed ones: as they are stored.
  static LACUNA_INLINE B Int8Codes(B a) { return a; }
  // GCC 12 copies the accumulator of the intrinsic around and spills it, which halves the speed of
  // a full tile; it leaves that of an assembler operand in place.
  static LACUNA_INLINE I Dot8(I acc, B w, B x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
    return acc;
  }
  static LACUNA_INLINE I Dot4(I acc, B w, B x) { return Dot8(acc, w, x); }
};

}  // namespace
}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_AVX512VNNI_INL_H_
