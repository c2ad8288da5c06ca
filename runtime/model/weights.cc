#include "runtime/model/weights.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/memory.h"

namespace lacuna {
namespace {

constexpr int64_t kRowAlignment = 64;  // one cache line, and one AVX-512 vector

int64_t Stride(DType dtype, int64_t cols) {
  return (RowBytes(dtype, cols) + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

// Cuts matrices out of one buffer, in order.
class Carver {
 public:
  Carver(std::byte* data, DType dtype) : next_(data), dtype_(dtype) {}
  RowMatrix Take(int64_t rows, int64_t cols) {
    const RowMatrix m{next_, rows, cols, Stride(dtype_, cols), dtype_};
    next_ += rows * m.row_stride;
    return m;
  }

 private:
  std::byte* next_;
  DType dtype_;
};

// The storage is ours to fill until Load returns.
std::byte* Fill(const RowMatrix& m, int64_t first_row = 0) {
  return const_cast<std::byte*>(m.data) + first_row * m.row_stride;
}

absl::Status ReadMatrix(const WeightSource& source, Tensor tensor, int32_t layer,
                        const RowMatrix& m, int64_t first_row = 0) {
  return source.Read(tensor, layer, m.dtype, Fill(m, first_row), m.row_stride);
}

absl::Status ReadVector(const WeightSource& source, Tensor tensor, int32_t layer, int64_t n,
                        std::vector<float>* out) {
  out->resize(n);
  return source.Read(tensor, layer, DType::kF32, reinterpret_cast<std::byte*>(out->data()), 0);
}

int64_t LayerBytes(const ModelConfig& c, DType dtype) {
  const int64_t rows = c.q_dim() + 2 * int64_t{c.kv_dim()} + 3 * int64_t{c.ffn_size};
  return rows * Stride(dtype, c.hidden_size) + c.hidden_size * Stride(dtype, c.q_dim());
}

int64_t TableBytes(const ModelConfig& c, DType dtype) {
  return c.vocab_size * Stride(dtype, c.hidden_size);
}

absl::Status LoadLayer(const ModelConfig& c, const WeightSource& source, DType dtype, int32_t layer,
                       LayerWeights* w) {
  const int64_t qkv_rows = c.q_dim() + 2 * c.kv_dim();
  const int64_t stride = Stride(dtype, c.hidden_size);
  absl::StatusOr<AlignedBuffer> storage = AlignedBuffer::Allocate(
      (qkv_rows + 3 * int64_t{c.ffn_size}) * stride + c.hidden_size * Stride(dtype, c.q_dim()));
  if (!storage.ok()) return storage.status();
  w->storage = *std::move(storage);

  Carver carver(w->storage.data(), dtype);
  w->qkv = carver.Take(qkv_rows, c.hidden_size);
  w->o = carver.Take(c.hidden_size, c.q_dim());
  w->gate = carver.Take(c.ffn_size, c.hidden_size);
  w->up = carver.Take(c.ffn_size, c.hidden_size);
  w->up.row_stride = 2 * stride;
  w->down = w->up;
  w->down.data += stride;

  absl::Status status;
  status.Update(
      ReadVector(source, Tensor::kAttentionNorm, layer, c.hidden_size, &w->attention_norm));
  status.Update(ReadVector(source, Tensor::kFfnNorm, layer, c.hidden_size, &w->ffn_norm));
  status.Update(ReadMatrix(source, Tensor::kQ, layer, w->qkv));
  status.Update(ReadMatrix(source, Tensor::kK, layer, w->qkv, c.q_dim()));
  status.Update(ReadMatrix(source, Tensor::kV, layer, w->qkv, c.q_dim() + c.kv_dim()));
  status.Update(ReadMatrix(source, Tensor::kO, layer, w->o));
  status.Update(ReadMatrix(source, Tensor::kGate, layer, w->gate));
  status.Update(ReadMatrix(source, Tensor::kUp, layer, w->up));
  status.Update(ReadMatrix(source, Tensor::kDown, layer, w->down));
  return status;
}

absl::Status LoadTable(const ModelConfig& c, const WeightSource& source, DType dtype, Tensor tensor,
                       AlignedBuffer* storage, RowMatrix* matrix) {
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(TableBytes(c, dtype));
  if (!buffer.ok()) return buffer.status();
  *storage = *std::move(buffer);
  *matrix = Carver(storage->data(), dtype).Take(c.vocab_size, c.hidden_size);
  return ReadMatrix(source, tensor, 0, *matrix);
}

}  // namespace

int64_t ModelWeights::parameters() const {
  const auto count = [](const RowMatrix& m) { return m.rows * m.cols; };
  int64_t n = count(embedding) + static_cast<int64_t>(final_norm.size());
  if (lm_head.data != embedding.data) n += count(lm_head);
  for (const LayerWeights& w : layers) {
    n += count(w.qkv) + count(w.o) + count(w.gate) + count(w.up) + count(w.down) +
         static_cast<int64_t>(w.attention_norm.size() + w.ffn_norm.size());
  }
  return n;
}

int64_t ModelWeights::bytes() const {
  int64_t n = embedding_storage.size() + lm_head_storage.size();
  for (const LayerWeights& w : layers) n += w.storage.size();
  return n;
}

int64_t ModelWeights::step_bytes() const {
  int64_t n = lm_head.bytes();
  for (const LayerWeights& w : layers) n += w.bytes();
  return n;
}

int64_t ModelWeights::BytesFor(const ModelConfig& config, DType dtype) {
  return config.num_layers * LayerBytes(config, dtype) +
         (config.tie_embeddings ? 1 : 2) * TableBytes(config, dtype);
}

absl::StatusOr<ModelWeights> ModelWeights::Load(const ModelConfig& config,
                                                const WeightSource& source, DType dtype,
                                                ThreadPool* pool,
                                                const std::function<void(double)>& progress) {
  const int64_t needed = BytesFor(config, dtype);
  const int64_t available = AvailableMemoryBytes();
  if (needed > available) {
    return absl::ResourceExhaustedError(absl::StrCat("the weights take ", needed >> 20, " MiB as ",
                                                     DTypeName(dtype), ", ", available >> 20,
                                                     " MiB of memory are available"));
  }
  ModelWeights weights;
  weights.layers.resize(config.num_layers);
  absl::Status status =
      ReadVector(source, Tensor::kFinalNorm, 0, config.hidden_size, &weights.final_norm);
  status.Update(LoadTable(config, source, dtype, Tensor::kEmbedding, &weights.embedding_storage,
                          &weights.embedding));
  if (config.tie_embeddings) {
    weights.lm_head = weights.embedding;
  } else {
    status.Update(LoadTable(config, source, dtype, Tensor::kLmHead, &weights.lm_head_storage,
                            &weights.lm_head));
  }
  if (!status.ok()) return status;

  std::vector<absl::Status> errors(pool->threads());
  std::atomic<int32_t> next{0};
  std::atomic<int32_t> done{0};
  std::atomic<bool> failed{false};
  pool->Run([&](int thread) {
    for (int32_t layer; !failed && (layer = next.fetch_add(1)) < config.num_layers;) {
      errors[thread] = LoadLayer(config, source, dtype, layer, &weights.layers[layer]);
      if (!errors[thread].ok()) failed = true;
      const double share = ++done / static_cast<double>(config.num_layers);
      if (thread == 0 && progress && share < 1) progress(share);
    }
  });
  for (const absl::Status& error : errors) status.Update(error);
  if (!status.ok()) return status;
  if (progress) progress(1);
  return weights;
}

}  // namespace lacuna
