// Streams, events, graphs and launches of the emulated CUDA runtime.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"
#include "tests/cuda_emulation/block_runner.h"
#include "tests/cuda_emulation/device_memory.h"

using Work = std::function<void()>;
using cuda_emulation::DeviceMemory;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUstream_st {
  std::deque<Work> queue;
  uint64_t enqueued = 0, done = 0;
  CUgraph_st* capture = nullptr;
};
struct CUevent_st {
  CUstream_st* stream = nullptr;  // of the last record
  uint64_t place = 0;             // number of that stream's work up to the record
  bool captured = false;
  std::chrono::steady_clock::time_point reached;
};

namespace {

// Of an H100.
constexpr size_t kSharedWithoutAsking = 48 << 10;
constexpr size_t kMaxShared = 227 << 10;
constexpr size_t kSharedPerMultiprocessor = 228 << 10;
constexpr size_t kReservedSharedPerBlock = 1 << 10;
constexpr int kThreadsPerMultiprocessor = 2048;
constexpr int kBlocksPerMultiprocessor = 32;
// Fewer than any GPU has, so that persistent grids stay quick.
constexpr int kMultiprocessors = 8;
constexpr size_t kMemory = size_t{4} << 30;

struct Device {
  std::recursive_mutex mutex;  // over everything: the runtime is thread-safe, and runs one kernel
  std::set<CUstream_st*> streams;
  DeviceMemory memory;
  std::map<const void*, size_t> max_dynamic_shared;
  std::string failure;  // of the first kernel that failed
};
Device& device() {
  static Device& device = *new Device;
  return device;
}
DeviceMemory& memory() { return device().memory; }
using Lock = std::lock_guard<std::recursive_mutex>;

thread_local int capturing = 0;  // streams that the thread captures
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t Return(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}
// What a call returns that has done its own part.
cudaError_t Done() {
  return Return(device().failure.empty() ? cudaSuccess : cudaErrorLaunchFailure);
}

// True if the pointers of a copy are what `kind` says; what a stream copies from and to on the host
// is pinned, or it could not be asynchronous.
bool CopyFits(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind, bool async) {
  const auto on_host = [&](const void* p) {
    return async ? memory().IsPinned(p, bytes) : !memory().IsOnDevice(p, 1);
  };
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return bytes == 0 || ((to_device ? memory().IsOnDevice(to, bytes) : on_host(to)) &&
                        (from_device ? memory().IsOnDevice(from, bytes) : on_host(from)));
}

void RunUntil(CUstream_st* stream, uint64_t place) {
  const DeviceMemory::Access access(&memory());
  while (stream->done < place && !stream->queue.empty()) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->done;
    if (device().failure.empty()) work();
  }
}

void RunAll() {
  for (CUstream_st* stream : device().streams) RunUntil(stream, stream->enqueued);
}

cudaError_t Enqueue(CUstream_st* stream, Work work) {
  if (stream == nullptr)
    return Return(cudaErrorInvalidValue);  // the default stream is not emulated
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
  } else {
    stream->queue.push_back(std::move(work));
    ++stream->enqueued;
  }
  return Done();
}

}  // namespace

