#include "bench/bandwidth.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

namespace lacuna {

absl::StatusOr<BandwidthProbe> BandwidthProbe::Create(ThreadPool* pool) {
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(kBytes);
  if (!buffer.ok()) return buffer.status();
  std::memset(buffer->data(), 1, kBytes);  // untouched pages would all be one page of zeros
  BandwidthProbe probe;
  probe.pool_ = pool;
  probe.buffer_ = *std::move(buffer);
  return probe;
}

double BandwidthProbe::Measure() const {
  std::atomic<uint64_t> sink{0};
  const auto start = std::chrono::steady_clock::now();
  pool_->ParallelFor(kBytes / 64, 64, [&](int64_t begin, int64_t end, int) {
    const uint64_t* words = reinterpret_cast<const uint64_t*>(buffer_.data());
    uint64_t sums[8] = {};
    for (int64_t i = begin * 8; i < end * 8; i += 8) {
      for (int k = 0; k < 8; ++k) sums[k] += words[i + k];
    }
    for (uint64_t sum : sums) sink += sum;
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(kBytes) / seconds.count();
}

}  // namespace lacuna
