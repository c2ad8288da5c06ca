#include "runtime/model/weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/memory.h"

namespace lacuna {
namespace {

constexpr int64_t kRowAlignment = 64;  // one cache line, and one AVX-512 vector

// So that some wait for the disk while others compute: 7B weights from a disk of 1.4 GB/s take 15 s
// instead of 22 s on two cores.
constexpr int kLoadersPerThread = 2;

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

// Reads tensors into matrices, converting them on the way. For one thread at a time.
class MatrixReader {
 public:
  MatrixReader(const WeightSource& source, const KernelTable& kernels)
      : source_(source), kernels_(kernels) {}

  const KernelTable& kernels() const { return kernels_; }

  // Fills `rows` rows of `m`, the first of them first_row, with the whole of a tensor.
  absl::Status Read(Tensor tensor, int32_t layer, const RowMatrix& m, int64_t first_row,
                    int64_t rows) {
    std::byte* out = const_cast<std::byte*>(m.data) + first_row * m.row_stride;
    if (!IsQuantized(m.dtype)) return source_.Read(tensor, layer, m.dtype, out, m.row_stride);
    const DType stored = source_.stored_dtype();
    const int64_t stride = RowBytes(stored, m.cols);
    if (static_cast<int64_t>(floats_.size()) < rows * stride) {
      floats_ = std::vector<std::byte>();  // never the old and the new one at a time
      floats_.resize(rows * stride);
    }
    const absl::Status status = source_.Read(tensor, layer, stored, floats_.data(), stride);
    if (!status.ok()) return status;
    row_.resize(m.cols);
    for (int64_t r = 0; r < rows; ++r) {
      kernels_.widen[static_cast<int>(stored)](floats_.data() + r * stride, m.cols, row_.data());
      int32_t in_range = 1;  // as wide as the elements, so that compilers make vectors of the loop
      for (const float value : row_) {
        in_range &= std::abs(value) <= KernelTable::kMaxQuantizable ? 1 : 0;
      }
      if (in_range == 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("row ", r, " has a weight too large to be stored as ", DTypeName(m.dtype),
                         "; the limit is ", KernelTable::kMaxQuantizable));
      }
      kernels_.quantize_weights[static_cast<int>(m.dtype)](row_.data(), m.cols,
                                                           out + r * m.row_stride);
    }
    return absl::OkStatus();
  }
  absl::Status Read(Tensor tensor, int32_t layer, const RowMatrix& m) {
    return Read(tensor, layer, m, 0, m.rows);
  }
  const WeightSource& source() const { return source_; }

