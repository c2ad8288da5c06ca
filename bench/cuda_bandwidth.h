#ifndef LACUNA_BENCH_CUDA_BANDWIDTH_H_
#define LACUNA_BENCH_CUDA_BANDWIDTH_H_

#include "absl/status/statusor.h"

namespace lacuna {

// Bytes per second that GPU number `gpu` moves in a copy within its memory, reads and writes
// together. UNIMPLEMENTED in a build without CUDA.
absl::StatusOr<double> CudaCopyBandwidth(int gpu);

}  // namespace lacuna

#endif  // LACUNA_BENCH_CUDA_BANDWIDTH_H_
