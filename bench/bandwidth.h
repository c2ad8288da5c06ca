#ifndef LACUNA_BENCH_BANDWIDTH_H_
#define LACUNA_BENCH_BANDWIDTH_H_

#include "absl/status/statusor.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"

namespace lacuna {

// Streams through a buffer larger than the caches with every thread of a pool: the speed at which
// this machine can read weights at this moment.
class BandwidthProbe {
 public:
  // Takes kBytes of memory.
  static absl::StatusOr<BandwidthProbe> Create(ThreadPool* pool);
  // Bytes per second of one pass.
  double Measure() const;

 private:
  // Four times the largest last-level cache (256 MiB) of the servers this runs on.
  static constexpr int64_t kBytes = int64_t{1} << 30;
  ThreadPool* pool_ = nullptr;
  AlignedBuffer buffer_;
};

}  // namespace lacuna

#endif  // LACUNA_BENCH_BANDWIDTH_H_