 private:
  const WeightSource& source_;
  const KernelTable& kernels_;
  std::vector<std::byte> floats_;  // a tensor before it is quantized
  std::vector<float> row_;
};

// Appends n floats to *out.
absl::Status ReadVector(const WeightSource& source, Tensor tensor, int32_t layer, int64_t n,
                        std::vector<float>* out) {
  out->resize(out->size() + n);
  return source.Read(tensor, layer, DType::kF32,
                     reinterpret_cast<std::byte*>(out->data() + out->size() - n), 0);
}

// Beside int8 and int4, 2 bits leave an eighth of a gate row's variance as error; beside floats, 4
// bits cost little more and name hardly a neuron too many.
DType SketchType(DType dtype) { return IsQuantized(dtype) ? DType::kInt2 : DType::kInt4; }

int64_t SketchBytes(const ModelConfig& c, DType dtype) {
  return c.ffn_size * Stride(SketchType(dtype), c.hidden_size);
}

int64_t FfnRows(const ModelConfig& c) { return (c.gated ? 3 : 2) * int64_t{c.ffn_size}; }

int64_t LayerBytes(const ModelConfig& c, DType dtype, bool sketch) {
  const int64_t rows = c.q_dim() + 2 * int64_t{c.kv_dim()} + FfnRows(c);
  return rows * Stride(dtype, c.hidden_size) + c.hidden_size * Stride(dtype, c.q_dim()) +
         (sketch ? SketchBytes(c, dtype) : 0);
}

// The embeddings, the lm_head, and projections from and to them: a small part of a large model, and
// what its first choices depend on most.
DType TableType(DType dtype) { return dtype == DType::kInt4 ? DType::kInt8 : dtype; }

// A matrix that belongs to no layer.
struct Table {
  Tensor tensor;
  int64_t rows, cols;
  DType dtype;
  RowMatrix ModelWeights::*matrix;
  int64_t bytes() const { return rows * Stride(dtype, cols); }
};

std::vector<Table> Tables(const ModelConfig& c, DType dtype) {
  const DType type = TableType(dtype);
  const int64_t width = c.embedding_size();
  std::vector<Table> tables = {
      {Tensor::kEmbedding, c.vocab_size, width, type, &ModelWeights::embedding}};
  if (!c.tie_embeddings) {
    tables.push_back({Tensor::kLmHead, c.vocab_size, width, type, &ModelWeights::lm_head});
  }
  if (c.projected_embedding_size > 0) {
    tables.push_back({Tensor::kProjectIn, c.hidden_size, width, type, &ModelWeights::project_in});
    tables.push_back({Tensor::kProjectOut, width, c.hidden_size, type, &ModelWeights::project_out});
  }
  if (c.positions == PositionKind::kLearned) {
    tables.push_back({Tensor::kPositions, c.max_context + kLearnedPositionOffset, c.hidden_size,
                      DType::kF32, &ModelWeights::positions});
  }
  return tables;
}

// Each thread keeps the largest tensor that it has quantized, as stored: at worst one thread each
// of the largest ones.
int64_t QuantizingBytes(const ModelConfig& c, const WeightSource& source, DType dtype,
                        int threads) {
  std::vector<int64_t> sizes(c.num_layers,
                             std::max<int64_t>(c.ffn_size, c.q_dim()) * c.hidden_size);
  for (const Table& table : Tables(c, dtype)) {
    if (IsQuantized(table.dtype)) sizes.push_back(table.rows * table.cols);
  }
  std::sort(sizes.rbegin(), sizes.rend());
  sizes.resize(std::min<size_t>(sizes.size(), threads));
  return RowBytes(source.stored_dtype(), std::accumulate(sizes.begin(), sizes.end(), int64_t{0}));
}

absl::Status LoadBiases(const ModelConfig& c, const WeightSource& source, int32_t layer,
                        LayerWeights* w) {
  absl::Status status;
  const auto read = [&](Tensor tensor, int64_t n, std::vector<float>* out) {
    status.Update(ReadVector(source, tensor, layer, n, out));
  };
  if (c.norm == NormKind::kLayer) {
    read(Tensor::kAttentionNormBias, c.hidden_size, &w->attention_norm_bias);
    read(Tensor::kFfnNormBias, c.hidden_size, &w->ffn_norm_bias);
  }
  if (c.attention_bias) {
    read(Tensor::kQBias, c.q_dim(), &w->qkv_bias);
    read(Tensor::kKBias, c.kv_dim(), &w->qkv_bias);
    read(Tensor::kVBias, c.kv_dim(), &w->qkv_bias);
    read(Tensor::kOBias, c.hidden_size, &w->o_bias);
  }
  if (c.ffn_bias) {
    read(Tensor::kGateBias, c.ffn_size, &w->gate_bias);
    read(Tensor::kDownBias, c.hidden_size, &w->down_bias);
  }
  return status;
}

absl::Status LoadLayer(const ModelConfig& c, DType dtype, bool sketch, int32_t layer,
                       MatrixReader* reader, LayerWeights* w) {
  const WeightSource& source = reader->source();
  const int64_t qkv_rows = c.q_dim() + 2 * c.kv_dim();
  const int64_t stride = Stride(dtype, c.hidden_size);
  const int64_t bytes = LayerBytes(c, dtype, sketch);
  absl::StatusOr<AlignedBuffer> storage = AlignedBuffer::Allocate(bytes);
  if (!storage.ok()) return storage.status();
  w->storage = *std::move(storage);

  Carver carver(w->storage.data(), dtype);
  w->qkv = carver.Take(qkv_rows, c.hidden_size);
  w->o = carver.Take(c.hidden_size, c.q_dim());
  w->gate = carver.Take(c.ffn_size, c.hidden_size);
  w->down = carver.Take(c.ffn_size, c.hidden_size);
  if (c.gated) {
    w->down.row_stride = 2 * stride;
    w->up = w->down;
    w->down.data += stride;
  }

  absl::Status status;
  status.Update(
      ReadVector(source, Tensor::kAttentionNorm, layer, c.hidden_size, &w->attention_norm));
  status.Update(ReadVector(source, Tensor::kFfnNorm, layer, c.hidden_size, &w->ffn_norm));
  status.Update(reader->Read(Tensor::kQ, layer, w->qkv, 0, c.q_dim()));
  status.Update(reader->Read(Tensor::kK, layer, w->qkv, c.q_dim(), c.kv_dim()));
  status.Update(reader->Read(Tensor::kV, layer, w->qkv, c.q_dim() + c.kv_dim(), c.kv_dim()));
  status.Update(reader->Read(Tensor::kO, layer, w->o));
  status.Update(reader->Read(Tensor::kGate, layer, w->gate));
  if (c.gated) status.Update(reader->Read(Tensor::kUp, layer, w->up));
  status.Update(reader->Read(Tensor::kDown, layer, w->down));
  status.Update(LoadBiases(c, source, layer, w));
  if (sketch && status.ok()) {
    std::byte* const end = w->storage.data() + bytes;
    w->gate_sketch =
        Carver(end - SketchBytes(c, dtype), SketchType(dtype)).Take(c.ffn_size, c.hidden_size);
    SketchGate(reader->kernels(), w);
  }
  return status;
}

absl::Status LoadTable(const Table& table, MatrixReader* reader, ModelWeights* weights,
                       AlignedBuffer* storage) {
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(table.bytes());
  if (!buffer.ok()) return buffer.status();
  *storage = *std::move(buffer);
  RowMatrix& matrix = weights->*table.matrix;
  matrix = Carver(storage->data(), table.dtype).Take(table.rows, table.cols);
  return reader->Read(table.tensor, 0, matrix);
}

absl::Status LoadFinalNorm(const ModelConfig& c, const WeightSource& source,
                           ModelWeights* weights) {
  if (!c.final_norm) return absl::OkStatus();
  absl::Status status =
      ReadVector(source, Tensor::kFinalNorm, 0, c.hidden_size, &weights->final_norm);
  if (c.norm == NormKind::kLayer) {
    status.Update(
        ReadVector(source, Tensor::kFinalNormBias, 0, c.hidden_size, &weights->final_norm_bias));
  }
  return status;
}

}  // namespace

