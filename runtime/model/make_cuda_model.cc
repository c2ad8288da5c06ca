// The part of CudaModel that runs before the first step.

#include "runtime/model/make_cuda_model.h"

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_device.h"
#include "runtime/model/cuda_model.h"
#include "runtime/model/rope.h"

namespace lacuna {
namespace {

CudaFfnShape FfnShape(const ModelConfig& config, DType dtype) {
  return {.hidden = config.hidden_size,
          .neurons = config.ffn_size,
          .max_tokens = CudaModel::kMaxPassTokens,
          .dtype = dtype,
          .activation = config.activation};
}

// UNIMPLEMENTED, naming it, for a shape that the kernels do not take.
absl::Status CheckShape(const ModelConfig& c) {
  const auto multiple = [](const char* what, int64_t value, int64_t of) {
    return value % of == 0 ? absl::OkStatus()
                           : absl::UnimplementedError(absl::StrCat("the CUDA backend takes a ",
                                                                   what, " that is a multiple of ",
                                                                   of, ", not ", value));
  };
  absl::Status status = multiple("hidden size", c.hidden_size, 4);
  status.Update(multiple("width of embeddings", c.embedding_size(), 4));
  status.Update(multiple("head size", c.head_dim, 8));
  if (c.head_dim > kMaxHeadDim) {
    status.Update(absl::UnimplementedError(absl::StrCat(
        "the CUDA backend takes heads of up to ", kMaxHeadDim, " elements, not ", c.head_dim)));
  }
  return status;
}

constexpr int64_t kMebi = 1 << 20;
// What CUDA takes while a model serves: the code of a kernel when it is first launched, and graphs.
constexpr int64_t kLeftForCuda = 512 * kMebi;

}  // namespace

absl::Status CheckCudaMemory(const ModelConfig& config, DType dtype, int gpu) {
  absl::Status status = CheckShape(config);
  status.Update(SetCudaDevice(gpu));
  if (!status.ok()) return status;
  const absl::StatusOr<CudaDeviceInfo> info = GetCudaDeviceInfo();
  if (!info.ok()) return info.status();
  const int64_t weights = ModelWeights::BytesFor(config, dtype, /*sketch=*/false);
  const int64_t scratch = CudaModel::ScratchBytes(config, dtype, info->multiprocessors);
  if (weights + scratch + kLeftForCuda <= info->free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the model takes ", weights / kMebi, " MiB of weights as ", DTypeName(dtype),
                   ", ", scratch / kMebi, " MiB to compute with and ", kLeftForCuda / kMebi,
                   " MiB for CUDA itself, GPU ", gpu, " (", info->name, ") has ",
                   info->free_bytes / kMebi, " of ", info->memory_bytes / kMebi, " MiB free"));
}

absl::StatusOr<std::unique_ptr<Model>> MakeCudaModel(const ModelConfig& config,
                                                     ModelWeights weights, int gpu) {
  absl::StatusOr<std::unique_ptr<CudaModel>> model =
      CudaModel::Create(config, std::move(weights), gpu);
  if (!model.ok()) return model.status();
  const absl::Status status = (*model)->Calibrate();
  if (!status.ok()) return status;
  return *std::move(model);
}

