#include "kernels/cuda/ptx.cuh"

#include <deque>
#include <utility>
#include <vector>

namespace lacuna {
namespace {

using cuda_emulation::Collective;

struct Copy {
  void* shared;
  const void* global;
  bool valid;
};

// Groups of copies under way of each thread of the block, the last one still open.
std::deque<std::vector<Copy>>& Groups() {
  static std::vector<std::deque<std::vector<Copy>>> groups(1024);
  const cuda_emulation::Dim3 i = threadIdx, n = blockDim;
  auto& own = groups[(i.z * n.y + i.y) * n.x + i.x];
  if (own.empty()) own.emplace_back();
  return own;
}

// A whole operand of a warp: lane l's register r.
template <int kRegisters>
void Gather(const char* operation, const uint32_t (&mine)[kRegisters],
            uint32_t (&all)[32][kRegisters]) {
  for (int r = 0; r < kRegisters; ++r) {
    const uint64_t* const values = Collective(operation, 0xFFFFFFFFu, mine[r]);
    for (int lane = 0; lane < 32; ++lane) all[lane][r] = static_cast<uint32_t>(values[lane]);
  }
}

float Bf16(uint32_t bits) { return __uint_as_float(bits << 16); }

}  // namespace

void CopyAsync16(void* shared, const void* global, bool valid) {
  Groups().back().push_back({shared, global, valid});
}

void CommitCopies() { Groups().emplace_back(); }

void WaitCopies(int pending) {
  auto& groups = Groups();
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const Copy& copy : groups.front()) {
      if (copy.valid) {
        std::memcpy(copy.shared, copy.global, 16);
      } else {
        std::memset(copy.shared, 0, 16);
      }
    }
    groups.pop_front();
  }
}

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  uint32_t all_a[32][4], all_b[32][2];
  Gather("MmaBf16", a, all_a);
  Gather("MmaBf16", b, all_b);
  const unsigned lane = cuda_emulation::Lane();
  for (unsigned r = 0; r < 4; ++r) {
    const unsigned row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    double sum = d[r];
    for (unsigned k = 0; k < 16; ++k) {
      const uint32_t from_a = all_a[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
      const uint32_t from_b = all_b[column * 4 + k % 8 / 2][k / 8];
      sum += static_cast<double>(Bf16(from_a >> (k % 2 * 16) & 0xFFFF)) *
             Bf16(from_b >> (k % 2 * 16) & 0xFFFF);
    }
    d[r] = static_cast<float>(sum);
  }
}

void MmaInt8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  uint32_t all_a[32][4], all_b[32][2];
  Gather("MmaInt8", a, all_a);
  Gather("MmaInt8", b, all_b);
  const unsigned lane = cuda_emulation::Lane();
  for (unsigned r = 0; r < 4; ++r) {
    const unsigned row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    for (unsigned k = 0; k < 32; ++k) {
      const uint32_t from_a = all_a[row % 8 * 4 + k % 16 / 4][row / 8 + k / 16 * 2];
      const uint32_t from_b = all_b[column * 4 + k % 16 / 4][k / 16];
      d[r] +=
          static_cast<int8_t>(from_a >> (k % 4 * 8)) * static_cast<int8_t>(from_b >> (k % 4 * 8));
    }
  }
}

}  // namespace lacuna