absl::StatusOr<DType> ParseWeightType(std::string_view name) {
  for (const DType type : {DType::kF32, DType::kBf16, DType::kInt8, DType::kInt4}) {
    if (name == DTypeName(type)) return type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--weights=", absl::string_view(name.data(), name.size()),
                   ": want auto, f32, bf16, int8 or int4"));
}

void SketchGate(const KernelTable& kernels, LayerWeights* weights) {
  const int64_t n = weights->gate.cols;
  const auto type = static_cast<int>(weights->gate_sketch.dtype);
  std::vector<float> exact(n), sketched(n);
  weights->sketch_error.resize(weights->gate.rows);
  for (int64_t r = 0; r < weights->gate.rows; ++r) {
    kernels.widen[static_cast<int>(weights->gate.dtype)](weights->gate.row(r), n, exact.data());
    auto* row = const_cast<void*>(static_cast<const void*>(weights->gate_sketch.row(r)));
    kernels.quantize_weights[type](exact.data(), n, row);
    kernels.widen[type](row, n, sketched.data());
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double error = static_cast<double>(exact[i]) - sketched[i];
      squares += error * error;
    }
    weights->sketch_error[r] = static_cast<float>(std::sqrt(squares));
  }
}

int64_t ModelWeights::parameters() const {
  const auto count = [](const RowMatrix& m) { return m.rows * m.cols; };
  int64_t n = count(embedding) + count(project_in) + count(project_out) + count(positions) +
              static_cast<int64_t>(final_norm.size() + final_norm_bias.size());
  if (lm_head.data != embedding.data) n += count(lm_head);
  for (const LayerWeights& w : layers) {
    n += count(w.qkv) + count(w.o) + count(w.gate) + count(w.up) + count(w.down);
    for (const std::vector<float>* v :
         {&w.attention_norm, &w.attention_norm_bias, &w.ffn_norm, &w.ffn_norm_bias, &w.qkv_bias,
          &w.o_bias, &w.gate_bias, &w.down_bias}) {
      n += static_cast<int64_t>(v->size());
    }
  }
  return n;
}

