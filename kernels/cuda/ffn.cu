#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/dot_products.h"
#include "kernels/cuda/ffn.h"
#include "kernels/cuda/ffn_kernels.h"

namespace lacuna {
namespace {

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
    marks = Take<uint8_t>(CeilDiv(shape.neurons, 16) * 4);
    partial = Take<float>(
        std::max(multiprocessors * shape.hidden,
                 CombineRowsFloats(shape.dtype, shape.hidden, shape.max_tokens, multiprocessors)));
  }

  float* values;
  ActiveNeurons active;
  uint8_t* marks;
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

  DotProducts dots;
  dots.x = x;
  dots.x_stride = x_stride;
  dots.tokens = tokens;
  dots.w = weights.gate;
  dots.y = values.values;
  dots.row_stride = values.stride;
  dots.token_stride = 1;
  dots.bias = weights.gate_bias;

  const bool fits = RowBytes(shape_.dtype, shape_.hidden) <= kMaxUpDownRowBytes;
  if (sparse && tokens == 1 && fits && shape_.activation.kind != ActivationKind::kSilu) {
    DotGate(stream, dots, shape_.activation, positions, scratch.marks);
    UpDown(stream, x, weights.up, weights.down, scratch.marks, drelu, values.values,
           weights.down_bias, multiprocessors_, scratch.partial, y, counts);
    if (drelu) ListAgain(stream, values, scratch.active, counts);
    return;
  }
  ComputeDotProducts(stream, "Gate", dots);
  ActivateAndList(stream, shape_.activation, positions, values, scratch.active, counts);
  if (!weights.up.empty()) {
    dots.w = weights.up;
    dots.rows = rows;
    dots.bias = nullptr;
    dots.multiply = true;
    dots.relu = drelu;
    ComputeDotProducts(stream, "Up", dots);
  }
  if (drelu) ListAgain(stream, values, scratch.active, counts);
  CombineRows(stream, values, weights.down, rows, weights.down_bias, multiprocessors_,
              scratch.partial, y);
}

}  // namespace lacuna