absl::StatusOr<std::unique_ptr<CudaModel>> CudaModel::Create(const ModelConfig& config,
                                                             ModelWeights weights, int gpu) {
  absl::Status status = CheckShape(config);
  status.Update(SetCudaDevice(gpu));
  if (!status.ok()) return status;
  const absl::StatusOr<CudaDeviceInfo> info = GetCudaDeviceInfo();
  if (!info.ok()) return info.status();
  absl::StatusOr<CudaStream> stream = CudaStream::Create();
  if (!stream.ok()) return stream.status();
  const DType dtype = weights.layers[0].gate.dtype;
  absl::StatusOr<CudaFfn> ffn = CudaFfn::Create(FfnShape(config, dtype));
  if (!ffn.ok()) return ffn.status();
  ModelFacts facts;
  facts.parameters = weights.parameters();
  facts.weight_bytes = weights.bytes();
  facts.step_weight_bytes = weights.step_bytes();
  facts.ffn_weight_bytes = weights.ffn_bytes();
  facts.weights = DTypeName(dtype);
  facts.kv_type = dtype == DType::kF32 ? DType::kF32 : DType::kBf16;
  facts.device = absl::StrCat("cuda:", gpu);
  facts.isa = info->isa;
  absl::StatusOr<CudaWeights> uploaded = CudaWeights::Upload(std::move(weights));
  if (!uploaded.ok()) return uploaded.status();
  std::unique_ptr<CudaModel> model(new CudaModel(config, std::move(facts), gpu,
                                                 info->multiprocessors, *std::move(stream),
                                                 *std::move(uploaded), *std::move(ffn)));
  status = model->AllocateScratch();
  if (status.ok()) status = model->UploadRotations();
  if (!status.ok()) return status;
  return model;
}

CudaModel::CudaModel(const ModelConfig& config, ModelFacts facts, int gpu, int multiprocessors,
                     CudaStream stream, CudaWeights weights, CudaFfn ffn)
    : config_(config),
      facts_(std::move(facts)),
      gpu_(gpu),
      multiprocessors_(multiprocessors),
      table_stride_(KvCache::BlocksFor(config.max_context)),
      stream_(std::move(stream)),
      weights_(std::move(weights)),
      ffn_(std::move(ffn)),
      dispatch_(config.num_layers, config.activation.has_zeros()) {}

