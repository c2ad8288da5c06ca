#ifndef LACUNA_TESTS_CUDA_EMULATION_VECTOR_TYPES_H_
#define LACUNA_TESTS_CUDA_EMULATION_VECTOR_TYPES_H_

// CUDA's vector types, with its alignments.

#define LACUNA_VECTOR_TYPES(type, name, align2, align4)            \
  struct name##1 {                                                 \
    type x;                                                        \
  };                                                               \
  struct alignas(align2) name##2 {                                 \
    type x, y;                                                     \
  };                                                               \
  struct name##3 {                                                 \
    type x, y, z;                                                  \
  };                                                               \
  struct alignas(align4) name##4 {                                 \
    type x, y, z, w;                                               \
  };                                                               \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

LACUNA_VECTOR_TYPES(float, float, 8, 16)
LACUNA_VECTOR_TYPES(int, int, 8, 16)
LACUNA_VECTOR_TYPES(unsigned int, uint, 8, 16)
LACUNA_VECTOR_TYPES(short, short, 4, 8)
LACUNA_VECTOR_TYPES(unsigned short, ushort, 4, 8)
LACUNA_VECTOR_TYPES(signed char, char, 2, 4)
LACUNA_VECTOR_TYPES(unsigned char, uchar, 2, 4)
#undef LACUNA_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#endif  // LACUNA_TESTS_CUDA_EMULATION_VECTOR_TYPES_H_
