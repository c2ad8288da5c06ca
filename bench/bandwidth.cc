#include "bench/bandwidth.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

namespace lacuna {
namespace {

// One thread reads its part as this many streams at once, fetching ahead: on the machines tried
// that reads a quarter to a half faster than one stream does.
constexpr int64_t kStreams = 8;
constexpr int64_t kLineBytes = 64;
constexpr int64_t kAheadBytes = 512;

// The sum keeps the reads from being optimised away.
__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t ReadAll(const std::byte* data,
                                                                              int64_t bytes) {
  const int64_t stream_bytes = bytes / kStreams / kLineBytes * kLineBytes;
  uint64_t sums[8] = {};
  for (int64_t i = 0; i < stream_bytes; i += kLineBytes) {
    for (int64_t s = 0; s < kStreams; ++s) {
      const std::byte* line = data + s * stream_bytes + i;
      __builtin_prefetch(line + kAheadBytes);
      const uint64_t* words = reinterpret_cast<const uint64_t*>(line);
      for (int k = 0; k < 8; ++k) sums[k] += words[k];
    }
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

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
  pool_->ParallelFor(kBytes, kStreams * kLineBytes, [&](int64_t begin, int64_t end, int) {
    sink += ReadAll(buffer_.data() + begin, end - begin);
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return static_cast<double>(kBytes) / seconds.count();
}

}  // namespace lacuna
