#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/cuda_stream.h"

namespace lacuna {

absl::StatusOr<CudaEvent> CudaEvent::Create() {
  CudaEvent event;
  const absl::Status status =
      CudaStatus("cudaEventCreate", cudaEventCreateWithFlags(&event.event_, cudaEventDefault));
  if (!status.ok()) return status;
  return event;
}

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

absl::StatusOr<double> CudaEvent::SecondsSince(const CudaEvent& start) const {
  float milliseconds = 0;
  const absl::Status status =
      CudaStatus("cudaEventElapsedTime", cudaEventElapsedTime(&milliseconds, start.event_, event_));
  if (!status.ok()) return status;
  return milliseconds * 1e-3;
}

absl::StatusOr<CudaStream> CudaStream::Create() {
  CudaStream stream;
  const absl::Status status = CudaStatus(
      "cudaStreamCreate", cudaStreamCreateWithFlags(&stream.stream_, cudaStreamNonBlocking));
  if (!status.ok()) return status;
  return stream;
}

CudaStream::~CudaStream() {
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);  // destroying alone would let work run on that uses freed memory
  cudaStreamDestroy(stream_);
}

void CudaStream::CopyToDevice(void* device, const void* host, int64_t bytes) {
  if (bytes == 0) return;
  Enqueued("CopyToDevice", cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_));
}

void CudaStream::CopyToHost(void* host, const void* device, int64_t bytes) {
  if (bytes == 0) return;
  Enqueued("CopyToHost", cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
}

void CudaStream::CopyOnDevice(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  Enqueued("CopyOnDevice", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
}

void CudaStream::Zero(void* device, int64_t bytes) {
  if (bytes == 0) return;
  Enqueued("Zero", cudaMemsetAsync(device, 0, bytes, stream_));
}

void CudaStream::Record(const CudaEvent& event) {
  Enqueued("Record", cudaEventRecord(event.get(), stream_));
}

void CudaStream::Wait(const CudaEvent& event) {
  Enqueued("Wait", cudaStreamWaitEvent(stream_, event.get(), 0));
}

absl::Status CudaStream::Synchronize() {
  const cudaError_t error = cudaStreamSynchronize(stream_);
  if (error != cudaSuccess) {
    Fail(absl::InternalError(absl::StrCat("the GPU failed, with ", last_,
                                          " enqueued last: ", cudaGetErrorString(error))));
  }
  return status_;
}

void CudaStream::Enqueued(const char* what, int error) {
  last_ = what;
  if (error != cudaSuccess) Fail(CudaStatus(what, static_cast<cudaError_t>(error)));
}

void CudaStream::Fail(absl::Status status) { status_.Update(std::move(status)); }

absl::StatusOr<CudaGraph> CudaGraph::Capture(CudaStream& stream,
                                             absl::FunctionRef<void()> enqueue) {
  // Other threads may allocate meanwhile: another model is being loaded, say. And a kernel's first
  // launch, here too, loads it.
  absl::Status status = CudaStatus(
      "cudaStreamBeginCapture", cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed));
  if (!status.ok()) return status;
  enqueue();
  cudaGraph_t graph = nullptr;
  status = CudaStatus("cudaStreamEndCapture", cudaStreamEndCapture(stream.get(), &graph));
  if (!stream.status().ok()) status = stream.status();
  CudaGraph made;
  if (status.ok()) {
    status = CudaStatus("cudaGraphInstantiate", cudaGraphInstantiate(&made.exec_, graph, 0));
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (!status.ok()) return status;
  return made;
}

CudaGraph::~CudaGraph() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}

void CudaGraph::Launch(CudaStream& stream) const {
  stream.Enqueued("CudaGraph", cudaGraphLaunch(exec_, stream.get()));
}

}  // namespace lacuna