int64_t ModelWeights::bytes() const {
  int64_t n = 0;
  for (const AlignedBuffer& buffer : storage) n += buffer.size();
  for (const LayerWeights& w : layers) n += w.storage.size();
  return n;
}

int64_t ModelWeights::step_bytes() const {
  int64_t n = lm_head.bytes() + project_in.bytes() + project_out.bytes();
  for (const LayerWeights& w : layers) n += w.bytes();
  return n;
}

int64_t ModelWeights::ffn_bytes() const {
  int64_t n = 0;
  for (const LayerWeights& w : layers) n += w.ffn_bytes();
  return n;
}

int64_t ModelWeights::BytesFor(const ModelConfig& config, DType dtype, bool sketch) {
  int64_t bytes = config.num_layers * LayerBytes(config, dtype, sketch);
  for (const Table& table : Tables(config, dtype)) bytes += table.bytes();
  return bytes;
}

int64_t ModelWeights::LoadingBytes(const ModelConfig& config, const WeightSource& source,
                                   DType dtype, bool sketch, int threads) {
  return BytesFor(config, dtype, sketch) +
         (IsQuantized(dtype) ? QuantizingBytes(config, source, dtype, kLoadersPerThread * threads)
                             : 0);
}

absl::StatusOr<ModelWeights> ModelWeights::Load(const ModelConfig& config,
                                                const WeightSource& source, DType dtype,
                                                bool sketch, const KernelTable& kernels,
                                                int threads,
                                                const std::function<void(double)>& progress) {
  const int64_t needed = LoadingBytes(config, source, dtype, sketch, threads);
  const int64_t available = AvailableMemoryBytes();
  if (needed > available) {
    return absl::ResourceExhaustedError(
        absl::StrCat("loading the weights takes ", needed >> 20, " MiB as ", DTypeName(dtype), ", ",
                     available >> 20, " MiB of memory are available"));
  }
  ModelWeights weights;
  absl::Status status = LoadFinalNorm(config, source, &weights);
  if (!status.ok()) return status;
  const std::vector<Table> tables = Tables(config, dtype);
  const auto num_tables = static_cast<int32_t>(tables.size());
  weights.storage.resize(tables.size());
  weights.layers.resize(config.num_layers);

  // The tables first: they are the largest, and so end with the others.
  const int32_t items = num_tables + config.num_layers;
  std::vector<absl::Status> errors(kLoadersPerThread * threads);
  std::atomic<int32_t> next{0};
  std::atomic<int32_t> done{0};
  std::atomic<bool> failed{false};
  const auto load = [&](int loader) {
    MatrixReader reader(source, kernels);
    for (int32_t item; !failed && (item = next.fetch_add(1)) < items;) {
      const int32_t layer = item - num_tables;
      errors[loader] =
          layer < 0 ? LoadTable(tables[item], &reader, &weights, &weights.storage[item])
                    : LoadLayer(config, dtype, sketch, layer, &reader, &weights.layers[layer]);
      if (!errors[loader].ok()) failed = true;
      const double share = ++done / static_cast<double>(items);
      if (loader == 0 && progress && share < 1) progress(share);
    }
  };
  std::vector<std::thread> loaders;
  for (size_t i = 1; i < errors.size(); ++i) loaders.emplace_back(load, i);
  load(0);
  for (std::thread& loader : loaders) loader.join();
  for (const absl::Status& error : errors) status.Update(error);
  if (!status.ok()) return status;
  if (config.tie_embeddings) weights.lm_head = weights.embedding;
  if (progress) progress(1);
  return weights;
}

}  // namespace lacuna
