#ifndef LACUNA_KERNELS_CUDA_CUDA_STREAM_H_
#define LACUNA_KERNELS_CUDA_CUDA_STREAM_H_

#include <cstdint>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

// CUDA's own types, so that this header needs none of its headers.
struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace lacuna {

// A point in the work of a stream, and when it was reached. Movable, not copyable.
class CudaEvent {
 public:
  static absl::StatusOr<CudaEvent> Create();
  ~CudaEvent();
  CudaEvent(CudaEvent&& other) noexcept { *this = std::move(other); }
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  // Seconds of the GPU from `start` to this event; both have been recorded, and the stream
  // synchronized since.
  absl::StatusOr<double> SecondsSince(const CudaEvent& start) const;

  CUevent_st* get() const { return event_; }

 private:
  CudaEvent() = default;
  CUevent_st* event_ = nullptr;
};

// A queue of work for the GPU of the thread that creates it. Whatever takes a CudaStream& only
// enqueues. Host memory of a copy is pinned, and neither freed nor changed before Synchronize.
// For one thread at a time, whose GPU (SetCudaDevice) is the stream's. Movable, not copyable.
class CudaStream {
 public:
  static absl::StatusOr<CudaStream> Create();
  ~CudaStream();
  CudaStream(CudaStream&& other) noexcept { *this = std::move(other); }
  CudaStream& operator=(CudaStream&& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(status_, other.status_);
    std::swap(last_, other.last_);
    return *this;
  }

  void CopyToDevice(void* device, const void* host, int64_t bytes);
  void CopyToHost(void* host, const void* device, int64_t bytes);
  void CopyOnDevice(void* to, const void* from, int64_t bytes);
  void Zero(void* device, int64_t bytes);
  void Record(const CudaEvent& event);
  // What is enqueued from now on begins after `event`, recorded in any stream, has been reached.
  void Wait(const CudaEvent& event);

  // Waits until everything enqueued is done. The first error since the stream was created, with the
  // name of what failed or, where the GPU does not tell, of what was enqueued last. After an error
  // the stream is of no more use.
  absl::Status Synchronize();

  // For whatever enqueues: notes that `what`, a literal, was enqueued, with CUDA's error code.
  void Enqueued(const char* what, int error);
  // Makes the stream fail with `status`, if it has not failed yet.
  void Fail(absl::Status status);
  // The first error so far of what was enqueued; OK says nothing about what has run.
  const absl::Status& status() const { return status_; }

  CUstream_st* get() const { return stream_; }

 private:
  CudaStream() = default;
  CUstream_st* stream_ = nullptr;
  absl::Status status_;
  const char* last_ = "nothing";
};

// Work that has been enqueued once and can be repeated at the cost of one launch: the same kernels
// on the same addresses. Movable, not copyable.
class CudaGraph {
 public:
  CudaGraph() = default;
  // Records what `enqueue` puts into `stream`, without running it. `enqueue` neither allocates nor
  // synchronizes.
  static absl::StatusOr<CudaGraph> Capture(CudaStream& stream, absl::FunctionRef<void()> enqueue);
  ~CudaGraph();
  CudaGraph(CudaGraph&& other) noexcept { *this = std::move(other); }
  CudaGraph& operator=(CudaGraph&& other) noexcept {
    std::swap(exec_, other.exec_);
    return *this;
  }

  void Launch(CudaStream& stream) const;
  bool empty() const { return exec_ == nullptr; }

 private:
  CUgraphExec_st* exec_ = nullptr;
};

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CUDA_CUDA_STREAM_H_
