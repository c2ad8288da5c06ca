#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/dot_rows.cuh"
#include "kernels/cuda/ffn.h"
#include "kernels/cuda/ffn_kernels.h"

namespace lacuna {
namespace {

struct StoreNeurons {
  NeuronValues out;
  const float* bias;

  __device__ void operator()(int row, int token, float dot) const {
    if (token >= out.tokens) return;
    out.values[row * out.stride + token] = bias == nullptr ? dot : dot + bias[row];
  }
};

struct MultiplyNeurons {
  NeuronValues out;
  bool relu;

  __device__ void operator()(int row, int token, float dot) const {
    if (token >= out.tokens) return;
    float& value = out.values[row * out.stride + token];
    if (relu && dot <= 0.0f) dot = 0.0f;
    value = value == 0.0f ? 0.0f : value * dot;
  }
};

// Where the parts of the scratch memory are.
struct Scratch {
  Scratch(std::byte* base, const CudaFfnShape& shape, int multiprocessors) : end(base) {
    const int64_t words = ActiveNeurons::Words(shape.neurons);
    values = Take<float>(shape.neurons * NeuronValues::StrideOf(shape.max_tokens));
    active.words = Take<uint32_t>(words);
    active.word_active = Take<int32_t>(words * shape.max_tokens);
    active.word_negative = Take<int32_t>(words);
    active.list = Take<int32_t>(shape.neurons);
    active.size = Take<int32_t>(1);
    partial = Take<float>(
        std::max(multiprocessors * shape.hidden,
                 CombineRowsFloats(shape.dtype, shape.hidden, shape.max_tokens, multiprocessors)));
  }

  float* values;
  ActiveNeurons active;
  float* partial;
  std::byte* end;

 private:
  template <class T>
  T* Take(int64_t count) {
    T* const begin = reinterpret_cast<T*>(end);
    end += CeilDiv(count * static_cast<int64_t>(sizeof(T)), 256) * 256;
    return begin;
  }
};

}  // namespace

void MultiplyUp(CudaStream& stream, const void* x, int64_t x_stride, const RowMatrix& up,
                RowList rows, bool relu, const NeuronValues& values) {
  DotRowsArgs args = MakeDotRowsArgs(x, x_stride, values.tokens, up);
  args.list = rows.list;
  args.list_size = rows.size;
  DotRows(stream, "MultiplyUp", up.dtype, args, MultiplyNeurons{values, relu});
}

CudaFfn::CudaFfn(const CudaFfnShape& shape, int multiprocessors, DeviceBuffer scratch)
    : shape_(shape), multiprocessors_(multiprocessors), scratch_(std::move(scratch)) {}

absl::StatusOr<CudaFfn> CudaFfn::Create(const CudaFfnShape& shape) {
  if (shape.dtype == DType::kInt2) {
    return absl::UnimplementedError("the CUDA backend has no int2 weights");
  }
  absl::StatusOr<CudaDeviceInfo> device = GetCudaDeviceInfo();
  if (!device.ok()) return device.status();
  absl::StatusOr<DeviceBuffer> scratch =
      DeviceBuffer::Allocate(ScratchBytes(shape, device->multiprocessors));
  if (!scratch.ok()) return scratch.status();
  return CudaFfn(shape, device->multiprocessors, *std::move(scratch));
}

int64_t CudaFfn::ScratchBytes(const CudaFfnShape& shape, int multiprocessors) {
  return reinterpret_cast<intptr_t>(Scratch(nullptr, shape, multiprocessors).end);
}

void CudaFfn::Run(CudaStream& stream, const CudaFfnWeights& weights, const void* x,
                  int64_t x_stride, int64_t tokens, const int32_t* positions, bool sparse, float* y,
                  const CudaFfnCounts& counts) {
  const Scratch scratch(scratch_.data(), shape_, multiprocessors_);
  const NeuronValues values{scratch.values, shape_.neurons, tokens, NeuronValues::StrideOf(tokens)};
  const bool drelu = shape_.activation.kind == ActivationKind::kDRelu;
  RowList rows;
  if (sparse) rows = {scratch.active.list, scratch.active.size};

  DotRows(stream, "Gate", weights.gate.dtype, MakeDotRowsArgs(x, x_stride, tokens, weights.gate),
          StoreNeurons{values, weights.gate_bias});
  ActivateAndList(stream, shape_.activation, positions, values, scratch.active, counts);
  if (sparse && tokens == 1 && weights.down.bytes() <= shape_.neurons * kMaxUpDownRowBytes) {
    UpDown(stream, x, weights.up, weights.down, rows, drelu, values, weights.down_bias,
           multiprocessors_, scratch.partial, y);
    if (drelu) ListAgain(stream, values, scratch.active, counts);
    return;
  }
  if (!weights.up.empty()) MultiplyUp(stream, x, x_stride, weights.up, rows, drelu, values);
  if (drelu) ListAgain(stream, values, scratch.active, counts);
  CombineRows(stream, values, weights.down, rows, weights.down_bias, multiprocessors_,
              scratch.partial, y);
}

}  // namespace lacuna
