#include "kernels/cuda/ptx.cuh"

namespace lacuna {
namespace {

using cuda_emulation::Collective;

// What a lane brings to a product.
struct Operands {
  uint32_t a[4], b[2];
};

// Calls f with the operands of all lanes, which stay where they are until all have done so.
template <class Function>
void WithOperands(const char* operation, const uint32_t (&a)[4], const uint32_t (&b)[2],
                  Function f) {
  Operands mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const uint64_t* const values =
      Collective(operation, 0xFFFFFFFFu, reinterpret_cast<uintptr_t>(&mine));
  const Operands* all[32];
  for (int lane = 0; lane < 32; ++lane) all[lane] = reinterpret_cast<const Operands*>(values[lane]);
  f(all);
  Collective(operation, 0xFFFFFFFFu, 0);
}

float Bf16(uint32_t bits) { return __uint_as_float(bits << 16); }

}  // namespace

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  WithOperands("MmaBf16", a, b, [&](const Operands* const(&all)[32]) {
    const unsigned lane = cuda_emulation::Lane();
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
      double sum = d[r];
      for (unsigned k = 0; k < 16; ++k) {
        const uint32_t from_a = all[row % 8 * 4 + k % 8 / 2]->a[row / 8 + k / 8 * 2];
        const uint32_t from_b = all[column * 4 + k % 8 / 2]->b[k / 8];
        sum += static_cast<double>(Bf16(from_a >> (k % 2 * 16) & 0xFFFF)) *
               Bf16(from_b >> (k % 2 * 16) & 0xFFFF);
      }
      d[r] = static_cast<float>(sum);
    }
  });
}

void MmaInt8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  WithOperands("MmaInt8", a, b, [&](const Operands* const(&all)[32]) {
    const unsigned lane = cuda_emulation::Lane();
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
      for (unsigned k = 0; k < 32; ++k) {
        const uint32_t from_a = all[row % 8 * 4 + k % 16 / 4]->a[row / 8 + k / 16 * 2];
        const uint32_t from_b = all[column * 4 + k % 16 / 4]->b[k / 16];
        d[r] +=
            static_cast<int8_t>(from_a >> (k % 4 * 8)) * static_cast<int8_t>(from_b >> (k % 4 * 8));
      }
    }
  });
}

}  // namespace lacuna
