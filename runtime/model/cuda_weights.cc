#include "runtime/model/cuda_weights.h"

#include <utility>

namespace lacuna {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t VectorBytes(const std::vector<float>& v) {
  return Align(static_cast<int64_t>(v.size() * sizeof(float)));
}

// The vectors of a layer, in the order in which they are copied.
std::vector<const std::vector<float>*> Vectors(const LayerWeights& w) {
  return {&w.attention_norm, &w.attention_norm_bias, &w.ffn_norm, &w.ffn_norm_bias, &w.qkv_bias,
          &w.o_bias,         &w.gate_bias,           &w.down_bias};
}

int64_t TotalBytes(const ModelWeights& w) {
  int64_t bytes = VectorBytes(w.final_norm) + VectorBytes(w.final_norm_bias);
  for (const AlignedBuffer& table : w.storage) bytes += Align(table.size());
  for (const LayerWeights& layer : w.layers) {
    bytes += Align(layer.storage.size());
    for (const std::vector<float>* v : Vectors(layer)) bytes += VectorBytes(*v);
  }
  return bytes;
}

// Fills a DeviceBuffer from its beginning. The first error stays.
class Uploader {
 public:
  explicit Uploader(DeviceBuffer* memory) : memory_(memory) {}

  const std::byte* Copy(const void* host, int64_t bytes) {
    std::byte* const at = memory_->data() + used_;
    if (status_.ok()) status_ = memory_->Upload(host, bytes, used_);
    used_ += Align(bytes);
    return at;
  }
  const float* Copy(const std::vector<float>& v) {
    if (v.empty()) return nullptr;
    return reinterpret_cast<const float*>(
        Copy(v.data(), static_cast<int64_t>(v.size() * sizeof(float))));
  }
  const absl::Status& status() const { return status_; }

 private:
  DeviceBuffer* const memory_;
  int64_t used_ = 0;
  absl::Status status_;
};

// `m`, which lies in memory at `host`, in its copy at `device`.
RowMatrix Moved(RowMatrix m, const std::byte* host, const std::byte* device) {
  if (!m.empty()) m.data = device + (m.data - host);
  return m;
}

CudaLayer UploadLayer(LayerWeights w, Uploader* to) {
  CudaLayer layer;
  const std::byte* const host = w.storage.data();
  const std::byte* const device = to->Copy(host, w.storage.size());
  layer.qkv = Moved(w.qkv, host, device);
  layer.o = Moved(w.o, host, device);
  layer.ffn.gate = Moved(w.gate, host, device);
  layer.ffn.up = Moved(w.up, host, device);
  layer.ffn.down = Moved(w.down, host, device);
  layer.attention_norm = {to->Copy(w.attention_norm), to->Copy(w.attention_norm_bias)};
  layer.ffn_norm = {to->Copy(w.ffn_norm), to->Copy(w.ffn_norm_bias)};
  layer.qkv_bias = to->Copy(w.qkv_bias);
  layer.o_bias = to->Copy(w.o_bias);
  layer.ffn.gate_bias = to->Copy(w.gate_bias);
  layer.ffn.down_bias = to->Copy(w.down_bias);
  return layer;
}

}  // namespace

absl::StatusOr<CudaWeights> CudaWeights::Upload(ModelWeights host) {
  CudaWeights weights;
  absl::StatusOr<DeviceBuffer> memory = DeviceBuffer::Allocate(TotalBytes(host));
  if (!memory.ok()) return memory.status();
  weights.memory = *std::move(memory);
  Uploader to(&weights.memory);
  for (LayerWeights& layer : host.layers) {
    weights.layers.push_back(UploadLayer(std::move(layer), &to));
  }
  // Each table is a buffer of its own, but for tied ones.
  for (AlignedBuffer& table : host.storage) {
    const AlignedBuffer data = std::move(table);
    const std::byte* const device = to.Copy(data.data(), data.size());
    for (RowMatrix ModelWeights::*m :
         {&ModelWeights::embedding, &ModelWeights::lm_head, &ModelWeights::project_in,
          &ModelWeights::project_out, &ModelWeights::positions}) {
      if ((host.*m).data == data.data()) (host.*m).data = device;
    }
  }
  weights.embedding = host.embedding;
  weights.lm_head = host.lm_head;
  weights.project_in = host.project_in;
  weights.project_out = host.project_out;
  weights.positions = host.positions;
  weights.final_norm = {to.Copy(host.final_norm), to.Copy(host.final_norm_bias)};
  if (!to.status().ok()) return to.status();
  return weights;
}

}  // namespace lacuna
