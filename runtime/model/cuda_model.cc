#include "runtime/model/cuda_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/linear.h"

namespace lacuna {
namespace {

// More than each bucket with its paths forced or chosen. Beyond that, choices have changed so often
// that most graphs are of no use any more.
constexpr size_t kMaxGraphs = 64;

int64_t Groups(int64_t tokens) { return (tokens + kMaxBucket - 1) / kMaxBucket; }

}  // namespace

absl::StatusOr<ForwardOutput> CudaModel::Forward(absl::Span<const SequenceChunk> chunks,
                                                 FfnMode mode, KvCache* cache) {
  const auto start = std::chrono::steady_clock::now();
  absl::Status status = SetCudaDevice(gpu_);
  if (!status.ok()) return status;
  ForwardOutput out;
  out.ffn.neurons = config_.ffn_size;
  out.ffn.layers.resize(config_.num_layers);
  out.ffn.active_by_chunk.resize(chunks.size());
  int64_t rows = 0;
  for (const SequenceChunk& chunk : chunks) {
    rows += chunk.logits;
    out.ffn.tokens[static_cast<int>(chunk.phase)] += static_cast<int64_t>(chunk.tokens.size());
  }
  status = ReserveLogits(rows);
  int64_t first_row = 0;
  for (const std::vector<CudaPassPart>& parts : CutIntoPasses(chunks, kMaxPassTokens)) {
    if (!status.ok()) return status;
    status = RunPass(parts, mode, *cache, first_row, &out.ffn);
    for (const CudaPassPart& part : parts) first_row += part.chunk.logits;
  }
  if (!status.ok()) return status;
  out.logits = absl::MakeConstSpan(logits_.as<float>(), rows * config_.vocab_size);
  out.times.other = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

absl::Status CudaModel::ReserveLogits(int64_t rows) {
  const int64_t bytes = rows * config_.vocab_size * static_cast<int64_t>(sizeof(float));
  if (bytes <= logits_.size()) return absl::OkStatus();
  absl::StatusOr<PinnedBuffer> larger = PinnedBuffer::Allocate(bytes);
  if (!larger.ok()) return larger.status();
  logits_ = *std::move(larger);
  return absl::OkStatus();
}

absl::Status CudaModel::RunPass(absl::Span<const CudaPassPart> parts, FfnMode mode,
                                const KvCache& cache, int64_t first_row, FfnStepStats* stats) {
  const CudaPass pass = PlanPass(parts, table_stride_, host_inputs_);
  std::vector<FfnDecision> decisions(config_.num_layers);
  dispatch_.Choose(mode, pass.tokens, absl::MakeSpan(decisions));
  stream_.CopyToDevice(inputs_.ids, host_inputs_.ids,
                       CudaPassInputs::Size(kMaxPassTokens, pass.sequences, table_stride_) *
                           static_cast<int64_t>(sizeof(int32_t)));
  if (pass.repeatable) {
    absl::StatusOr<const CudaGraph*> graph = FindGraph(pass, decisions, cache);
    if (!graph.ok()) {
      stream_.Synchronize().IgnoreError();  // the copy still reads host_inputs_
      return graph.status();
    }
    (*graph)->Launch(stream_);
  } else {
    EnqueuePass(pass, decisions, cache);
  }
  int64_t rows = 0;
  for (const CudaPassPart& part : parts) rows += part.chunk.logits;
  const int64_t row_bytes = config_.vocab_size * static_cast<int64_t>(sizeof(float));
  for (int64_t first = 0; first < rows; first += kMaxBucket) {
    const int64_t count = std::min(rows - first, kMaxBucket);
    if (!pass.repeatable) EnqueueLogits(first, count);
    stream_.CopyToHost(logits_.data() + (first_row + first) * row_bytes, scratch_.logits,
                       count * row_bytes);
  }
  stream_.CopyToHost(
      counts_.data(), scratch_.counts,
      config_.num_layers * CountsOf(pass.tokens) * static_cast<int64_t>(sizeof(int32_t)));
  const absl::Status status = stream_.Synchronize();
  if (status.ok()) AddCounts(parts, pass.tokens, decisions, stats);
  return status;
}

absl::StatusOr<const CudaGraph*> CudaModel::FindGraph(const CudaPass& pass,
                                                      absl::Span<const FfnDecision> decisions,
                                                      const KvCache& cache) {
  const std::pair<const std::byte*, int32_t> of_cache = {cache.layer(0).keys, cache.num_blocks()};
  if (of_cache != graph_cache_) graphs_.clear();
  graph_cache_ = of_cache;
  std::pair<int64_t, std::vector<bool>> key = {pass.tokens, {}};
  for (const FfnDecision& d : decisions) key.second.push_back(d.path == FfnPath::kSparse);
  const auto known = graphs_.find(key);
  if (known != graphs_.end()) return &known->second;
  if (graphs_.size() >= kMaxGraphs) graphs_.clear();
  absl::StatusOr<CudaGraph> captured = CudaGraph::Capture(stream_, [&] {
    EnqueuePass(pass, decisions, cache);
    EnqueueLogits(0, pass.logit_rows);
  });
  if (!captured.ok()) return captured.status();
  ++captures_;
  return &graphs_.emplace(std::move(key), *std::move(captured)).first->second;
}

void CudaModel::EnqueuePass(const CudaPass& pass, absl::Span<const FfnDecision> decisions,
                            const KvCache& cache) {
  Embed(pass.tokens);
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    const CudaLayer& w = weights_.layers[layer];
    AttentionBlock(w, pass, cache.layer(layer));
    FfnBlock(w, pass.tokens, decisions[layer].path,
             scratch_.counts + layer * CountsOf(pass.tokens));
  }
}

void CudaModel::Embed(int64_t tokens) {
  const bool projected = !weights_.project_in.empty();
  EmbedTokens(stream_, weights_.embedding, inputs_.ids, tokens, config_.embedding_scale,
              projected ? scratch_.projected : scratch_.hidden);
  if (projected) {
    Multiply(scratch_.projected, tokens, weights_.project_in, nullptr, scratch_.hidden);
  }
  if (config_.positions == PositionKind::kLearned) {
    AddPositions(stream_, weights_.positions, inputs_.positions, kLearnedPositionOffset, tokens,
                 scratch_.hidden);
  }
}

void CudaModel::Normalize(const float* x, int64_t tokens, const CudaNorm& norm, float* out) {
  if (config_.norm == NormKind::kRms) {
    RmsNorm(stream_, x, norm.weight, config_.norm_eps, tokens, config_.hidden_size, out);
  } else {
    LayerNorm(stream_, x, norm.weight, norm.bias, config_.norm_eps, tokens, config_.hidden_size,
              out);
  }
}

const float* CudaModel::BlockInput(const CudaNorm& norm, int64_t tokens) {
  if (config_.norm_after) return scratch_.hidden;
  Normalize(scratch_.hidden, tokens, norm, scratch_.normed);
  return scratch_.normed;
}

void CudaModel::AddBlock(const CudaNorm& norm, int64_t tokens) {
  AddScaled(stream_, config_.residual_scale, scratch_.block_out, tokens * config_.hidden_size,
            scratch_.hidden);
  if (config_.norm_after) Normalize(scratch_.hidden, tokens, norm, scratch_.hidden);
}

CudaModel::Operand CudaModel::OperandFor(DType weights, const float* x, int64_t tokens, int64_t n) {
  const int64_t stride = ActivationBytes(weights, n);
  if (!IsQuantized(weights)) return {reinterpret_cast<const std::byte*>(x), stride};
  QuantizeActivations(stream_, x, tokens, n, scratch_.quantized);
  return {scratch_.quantized, stride};
}

void CudaModel::Multiply(const float* x, int64_t tokens, const RowMatrix& w, const float* bias,
                         float* y) {
  const Operand operand = OperandFor(w.dtype, x, tokens, w.cols);
  Linear(stream_, operand.data, operand.stride, tokens, w, bias, y, w.rows);
}

void CudaModel::AttentionBlock(const CudaLayer& w, const CudaPass& pass, const KvView& kv) {
  const float* const x = BlockInput(w.attention_norm, pass.tokens);
  Multiply(x, pass.tokens, w.qkv, w.qkv_bias, scratch_.qkv);
  const TokenPlaces places = {inputs_.positions, inputs_.sequences, inputs_.block_tables,
                              table_stride_};
  RotateAndStore(stream_, places, pass.tokens, config_.num_heads, scratch_.cos, scratch_.sin,
                 scratch_.qkv, kv);
  for (const CudaAttentionRun& run : pass.runs) Attend(run, kv);
  Multiply(scratch_.attended, pass.tokens, w.o, w.o_bias, scratch_.block_out);
  AddBlock(w.attention_norm, pass.tokens);
}

void CudaModel::Attend(const CudaAttentionRun& run, const KvView& kv) {
  CudaAttentionArgs args;
  args.q_stride = config_.q_dim() + 2 * config_.kv_dim();
  args.heads = config_.num_heads;
  args.places = {inputs_.positions, inputs_.sequences, inputs_.block_tables, table_stride_};
  args.kv = kv;
  args.window = config_.sliding_window;
  args.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  args.q = scratch_.qkv;
  args.out = scratch_.attended;
  args.tokens = run.first_token + run.tokens;
  if (run.tiles > 0) {
    PrefillAttention(stream_, args, inputs_.tile_begins + run.first_tile, run.tiles);
    return;
  }
  args.q += run.first_token * args.q_stride;
  args.out += run.first_token * config_.q_dim();
  args.places.positions += run.first_token;
  args.places.sequences += run.first_token;
  args.tokens = run.tokens;
  DecodeAttention(stream_, args,
                  AttentionSplits(multiprocessors_, run.tokens, config_.num_kv_heads),
                  scratch_.attention);
}

void CudaModel::FfnBlock(const CudaLayer& w, int64_t tokens, FfnPath path, int32_t* counts) {
  const float* const x = BlockInput(w.ffn_norm, tokens);
  const Operand operand = OperandFor(w.ffn.gate.dtype, x, tokens, config_.hidden_size);
  const bool sparse = path == FfnPath::kSparse;
  const int64_t group = sparse ? CudaFfn::kMaxSparseTokens : tokens;
  for (int64_t first = 0; first < tokens; first += group) {
    const int64_t index = first / group;
    ffn_.Run(stream_, w.ffn, operand.data + first * operand.stride, operand.stride,
             std::min(group, tokens - first), inputs_.positions + first, sparse,
             scratch_.block_out + first * config_.hidden_size,
             {.active = counts + first,
              .union_active = counts + tokens + index,
              .negative = counts + tokens + Groups(tokens) + index,
              .union_gates = counts + tokens + 2 * Groups(tokens) + index});
  }
  AddBlock(w.ffn_norm, tokens);
}

void CudaModel::EnqueueLogits(int64_t first, int64_t count) {
  const int64_t n = config_.hidden_size;
  GatherRows(stream_, scratch_.hidden, inputs_.logit_tokens + first, count, n, scratch_.normed);
  if (config_.final_norm) Normalize(scratch_.normed, count, weights_.final_norm, scratch_.normed);
  if (config_.logits_scale != 1.0f) {
    Scale(stream_, config_.logits_scale, count * n, scratch_.normed);
  }
  const float* x = scratch_.normed;
  if (!weights_.project_out.empty()) {
    Multiply(x, count, weights_.project_out, nullptr, scratch_.projected);
    x = scratch_.projected;
  }
  Multiply(x, count, weights_.lm_head, nullptr, scratch_.logits);
}

int64_t CudaModel::CountsOf(int64_t tokens) { return tokens + 3 * Groups(tokens); }

void CudaModel::AddCounts(absl::Span<const CudaPassPart> parts, int64_t tokens,
                          absl::Span<const FfnDecision> decisions, FfnStepStats* stats) {
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    const int32_t* const counts = counts_.as<int32_t>() + layer * CountsOf(tokens);
    const CudaFfnWeights& w = weights_.layers[layer].ffn;
    FfnLayerStats& layer_stats = stats->layers[layer];
    const FfnDecision decision = decisions[layer];
    const bool sparse = decision.path == FfnPath::kSparse;
    const int64_t group = sparse ? CudaFfn::kMaxSparseTokens : tokens;
    for (int64_t g = 0; g * group < tokens; ++g) {
      const int64_t active = counts[tokens + g];
      layer_stats.union_active += active;
      layer_stats.groups += 1;
      layer_stats.dispatched[static_cast<int>(decision.path)][static_cast<int>(decision.reason)] +=
          1;
      stats->negative_gates += counts[tokens + Groups(tokens) + g];
      int64_t bytes = w.up.bytes() + w.down.bytes();
      if (sparse) {
        const int64_t gates = counts[tokens + 2 * Groups(tokens) + g];
        bytes = (gates * w.up.bytes() + active * w.down.bytes()) / config_.ffn_size;
      }
      stats->weight_bytes_read += w.gate.bytes() + bytes;
      stats->weight_bytes_skipped += w.up.bytes() + w.down.bytes() - bytes;
      dispatch_.Learn(layer, std::min(group, tokens - g * group),
                      static_cast<double>(active) / config_.ffn_size);
    }
    const int32_t* next = counts;
    for (const CudaPassPart& part : parts) {
      const int64_t n = static_cast<int64_t>(part.chunk.tokens.size());
      int64_t active = 0;
      for (int64_t t = 0; t < n; ++t) active += next[t];
      next += n;
      stats->active_by_chunk[part.index] += active;
      layer_stats.active[static_cast<int>(part.chunk.phase)] += active;
    }
  }
}

}  // namespace lacuna
