#include "runtime/model/gguf_types.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/model/float_bits.h"

// The layouts are those of GGML's block types. Elements of a block are numbered in the order of the
// row; "nibbles" are 4-bit halves of bytes. Loops have constant bounds and no branch, so that
// compilers make vectors of them.
//
// -ffp-contract=off keeps scale * code - minimum in two roundings, as the oracle computes it.

namespace lacuna {
namespace {

template <typename T>
T Load(const std::byte* in) {
  T value;
  std::memcpy(&value, in, sizeof(T));
  return value;
}

float LoadF16(const std::byte* in) { return F16ToF32(Load<uint16_t>(in)); }

int Byte(const std::byte* in) { return std::to_integer<int>(*in); }
int SignedByte(const std::byte* in) { return static_cast<int8_t>(Byte(in)); }

void F32(const std::byte* in, int64_t n, float* __restrict out) {
  std::memcpy(out, in, n * sizeof(float));
}

void F16(const std::byte* in, int64_t n, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = LoadF16(in + 2 * i);
}

void Bf16(const std::byte* in, int64_t n, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = Bf16ToF32(Load<uint16_t>(in + 2 * i));
}

// {f16 scale, int8 codes[32]}.
void Q8_0(const std::byte* in, int64_t blocks, float* __restrict out) {
  for (; blocks > 0; --blocks, in += 34, out += 32) {
    const float scale = LoadF16(in);
    for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(SignedByte(in + 2 + i)) * scale;
  }
}

// The 4-bit codes of 32 elements: the low nibbles of 16 bytes, then the high ones.
void Nibbles32(const std::byte* in, int* __restrict codes) {
  for (int i = 0; i < 16; ++i) codes[i] = Byte(in + i) & 15;
  for (int i = 0; i < 16; ++i) codes[16 + i] = Byte(in + i) >> 4;
}

// The same with fifth bits, that of element i in bit i of `high`.
void FiveBits32(const std::byte* in, uint32_t high, int* __restrict codes) {
  Nibbles32(in, codes);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<int>(high >> i & 1) << 4;
}

// {f16 scale, nibbles[16]}, offset by 8.
void Q4_0(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[32];
  for (; blocks > 0; --blocks, in += 18, out += 32) {
    const float scale = LoadF16(in);
    Nibbles32(in + 2, codes);
    for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(codes[i] - 8);
  }
}

// {f16 scale, f16 minimum, nibbles[16]}.
void Q4_1(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[32];
  for (; blocks > 0; --blocks, in += 20, out += 32) {
    const float scale = LoadF16(in);
    const float minimum = LoadF16(in + 2);
    Nibbles32(in + 4, codes);
    for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(codes[i]) + minimum;
  }
}

// {f16 scale, fifth bits (32 bits), nibbles[16]}, offset by 16.
void Q5_0(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[32];
  for (; blocks > 0; --blocks, in += 22, out += 32) {
    const float scale = LoadF16(in);
    FiveBits32(in + 6, Load<uint32_t>(in + 2), codes);
    for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(codes[i] - 16);
  }
}

// {f16 scale, f16 minimum, fifth bits (32 bits), nibbles[16]}.
void Q5_1(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[32];
  for (; blocks > 0; --blocks, in += 24, out += 32) {
    const float scale = LoadF16(in);
    const float minimum = LoadF16(in + 2);
    FiveBits32(in + 8, Load<uint32_t>(in + 4), codes);
    for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(codes[i]) + minimum;
  }
}

// 2-bit codes of 128 elements: byte i of 32 holds those of elements i, i + 32, i + 64 and i + 96.
void Pairs128(const std::byte* in, int* __restrict codes) {
  for (int quarter = 0; quarter < 4; ++quarter) {
    for (int i = 0; i < 32; ++i) codes[quarter * 32 + i] = Byte(in + i) >> (2 * quarter) & 3;
  }
}

// {16 x (4-bit scale, 4-bit minimum), 2-bit codes[64], f16 scale, f16 scale of minima}: 16 groups
// of 16 elements.
void Q2K(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[256];
  for (; blocks > 0; --blocks, in += 84, out += 256) {
    Pairs128(in + 16, codes);
    Pairs128(in + 48, codes + 128);
    for (int g = 0; g < 16; ++g) {
      const float scale = LoadF16(in + 80) * static_cast<float>(Byte(in + g) & 15);
      const float minimum = LoadF16(in + 82) * static_cast<float>(Byte(in + g) >> 4);
      for (int i = g * 16; i < g * 16 + 16; ++i) {
        out[i] = scale * static_cast<float>(codes[i]) - minimum;
      }
    }
  }
}

// {third bits[32], 2-bit codes[64], 16 6-bit scales in 12 bytes, f16 scale}. Where the third bit,
// bit i / 32 of byte i % 32, is 0, 4 is taken away. Scales are offset by 32: their low nibbles are
// bytes 0 to 7, their high pairs of bits bytes 8 to 11.
void Q3K(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[256];
  for (; blocks > 0; --blocks, in += 110, out += 256) {
    Pairs128(in + 32, codes);
    Pairs128(in + 64, codes + 128);
    for (int eighth = 0; eighth < 8; ++eighth) {
      for (int i = 0; i < 32; ++i) {
        codes[eighth * 32 + i] += (Byte(in + i) >> eighth & 1) * 4 - 4;
      }
    }
    const std::byte* scales = in + 96;
    for (int g = 0; g < 16; ++g) {
      const int low = Byte(scales + g % 8) >> (g / 8 * 4) & 15;
      const int high = Byte(scales + 8 + g % 4) >> (g / 4 * 2) & 3;
      const float scale = LoadF16(in + 108) * static_cast<float>((low | high << 4) - 32);
      for (int i = g * 16; i < g * 16 + 16; ++i) out[i] = scale * static_cast<float>(codes[i]);
    }
  }
}

// Eight 6-bit scales and eight 6-bit minima in 12 bytes: the first four of each in the low bits of
// bytes 0 to 3 and 4 to 7; the low nibbles of the others in bytes 8 to 11, their high bits above
// the first.
int KScale(const std::byte* packed, int g) {
  if (g < 4) return Byte(packed + g) & 63;
  return (Byte(packed + 4 + g) & 15) | (Byte(packed + g - 4) >> 6) << 4;
}
int KMinimum(const std::byte* packed, int g) {
  if (g < 4) return Byte(packed + 4 + g) & 63;
  return Byte(packed + 4 + g) >> 4 | (Byte(packed + g) >> 6) << 4;
}

// {f16 scale, f16 scale of minima, scales and minima[12], nibbles[128]}: 8 groups of 32. 32 bytes
// of nibbles hold two groups, the low ones the first.
void Q4K(const std::byte* in, int64_t blocks, float* __restrict out) {
  for (; blocks > 0; --blocks, in += 144, out += 256) {
    for (int g = 0; g < 8; ++g) {
      const float scale = LoadF16(in) * static_cast<float>(KScale(in + 4, g));
      const float minimum = LoadF16(in + 2) * static_cast<float>(KMinimum(in + 4, g));
      const std::byte* nibbles = in + 16 + g / 2 * 32;
      const int shift = g % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int code = Byte(nibbles + i) >> shift & 15;
        out[g * 32 + i] = scale * static_cast<float>(code) - minimum;
      }
    }
  }
}

// As Q4_K with fifth bits[32] before the nibbles: bit g of byte i for element i of group g.
void Q5K(const std::byte* in, int64_t blocks, float* __restrict out) {
  for (; blocks > 0; --blocks, in += 176, out += 256) {
    for (int g = 0; g < 8; ++g) {
      const float scale = LoadF16(in) * static_cast<float>(KScale(in + 4, g));
      const float minimum = LoadF16(in + 2) * static_cast<float>(KMinimum(in + 4, g));
      const std::byte* nibbles = in + 48 + g / 2 * 32;
      const int shift = g % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int code = (Byte(nibbles + i) >> shift & 15) | (Byte(in + 16 + i) >> g & 1) << 4;
        out[g * 32 + i] = scale * static_cast<float>(code) - minimum;
      }
    }
  }
}