int64_t CudaModel::LayOut(const ModelConfig& c, int multiprocessors, std::byte* base,
                          Scratch* scratch) {
  constexpr int64_t kAlignment = 256;
  constexpr int64_t kTokens = kMaxPassTokens;
  int64_t used = 0;
  const auto take = [&](auto** array, int64_t n) {
    using T = std::remove_pointer_t<std::remove_pointer_t<decltype(array)>>;
    if (base != nullptr) *array = reinterpret_cast<T*>(base + used);
    used += (n * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
  };
  const int64_t widest = std::max<int64_t>({c.hidden_size, c.q_dim(), c.embedding_size()});
  int64_t attention = 0;
  for (int64_t t = 1; t <= kTokens; ++t) {
    const int64_t splits = AttentionSplits(multiprocessors, t, c.num_kv_heads);
    attention =
        std::max(attention, DecodeAttentionScratchBytes(t, c.num_heads, c.head_dim, splits));
  }
  const bool rotary = c.positions == PositionKind::kRotary;
  take(&scratch->hidden, kTokens * c.hidden_size);
  take(&scratch->normed, kTokens * c.hidden_size);
  take(&scratch->projected, c.projected_embedding_size > 0 ? kTokens * c.embedding_size() : 0);
  take(&scratch->qkv, kTokens * (c.q_dim() + 2 * c.kv_dim()));
  take(&scratch->attended, kTokens * c.q_dim());
  take(&scratch->block_out, kTokens * c.hidden_size);
  take(&scratch->quantized, kTokens * ActivationBytes(DType::kInt8, widest));
  take(&scratch->attention, attention);
  take(&scratch->logits, kMaxBucket * c.vocab_size);
  take(&scratch->counts, c.num_layers * CountsOf(kTokens));
  if (rotary) take(&scratch->cos, int64_t{c.max_context} * (c.head_dim / 2));
  if (rotary) take(&scratch->sin, int64_t{c.max_context} * (c.head_dim / 2));
  return used;
}

int64_t CudaModel::ScratchBytes(const ModelConfig& config, DType dtype, int multiprocessors) {
  Scratch unused;
  const int64_t inputs =
      CudaPassInputs::Size(kMaxPassTokens, kMaxPassTokens, KvCache::BlocksFor(config.max_context));
  return LayOut(config, multiprocessors, nullptr, &unused) +
         inputs * static_cast<int64_t>(sizeof(int32_t)) +
         CudaFfn::ScratchBytes(FfnShape(config, dtype), multiprocessors);
}

absl::Status CudaModel::AllocateScratch() {
  const int64_t input_bytes = CudaPassInputs::Size(kMaxPassTokens, kMaxPassTokens, table_stride_) *
                              static_cast<int64_t>(sizeof(int32_t));
  const auto device = [](int64_t bytes, DeviceBuffer* buffer) {
    absl::StatusOr<DeviceBuffer> allocated = DeviceBuffer::Allocate(bytes);
    if (allocated.ok()) *buffer = *std::move(allocated);
    return allocated.status();
  };
  const auto pinned = [](int64_t bytes, PinnedBuffer* buffer) {
    absl::StatusOr<PinnedBuffer> allocated = PinnedBuffer::Allocate(bytes);
    if (allocated.ok()) *buffer = *std::move(allocated);
    return allocated.status();
  };
  absl::Status status =
      device(LayOut(config_, multiprocessors_, nullptr, &scratch_), &scratch_memory_);
  status.Update(device(input_bytes, &input_memory_));
  status.Update(pinned(input_bytes, &host_input_memory_));
  status.Update(
      pinned(config_.num_layers * CountsOf(kMaxPassTokens) * static_cast<int64_t>(sizeof(int32_t)),
             &counts_));
  if (!status.ok()) return status;
  LayOut(config_, multiprocessors_, scratch_memory_.data(), &scratch_);
  inputs_ = CudaPassInputs::At(input_memory_.as<int32_t>(), kMaxPassTokens);
  host_inputs_ = CudaPassInputs::At(host_input_memory_.as<int32_t>(), kMaxPassTokens);
  return ReserveLogits(kMaxBucket);
}

absl::Status CudaModel::UploadRotations() {
  if (config_.positions != PositionKind::kRotary) return absl::OkStatus();
  const int64_t half = config_.head_dim / 2;
  const Rotations rotations(config_.rope_theta, config_.rope_scaling, config_.head_dim);
  std::vector<float> cos(config_.max_context * half), sin(config_.max_context * half);
  for (int32_t p = 0; p < config_.max_context; ++p) {
    rotations.At(p, &cos[p * half], &sin[p * half]);
  }
  const int64_t bytes = config_.max_context * half * static_cast<int64_t>(sizeof(float));
  const auto offset = [&](const float* array) {
    return reinterpret_cast<const std::byte*>(array) - scratch_memory_.data();
  };
  absl::Status status = scratch_memory_.Upload(cos.data(), bytes, offset(scratch_.cos));
  status.Update(scratch_memory_.Upload(sin.data(), bytes, offset(scratch_.sin)));
  return status;
}

absl::StatusOr<std::unique_ptr<KvCache>> CudaModel::CreateKvCache(int32_t num_blocks) const {
  absl::Status status = SetCudaDevice(gpu_);
  if (!status.ok()) return status;
  absl::StatusOr<CudaStream> stream = CudaStream::Create();
  if (!stream.ok()) return stream.status();
  const int64_t bytes = num_blocks * KvCache::BytesPerBlock(config_, facts_.kv_type);
  const int64_t available = AvailableBytes();
  if (bytes > available) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a KV cache of ", bytes / kMebi, " MiB does not fit: GPU ", gpu_, " has ",
        available / kMebi, " MiB for it, beside ", kLeftForCuda / kMebi, " that CUDA may need"));
  }
  absl::StatusOr<DeviceBuffer> memory = DeviceBuffer::Allocate(bytes);
  if (!memory.ok()) return memory.status();
  stream->Zero(memory->data(), bytes);
  status = stream->Synchronize();
  if (!status.ok()) return status;
  const auto owner = std::make_shared<DeviceBuffer>(*std::move(memory));
  return KvCache::Over(config_, num_blocks, facts_.kv_type,
                       std::shared_ptr<std::byte>(owner, owner->data()));
}

int64_t CudaModel::AvailableBytes() const {
  if (!SetCudaDevice(gpu_).ok()) return 0;
  const absl::StatusOr<CudaDeviceInfo> info = GetCudaDeviceInfo();
  return info.ok() ? std::max<int64_t>(info->free_bytes - kLeftForCuda, 0) : 0;
}

