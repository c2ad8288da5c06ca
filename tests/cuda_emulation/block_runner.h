#ifndef LACUNA_TESTS_CUDA_EMULATION_BLOCK_RUNNER_H_
#define LACUNA_TESTS_CUDA_EMULATION_BLOCK_RUNNER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

// Runs CUDA kernels that were compiled as C++ on one CPU thread. The blocks of a grid run one after
// the other; the threads of a block are fibers, each of which runs until it has to wait for others.
// So __shared__ is `static`, atomics are plain, and a kernel that spins until another block has
// done something never ends.
namespace cuda_emulation {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

// In which order blocks, warps and lanes get their turns. A kernel that lacks a barrier gives a
// wrong result in some of them.
enum class Order { kForward, kBackward, kShuffled };
// For everything that runs from now on; `seed` is for kShuffled. Otherwise the environment variable
// LACUNA_CUDA_ORDER decides: forward (the default), backward, or a number, the seed.
void SetOrder(Order order, uint32_t seed = 0);

// Runs `body` as every thread of every block, with `shared_bytes` of dynamic shared memory, which
// begins as garbage. Empty, or what the kernel did wrong: a barrier or a warp collective that some
// of its threads never reach.
std::string RunGrid(Dim3 grid, Dim3 block, size_t shared_bytes, const std::function<void()>& body);

// What follows is called by emulated device code, of the thread that runs.

// Where the thread is; as CUDA's built-in variables.
extern Dim3 thread_index, block_index, block_dim, grid_dim;

void* DynamicShared();

// Waits for all threads of the block; the sum of `value` over them.
int64_t SyncThreads(int value);

// Waits until all lanes of `mask` have come with the same operation and mask; then the values that
// they brought, by lane. The array is valid until the thread waits again.
const uint64_t* Collective(const char* operation, uint32_t mask, uint64_t value);

// The thread's lane in its warp.
unsigned Lane();

}  // namespace cuda_emulation

#endif  // LACUNA_TESTS_CUDA_EMULATION_BLOCK_RUNNER_H_