// {nibbles[128], pairs of high bits[64], int8 scales[16], f16 scale}, offset by 32: 16 groups
// of 16. Each half of 128 elements: 64 bytes of nibbles, the low ones first, and 32 bytes of pairs.
void Q6K(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[256];
  for (; blocks > 0; --blocks, in += 210, out += 256) {
    for (int half = 0; half < 2; ++half) {
      int* const out_codes = codes + half * 128;
      const std::byte* nibbles = in + half * 64;
      Pairs128(in + 128 + half * 32, out_codes);
      for (int i = 0; i < 64; ++i) {
        out_codes[i] = (out_codes[i] << 4 | (Byte(nibbles + i) & 15)) - 32;
      }
      for (int i = 0; i < 64; ++i) {
        out_codes[64 + i] = (out_codes[64 + i] << 4 | Byte(nibbles + i) >> 4) - 32;
      }
    }
    for (int g = 0; g < 16; ++g) {
      const float scale = LoadF16(in + 208) * static_cast<float>(SignedByte(in + 192 + g));
      for (int i = g * 16; i < g * 16 + 16; ++i) out[i] = scale * static_cast<float>(codes[i]);
    }
  }
}

// What the 4-bit codes of the IQ4 types stand for.
constexpr int kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};

// As Q4_0, with these values.
void Iq4Nl(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[32];
  for (; blocks > 0; --blocks, in += 18, out += 32) {
    const float scale = LoadF16(in);
    Nibbles32(in + 2, codes);
    for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(kIq4Values[codes[i]]);
  }
}

