// Streams, events, graphs and memory of the emulated CUDA runtime.
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

using Work = std::function<void()>;

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
  std::map<const char*, size_t> allocations;
  std::map<const char*, size_t> pinned;
  size_t allocated = 0;
  std::map<const void*, size_t> max_dynamic_shared;
  std::string failure;  // of the first kernel that failed
};
Device& device() {
  static Device& device = *new Device;
  return device;
}
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

// True if [p, p + bytes) lies within one of `blocks`.
bool Within(const std::map<const char*, size_t>& blocks, const void* p, size_t bytes) {
  const char* const begin = static_cast<const char*>(p);
  auto block = blocks.upper_bound(begin);
  if (block == blocks.begin()) return false;
  --block;
  return begin + bytes <= block->first + block->second;
}
bool OnDevice(const void* p, size_t bytes) { return Within(device().allocations, p, bytes); }

// True if the pointers of a copy are what `kind` says; what a stream copies from and to on the host
// is pinned, or it could not be asynchronous.
bool CopyFits(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind, bool async) {
  const auto on_host = [&](const void* p) {
    return async ? Within(device().pinned, p, bytes) : !OnDevice(p, 1);
  };
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return bytes == 0 || ((to_device ? OnDevice(to, bytes) : on_host(to)) &&
                        (from_device ? OnDevice(from, bytes) : on_host(from)));
}

void RunUntil(CUstream_st* stream, uint64_t place) {
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
  if (stream == nullptr) {  // the default stream, which nothing here uses for kernels
    work();
    return Done();
  }
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

cudaError_t Launch(const cudaLaunchConfig_t& config, const void* kernel, Work body) {
  const Lock lock(device().mutex);
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
  *value =
      attribute == cudaDevAttrMultiProcessorCount ? kMultiprocessors : static_cast<int>(kMaxShared);
  return Done();
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(device().mutex);
  *total = kMemory;
  *free = kMemory - device().allocated;
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
  if (bytes > kMemory - device().allocated) return Return(cudaErrorMemoryAllocation);
  *pointer = std::aligned_alloc(256, bytes);
  if (*pointer == nullptr) return Return(cudaErrorMemoryAllocation);
  std::memset(*pointer, 0xFB, bytes);
  device().allocations[static_cast<char*>(*pointer)] = bytes;
  device().allocated += bytes;
  return Done();
}
cudaError_t cudaFree(void* pointer) {
  const Lock lock(device().mutex);
  if (pointer == nullptr) return Done();
  const auto found = device().allocations.find(static_cast<char*>(pointer));
  if (found == device().allocations.end()) return Return(cudaErrorInvalidValue);
  RunAll();
  device().allocated -= found->second;
  device().allocations.erase(found);
  std::free(pointer);
  return Done();
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  const Lock lock(device().mutex);
  *pointer = bytes == 0 ? nullptr : std::aligned_alloc(256, bytes);
  if (*pointer == nullptr && bytes > 0) return Return(cudaErrorMemoryAllocation);
  if (bytes > 0) device().pinned[static_cast<char*>(*pointer)] = bytes;
  return Done();
}
cudaError_t cudaFreeHost(void* pointer) {
  const Lock lock(device().mutex);
  RunAll();
  device().pinned.erase(static_cast<char*>(pointer));
  std::free(pointer);
  return Done();
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(device().mutex);
  if (!CopyFits(to, from, bytes, kind, false)) return Return(cudaErrorInvalidValue);
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
  if (!OnDevice(to, bytes)) return Return(cudaErrorInvalidValue);
  std::memset(to, value, bytes);
  return Done();
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Lock lock(device().mutex);
  if (!OnDevice(to, bytes)) return Return(cudaErrorInvalidValue);
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