namespace cuda_emulation {

bool PassesHostMemory(const void* argument, size_t bytes) {
  const Lock lock(device().mutex);
  for (size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
    const void* word;
    std::memcpy(&word, static_cast<const char*>(argument) + at, sizeof(word));
    if (!memory().IsOnDevice(word, 0) && !memory().IsPinned(word, 0) && IsMapped(word)) return true;
  }
  return false;
}

cudaError_t Launch(const cudaLaunchConfig_t& config, const void* kernel, bool passes_host_memory,
                   Work body) {
  const Lock lock(device().mutex);
  if (passes_host_memory) return Return(cudaErrorInvalidValue);
  const Dim3 grid{config.gridDim.x, config.gridDim.y, config.gridDim.z};
  const Dim3 block{config.blockDim.x, config.blockDim.y, config.blockDim.z};
  if (grid.count() == 0 || block.count() == 0 || grid.x > 0x7FFFFFFF || grid.y > 65535 ||
      grid.z > 65535 || block.count() > 1024 || block.z > 64) {
    return Return(cudaErrorInvalidConfiguration);
  }
  const auto allowed = device().max_dynamic_shared.find(kernel);
  if (config.dynamicSmemBytes >
      (allowed == device().max_dynamic_shared.end() ? kSharedWithoutAsking : allowed->second)) {
    return Return(cudaErrorInvalidValue);
  }
  return Enqueue(config.stream,
                 [grid, block, shared = config.dynamicSmemBytes, body = std::move(body)] {
                   device().failure = RunGrid(grid, block, shared, body);
                 });
}

cudaError_t SetMaxDynamicShared(const void* kernel, int bytes) {
  const Lock lock(device().mutex);
  if (bytes < 0 || static_cast<size_t>(bytes) > kMaxShared) return Return(cudaErrorInvalidValue);
  device().max_dynamic_shared[kernel] = bytes;
  return Done();
}

int BlocksPerMultiprocessor(int threads, size_t shared_bytes) {
  const int by_threads = kThreadsPerMultiprocessor / ((threads + 31) / 32 * 32);
  const int by_shared =
      static_cast<int>(kSharedPerMultiprocessor / (shared_bytes + kReservedSharedPerBlock));
  return std::min({by_threads, by_shared, kBlocksPerMultiprocessor});
}

}  // namespace cuda_emulation

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorIllegalState:
      return "cudaErrorIllegalState";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return device().failure.c_str();
  return cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return Done();
}
cudaError_t cudaSetDevice(int ordinal) {
  return ordinal == 0 ? Done() : Return(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = 0;
  return Done();
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int ordinal) {
  if (ordinal != 0) return Return(cudaErrorInvalidDevice);
  *prop = {"emulated", 9, 0, kMultiprocessors, kMemory, 50 << 20, kSharedWithoutAsking, kMaxShared};
  return Done();
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  if (ordinal != 0) return Return(cudaErrorInvalidDevice);
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, ordinal);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(properties.sharedMemPerBlockOptin);
      break;
  }
  return Done();
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(device().mutex);
  *total = kMemory;
  *free = kMemory - memory().allocated();
  return Done();
}
cudaError_t cudaDeviceSynchronize() {
  const Lock lock(device().mutex);
  if (capturing > 0) return Return(cudaErrorStreamCaptureUnsupported);
  RunAll();
  return Done();
}
cudaError_t cudaDeviceReset() {
  const Lock lock(device().mutex);
  device().failure.clear();
  last_error = cudaSuccess;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const Lock lock(device().mutex);
  *pointer = nullptr;
  if (capturing > 0) return Return(cudaErrorStreamCaptureUnsupported);
  if (bytes == 0) return Done();
  if (bytes > kMemory - memory().allocated()) return Return(cudaErrorMemoryAllocation);
  *pointer = memory().Allocate(bytes);
  return *pointer == nullptr ? Return(cudaErrorMemoryAllocation) : Done();
}
cudaError_t cudaFree(void* pointer) {
  const Lock lock(device().mutex);
  if (pointer == nullptr) return Done();
  RunAll();
  return memory().Free(pointer) ? Done() : Return(cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  const Lock lock(device().mutex);
  *pointer = memory().AllocatePinned(bytes);
  return *pointer == nullptr ? Return(cudaErrorMemoryAllocation) : Done();
}
cudaError_t cudaFreeHost(void* pointer) {
  const Lock lock(device().mutex);
  RunAll();
  return memory().FreePinned(pointer) ? Done() : Return(cudaErrorInvalidValue);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(device().mutex);
  if (!CopyFits(to, from, bytes, kind, false)) return Return(cudaErrorInvalidValue);
  const DeviceMemory::Access access(&memory());
  std::memcpy(to, from, bytes);
  return Done();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (!CopyFits(to, from, bytes, kind, true)) return Return(cudaErrorInvalidValue);
  return Enqueue(stream, [=] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  const Lock lock(device().mutex);
  if (!memory().IsOnDevice(to, bytes)) return Return(cudaErrorInvalidValue);
  const DeviceMemory::Access access(&memory());
  std::memset(to, value, bytes);
  return Done();
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (!memory().IsOnDevice(to, bytes)) return Return(cudaErrorInvalidValue);
  return Enqueue(stream, [=] { std::memset(to, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(device().mutex);
  *stream = new CUstream_st;
  device().streams.insert(*stream);
  return Done();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(device().mutex);
  RunUntil(stream, stream->enqueued);
  device().streams.erase(stream);
  delete stream;
  return Done();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (capturing > 0) return Return(cudaErrorStreamCaptureUnsupported);
  if (stream == nullptr) return Done();  // nothing is ever left on the legacy stream
  RunUntil(stream, stream->enqueued);
  return Done();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return Done();
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(device().mutex);
  RunAll();  // work may hold it
  delete event;
  return Done();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(device().mutex);
  const cudaError_t error =
      Enqueue(stream, [event] { event->reached = std::chrono::steady_clock::now(); });
  event->stream = stream;
  event->captured = stream->capture != nullptr;
  event->place = stream->enqueued;
  return error;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(device().mutex);
  if (capturing > 0) return Return(cudaErrorStreamCaptureUnsupported);
  if (event->stream != nullptr) RunUntil(event->stream, event->place);
  return Done();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const Lock lock(device().mutex);
  for (const CUevent_st* event : {start, end}) {
    if (event->stream == nullptr) return Return(cudaErrorInvalidValue);
    if (event->stream->done < event->place) return Return(cudaErrorNotReady);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->reached - start->reached).count();
  return Done();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(device().mutex);
  if (event->stream == nullptr) return Done();  // never recorded: reached
  // Forks of a capture into other streams are not emulated.
  if (event->captured || stream->capture != nullptr) {
    return Return(cudaErrorStreamCaptureUnsupported);
  }
  return Enqueue(stream, [other = event->stream, place = event->place] { RunUntil(other, place); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(device().mutex);
  if (stream == nullptr || stream->capture != nullptr) return Return(cudaErrorIllegalState);
  stream->capture = new CUgraph_st;
  ++capturing;
  return Done();
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(device().mutex);
  if (stream->capture == nullptr) return Return(cudaErrorIllegalState);
  *graph = std::exchange(stream->capture, nullptr);
  --capturing;
  return Done();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return Done();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Lock lock(device().mutex);
  return Enqueue(stream, [exec] {
    for (const Work& work : exec->work) {
      if (device().failure.empty()) work();
    }
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return Done();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const Lock lock(device().mutex);
  RunAll();  // launches may be waiting
  delete exec;
  return Done();
}