// {f16 scale, high pairs of bits of 8 scales (16 bits), their low nibbles[4], 8 groups of
// nibbles[16]}. Scales are offset by 32.
void Iq4Xs(const std::byte* in, int64_t blocks, float* __restrict out) {
  int codes[32];
  for (; blocks > 0; --blocks, in += 136, out += 256) {
    const uint32_t high = Load<uint16_t>(in + 2);
    for (int g = 0; g < 8; ++g) {
      const int low = Byte(in + 4 + g / 2) >> (g % 2 * 4) & 15;
      const int code = low | static_cast<int>(high >> (2 * g) & 3) << 4;
      const float scale = LoadF16(in) * static_cast<float>(code - 32);
      Nibbles32(in + 8 + g * 16, codes);
      for (int i = 0; i < 32; ++i) {
        out[g * 32 + i] = scale * static_cast<float>(kIq4Values[codes[i]]);
      }
    }
  }
}

constexpr GgufType kTypes[] = {
    {0, "F32", 1, 4, F32},
    {1, "F16", 1, 2, F16},
    {30, "BF16", 1, 2, Bf16},
    {8, "Q8_0", 32, 34, Q8_0},
    {2, "Q4_0", 32, 18, Q4_0},
    {3, "Q4_1", 32, 20, Q4_1},
    {6, "Q5_0", 32, 22, Q5_0},
    {7, "Q5_1", 32, 24, Q5_1},
    {10, "Q2_K", 256, 84, Q2K},
    {11, "Q3_K", 256, 110, Q3K},
    {12, "Q4_K", 256, 144, Q4K},
    {13, "Q5_K", 256, 176, Q5K},
    {14, "Q6_K", 256, 210, Q6K},
    {20, "IQ4_NL", 32, 18, Iq4Nl},
    {23, "IQ4_XS", 256, 136, Iq4Xs},
    {9, "Q8_1"},
    {15, "Q8_K"},
    {16, "IQ2_XXS"},
    {17, "IQ2_XS"},
    {18, "IQ3_XXS"},
    {19, "IQ1_S"},
    {21, "IQ3_S"},
    {22, "IQ2_S"},
    {24, "I8"},
    {25, "I16"},
    {26, "I32"},
    {27, "I64"},
    {28, "F64"},
    {29, "IQ1_M"},
    {34, "TQ1_0"},
    {35, "TQ2_0"},
    {39, "MXFP4"},
    {40, "NVFP4"},
};

}  // namespace

const GgufType* FindGgufType(uint32_t id) {
  for (const GgufType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

std::string ReadableGgufTypes() {
  std::string names;
  for (const GgufType& type : kTypes) {
    if (type.is_read()) absl::StrAppend(&names, names.empty() ? "" : ", ", type.name);
  }
  return names;
}

}  // namespace lacuna