absl::StatusOr<double> CudaModel::FfnSeconds(const Operand& x, int64_t tokens, bool sparse) {
  constexpr int kRepeats = 3;
  absl::StatusOr<CudaEvent> start = CudaEvent::Create();
  if (!start.ok()) return start.status();
  absl::StatusOr<CudaEvent> end = CudaEvent::Create();
  if (!end.ok()) return end.status();
  const int32_t* const counts = scratch_.counts;
  // As decoding runs it. Launched one by one, the kernels of small models take longer to launch
  // than to run.
  const absl::StatusOr<CudaGraph> graph = CudaGraph::Capture(stream_, [&] {
    for (const CudaLayer& layer : weights_.layers) {
      ffn_.Run(stream_, layer.ffn, x.data, x.stride, tokens, nullptr, sparse, scratch_.block_out,
               {scratch_.counts, scratch_.counts + tokens, scratch_.counts + tokens + 1});
    }
  });
  if (!graph.ok()) return graph.status();
  double best = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {  // the first one warms up
    stream_.Record(*start);
    graph->Launch(stream_);
    stream_.Record(*end);
    stream_.CopyToHost(counts_.data(), counts, CountsOf(tokens) * sizeof(int32_t));
    const absl::Status status = stream_.Synchronize();
    if (!status.ok()) return status;
    const absl::StatusOr<double> seconds = end->SecondsSince(*start);
    if (!seconds.ok()) return seconds.status();
    if (repeat > 0) best = std::min(best, *seconds);
  }
  return best / static_cast<double>(config_.num_layers);
}

absl::Status CudaModel::Calibrate() {
  if (!config_.activation.has_zeros()) return absl::OkStatus();
  absl::Status status = SetCudaDevice(gpu_);
  if (!status.ok()) return status;
  // Inputs that leave few neurons active, and about half of them for each token.
  const int64_t n = config_.hidden_size;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(kMaxBucket * n);
  for (float& value : values) value = normal(random);
  const int64_t bytes = kMaxBucket * n * static_cast<int64_t>(sizeof(float));
  const int64_t offset = reinterpret_cast<std::byte*>(scratch_.normed) - scratch_memory_.data();
  stream_.Zero(scratch_.hidden, bytes);
  status = stream_.Synchronize();
  status.Update(scratch_memory_.Upload(values.data(), bytes, offset));
  if (!status.ok()) return status;
  const DType dtype = weights_.layers[0].ffn.gate.dtype;
  for (int bucket = 0; bucket < kNumBuckets; ++bucket) {
    const int64_t tokens = int64_t{1} << bucket;
    const auto measure = [&](const float* x, bool sparse, double* density) {
      absl::StatusOr<double> seconds = FfnSeconds(OperandFor(dtype, x, tokens, n), tokens, sparse);
      *density = static_cast<double>(counts_.as<int32_t>()[tokens]) / config_.ffn_size;
      return seconds;
    };
    double few, many;
    const absl::StatusOr<double> dense = measure(scratch_.normed, false, &many);
    const absl::StatusOr<double> at_few = measure(scratch_.hidden, true, &few);
    const absl::StatusOr<double> at_many = measure(scratch_.normed, true, &many);
    for (const absl::StatusOr<double>* seconds : {&dense, &at_few, &at_many}) {
      if (!seconds->ok()) return seconds->status();
    }
    CudaDispatch::Costs costs;
    costs.dense = *dense;
    // Too close to tell a slope from: as if a neuron took as long as it does among all.
    const bool apart = many - few > 0.05;
    costs.sparse_per_density = apart ? std::max((*at_many - *at_few) / (many - few), 0.0) : *dense;
    costs.sparse = std::max(*at_few - few * costs.sparse_per_density, 0.0);
    dispatch_.SetCosts(bucket, costs);
  }
  return absl::OkStatus();
}

}  // namespace lacuna
