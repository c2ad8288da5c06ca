#include "bench/cuda_bandwidth.h"

#include <algorithm>

#include "kernels/cuda/cuda_buffer.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

absl::StatusOr<double> CudaCopyBandwidth(int gpu) {
  constexpr int64_t kBytes = int64_t{512} << 20;  // ten times the second-level cache of an H100
  constexpr int kRepeats = 5;
  const absl::Status status = SetCudaDevice(gpu);
  if (!status.ok()) return status;
  absl::StatusOr<DeviceBuffer> from = DeviceBuffer::Allocate(kBytes);
  if (!from.ok()) return from.status();
  absl::StatusOr<DeviceBuffer> to = DeviceBuffer::Allocate(kBytes);
  if (!to.ok()) return to.status();
  absl::StatusOr<CudaStream> stream = CudaStream::Create();
  if (!stream.ok()) return stream.status();
  absl::StatusOr<CudaEvent> start = CudaEvent::Create();
  if (!start.ok()) return start.status();
  absl::StatusOr<CudaEvent> end = CudaEvent::Create();
  if (!end.ok()) return end.status();
  stream->Zero(from->data(), kBytes);
  double best = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    stream->Record(*start);
    stream->CopyOnDevice(to->data(), from->data(), kBytes);
    stream->Record(*end);
    const absl::Status done = stream->Synchronize();
    if (!done.ok()) return done;
    const absl::StatusOr<double> seconds = end->SecondsSince(*start);
    if (!seconds.ok()) return seconds.status();
    best = std::max(best, 2 * static_cast<double>(kBytes) / *seconds);
  }
  return best;
}

}  // namespace lacuna
