#include "runtime/model/transformer_model.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "runtime/model/float_bits.h"

namespace lacuna {
namespace {

// Rows per thread come in multiples of a cache line of float results.
constexpr int64_t kRowGrain = 16;
// Below this many tokens, what is done token by token takes less time than waking a thread.
constexpr int64_t kTokenGrain = 4;
// The same for adding two vectors.
constexpr int64_t kAddGrain = 16;
// Queries that share a pass over keys and values: several register tiles of them. Their scores take
// a quarter of a second-level cache of 2 MiB at most, if those of one token do; they pass it
// thrice.
constexpr int64_t kMaxQueries = 48;
constexpr int64_t kMaxScores = 128 * 1024;

// Writes n elements of a key or a value to the cache.
void StoreKv(const float* x, int64_t n, DType type, std::byte* out) {
  if (type == DType::kF32) {
    std::memcpy(out, x, n * sizeof(float));
  } else {
    auto* bits = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < n; ++i) bits[i] = F32ToBf16(x[i]);
  }
}

class Stopwatch {
 public:
  // Seconds since construction or the last Lap.
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

TransformerModel::TransformerModel(const ModelConfig& config, ModelWeights weights,
                                   const KernelTable* kernels, ThreadPool* pool)
    : config_(config),
      weights_(std::move(weights)),
      kernels_(kernels),
      pool_(pool),
      ffn_(kernels, pool, config.hidden_size, config.ffn_size, config.activation),
      attention_scratch_(pool->threads()) {
  facts_.parameters = weights_.parameters();
  facts_.weight_bytes = weights_.bytes();
  facts_.step_weight_bytes = weights_.step_bytes();
  facts_.ffn_weight_bytes = weights_.ffn_bytes();
  facts_.weights = DTypeName(weights_.layers[0].gate.dtype);
  facts_.kv_type = KvCache::TypeBeside(weights_.layers[0].gate.dtype);
  facts_.device = "cpu";
  facts_.isa = kernels->isa;
  facts_.threads = pool->threads();
  if (config.positions == PositionKind::kRotary) {
    rotations_.emplace(config.rope_theta, config.rope_scaling, config.head_dim);
  }
}

void TransformerModel::UsePredictor(double recall) {
  predictors_.assign(config_.num_layers, GatePredictor(recall));
  facts_.has_predictor = true;
}

absl::StatusOr<ForwardOutput> TransformerModel::Forward(absl::Span<const SequenceChunk> chunks,
                                                        FfnMode mode, KvCache* cache) {
  if (!MayPredict(chunks, mode)) return Pass(chunks, mode, Prediction::kOff, cache);
  const int64_t step = predicted_steps_++;
  if (step >= kFirstAudits && step % kAuditPeriod != 0) {
    return Pass(chunks, mode, Prediction::kUse, cache);
  }
  return AuditedPass(chunks, cache);
}

bool TransformerModel::MayPredict(absl::Span<const SequenceChunk> chunks, FfnMode mode) const {
  if (predictors_.empty() || mode != FfnMode::kAuto) return false;
  int64_t tokens = 0;
  for (const SequenceChunk& chunk : chunks) {
    if (chunk.phase != Phase::kDecode || chunk.exact) return false;
    tokens += static_cast<int64_t>(chunk.tokens.size());
  }
  return tokens <= kMaxPredictedTokens;
}

// The exact pass comes second, so that its keys and values stay, and gives the result.
ForwardOutput TransformerModel::AuditedPass(absl::Span<const SequenceChunk> chunks,
                                            KvCache* cache) {
  const int64_t vocab = config_.vocab_size;
  const auto choice = [&](absl::Span<const float> logits, int64_t row) {
    const absl::Span<const float> of_row = logits.subspan(row * vocab, vocab);
    return std::max_element(of_row.begin(), of_row.end()) - of_row.begin();
  };
  const ForwardOutput predicted = Pass(chunks, FfnMode::kAuto, Prediction::kAudit, cache);
  const int64_t rows = static_cast<int64_t>(predicted.logits.size()) / vocab;
  std::vector<int64_t> choices(rows);
  for (int64_t r = 0; r < rows; ++r) choices[r] = choice(predicted.logits, r);

  ForwardOutput out = Pass(chunks, FfnMode::kAuto, Prediction::kOff, cache);
  out.ffn.audits = rows;
  for (int64_t r = 0; r < rows; ++r) {
    out.ffn.audit_mismatches += choices[r] != choice(out.logits, r) ? 1 : 0;
  }
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    out.ffn.layers[layer].prediction = predicted.ffn.layers[layer].prediction;
  }
  out.ffn.weight_bytes_read += predicted.ffn.weight_bytes_read;
  out.times.ffn += predicted.times.ffn;
  out.times.attention += predicted.times.attention;
  out.times.other += predicted.times.other;
  return out;
}

ForwardOutput TransformerModel::Pass(absl::Span<const SequenceChunk> chunks, FfnMode mode,
                                     Prediction prediction, KvCache* cache) {
  ForwardOutput out;
  out.ffn.neurons = config_.ffn_size;
  out.ffn.layers.resize(config_.num_layers);
  out.ffn.active_by_chunk.resize(chunks.size());
  Stopwatch watch;
  PlanStep(chunks);
  Embed(chunks);
  out.times.other += watch.Lap();
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& w = weights_.layers[layer];
    AttentionBlock(w, chunks, cache->layer(layer));
    out.times.attention += watch.Lap();
    FfnBlock(w, layer, chunks, mode, prediction, &out.ffn);
    out.times.ffn += watch.Lap();
  }
  out.logits = Logits(chunks);
  out.times.other += watch.Lap();
  for (const SequenceChunk& chunk : chunks) {
    out.ffn.tokens[static_cast<int>(chunk.phase)] += static_cast<int64_t>(chunk.tokens.size());
  }
  return out;
}

void TransformerModel::PlanStep(absl::Span<const SequenceChunk> chunks) {
  tokens_.clear();
  for (size_t c = 0; c < chunks.size(); ++c) {
    const int32_t end = chunks[c].first_position + static_cast<int32_t>(chunks[c].tokens.size());
    for (int32_t p = chunks[c].first_position; p < end; ++p) {
      tokens_.push_back({static_cast<int32_t>(c), p});
    }
  }
  const int64_t total = static_cast<int64_t>(tokens_.size());
  hidden_.resize(total * config_.hidden_size);
  normed_.resize(total * config_.hidden_size);
  block_out_.resize(total * config_.hidden_size);
  qkv_.resize(total * (config_.q_dim() + 2 * config_.kv_dim()));
  attended_.resize(total * config_.q_dim());
  active_.resize(total);
  if (!rotations_.has_value()) return;
  const int64_t half = config_.head_dim / 2;
  cos_.resize(total * half);
  sin_.resize(total * half);
  for (int64_t t = 0; t < total; ++t) {
    rotations_->At(tokens_[t].position, &cos_[t * half], &sin_[t * half]);
  }
}

void TransformerModel::Embed(absl::Span<const SequenceChunk> chunks) {
  const RowMatrix& table = weights_.embedding;
  const int64_t total = static_cast<int64_t>(tokens_.size());
  const int64_t n = config_.hidden_size;
  const int64_t width = config_.embedding_size();
  if (!weights_.project_in.empty()) projected_.resize(total * width);
  float* row = weights_.project_in.empty() ? hidden_.data() : projected_.data();
  for (const SequenceChunk& chunk : chunks) {
    for (int32_t id : chunk.tokens) {
      kernels_->widen[static_cast<int>(table.dtype)](table.row(id), width, row);
      if (config_.embedding_scale != 1.0f) {
        for (int64_t i = 0; i < width; ++i) row[i] *= config_.embedding_scale;
      }
      row += width;
    }
  }
  if (!weights_.project_in.empty()) {
    Linear(projected_.data(), total, weights_.project_in, {}, hidden_.data());
  }
  if (config_.positions == PositionKind::kLearned) {
    for (int64_t t = 0; t < total; ++t) {
      const void* position = weights_.positions.row(tokens_[t].position + kLearnedPositionOffset);
      kernels_->add_scaled(1.0f, static_cast<const float*>(position), n, &hidden_[t * n]);
    }
  }
}

void TransformerModel::Normalize(const float* x, int64_t tokens, const std::vector<float>& weight,
                                 const std::vector<float>& bias, float* out) {
  const int64_t n = config_.hidden_size;
  pool_->ParallelFor(tokens, kTokenGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      if (config_.norm == NormKind::kRms) {
        kernels_->rms_norm(x + t * n, weight.data(), config_.norm_eps, n, out + t * n);
      } else {
        kernels_->layer_norm(x + t * n, weight.data(), bias.data(), config_.norm_eps, n,
                             out + t * n);
      }
    }
  });
}

const float* TransformerModel::BlockInput(const std::vector<float>& weight,
                                          const std::vector<float>& bias) {
  if (config_.norm_after) return hidden_.data();
  Normalize(hidden_.data(), static_cast<int64_t>(tokens_.size()), weight, bias, normed_.data());
  return normed_.data();
}

void TransformerModel::AddBlock(const std::vector<float>& weight, const std::vector<float>& bias) {
  const int64_t total = static_cast<int64_t>(tokens_.size());
  const int64_t n = config_.hidden_size;
  pool_->ParallelFor(total, kAddGrain, [&](int64_t begin, int64_t end, int) {
    kernels_->add_scaled(config_.residual_scale, &block_out_[begin * n], (end - begin) * n,
                         &hidden_[begin * n]);
  });
  if (config_.norm_after) Normalize(hidden_.data(), total, weight, bias, hidden_.data());
}

void TransformerModel::Linear(const float* x, int64_t tokens, const RowMatrix& w,
                              const std::vector<float>& bias, float* y) {
  activations_.Set(*kernels_, pool_, w.dtype, x, tokens, w.cols);
  const float* const b = bias.empty() ? nullptr : bias.data();
  pool_->ParallelFor(w.rows, kRowGrain, [&](int64_t begin, int64_t end, int) {
    kernels_->linear[static_cast<int>(w.dtype)](activations_.data(), activations_.stride(), tokens,
                                                w, begin, end, b, y, w.rows);
  });
}

void TransformerModel::AttentionBlock(const LayerWeights& w, absl::Span<const SequenceChunk> chunks,
                                      KvView kv) {
  const int64_t total = static_cast<int64_t>(tokens_.size());
  const float* const x = BlockInput(w.attention_norm, w.attention_norm_bias);
  Linear(x, total, w.qkv, w.qkv_bias, qkv_.data());
  RotateAndStore(chunks, kv);
  Attend(chunks, kv);
  Linear(attended_.data(), total, w.o, w.o_bias, block_out_.data());
  AddBlock(w.attention_norm, w.attention_norm_bias);
}

void TransformerModel::RotateAndStore(absl::Span<const SequenceChunk> chunks, KvView kv) {
  const int64_t half = config_.head_dim / 2;
  const int64_t width = config_.q_dim() + 2 * config_.kv_dim();
  pool_->ParallelFor(tokens_.size(), kTokenGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* q = &qkv_[t * width];
      const float* k = q + config_.q_dim();
      const float* v = k + config_.kv_dim();
      if (config_.positions == PositionKind::kRotary) {
        // Keys follow queries in memory, so one call rotates the heads of both.
        kernels_->rope(q, &cos_[t * half], &sin_[t * half],
                       config_.num_heads + config_.num_kv_heads, config_.head_dim);
      }
      const int32_t position = tokens_[t].position;
      const int32_t block = chunks[tokens_[t].chunk].block_table[position / kv.block_size];
      for (int32_t h = 0; h < config_.num_kv_heads; ++h) {
        const int64_t at = kv.Offset(block, h, position % kv.block_size);
        StoreKv(k + h * config_.head_dim, config_.head_dim, kv.type, kv.keys + at);
        StoreKv(v + h * config_.head_dim, config_.head_dim, kv.type, kv.values + at);
      }
    }
  });
}

void TransformerModel::Attend(absl::Span<const SequenceChunk> chunks, KvView kv) {
  const int64_t group = config_.num_heads / config_.num_kv_heads;
  const int64_t width = config_.q_dim() + 2 * config_.kv_dim();
  attention_.clear();
  for (int64_t t = 0; t < static_cast<int64_t>(tokens_.size());) {
    const SequenceChunk& chunk = chunks[tokens_[t].chunk];
    AttentionArgs args;
    args.group = group;
    args.q_stride = width;
    args.out_stride = config_.q_dim();
    args.context = tokens_[t].position + 1;
    args.block_table = chunk.block_table.data();
    args.kv = kv;
    args.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    // Tokens that share a pass over keys and values.
    const int64_t left =
        chunk.first_position + static_cast<int64_t>(chunk.tokens.size()) - tokens_[t].position;
    args.tokens = std::clamp<int64_t>(kMaxScores / (group * args.context), 1,
                                      std::min(left, std::max<int64_t>(kMaxQueries / group, 1)));
    if (config_.sliding_window > 0 && args.context + args.tokens > config_.sliding_window) {
      args.tokens = 1;
      args.first = std::max<int64_t>(0, args.context - config_.sliding_window);
    }
    for (args.kv_head = 0; args.kv_head < config_.num_kv_heads; ++args.kv_head) {
      args.q = &qkv_[t * width + args.kv_head * group * config_.head_dim];
      args.out = &attended_[t * config_.q_dim() + args.kv_head * group * config_.head_dim];
      attention_.push_back(args);
    }
    t += args.tokens;
  }
  std::atomic<size_t> next{0};
  pool_->Run([&](int thread) {
    AlignedVector<float>& scratch = attention_scratch_[thread];
    for (size_t i; (i = next.fetch_add(1)) < attention_.size();) {
      AttentionArgs& args = attention_[i];
      const auto floats = static_cast<size_t>(args.ScratchFloats());
      if (scratch.size() < floats) scratch.resize(floats);
      args.scratch = scratch.data();
      kernels_->attention(args);
    }
  });
}

void TransformerModel::FfnBlock(const LayerWeights& w, int32_t layer,
                                absl::Span<const SequenceChunk> chunks, FfnMode mode,
                                Prediction prediction, FfnStepStats* stats) {
  const int64_t total = static_cast<int64_t>(tokens_.size());
  const int64_t n = config_.hidden_size;
  FfnLayerStats& layer_stats = stats->layers[layer];
  const float* const x = BlockInput(w.ffn_norm, w.ffn_norm_bias);
  for (int64_t first = 0; first < total; first += Ffn::kMaxTokens) {
    const int64_t count = std::min(Ffn::kMaxTokens, total - first);
    float* const y = &block_out_[first * n];
    const absl::Span<int64_t> active = absl::MakeSpan(active_).subspan(first, count);
    const Ffn::Result result =
        prediction == Prediction::kOff
            ? ffn_.Run(w, x + first * n, count, mode, y, active)
            : ffn_.RunPredicted(w, x + first * n, count, prediction == Prediction::kAudit,
                                &predictors_[layer], y, active);
    stats->negative_gates += result.negative;
    layer_stats.groups += 1;
    layer_stats.union_active += result.union_active;
    layer_stats.dispatched[static_cast<int>(result.decision.path)]
                          [static_cast<int>(result.decision.reason)] += 1;
    layer_stats.prediction += result.prediction;
    stats->weight_bytes_read += result.weight_bytes;
    stats->weight_bytes_skipped += std::max<int64_t>(w.ffn_bytes() - result.weight_bytes, 0);
  }
  AddBlock(w.ffn_norm, w.ffn_norm_bias);
  for (int64_t t = 0; t < total; ++t) {
    const int32_t chunk = tokens_[t].chunk;
    stats->active_by_chunk[chunk] += active_[t];
    layer_stats.active[static_cast<int>(chunks[chunk].phase)] += active_[t];
  }
}

absl::Span<const float> TransformerModel::Logits(absl::Span<const SequenceChunk> chunks) {
  const int64_t n = config_.hidden_size;
  // The wanted rows move to the front of normed_.
  int64_t rows = 0;
  int64_t end = 0;
  for (const SequenceChunk& chunk : chunks) {
    end += static_cast<int64_t>(chunk.tokens.size());
    std::memcpy(normed_.data() + rows * n, hidden_.data() + (end - chunk.logits) * n,
                chunk.logits * n * sizeof(float));
    rows += chunk.logits;
  }
  if (config_.final_norm) {
    Normalize(normed_.data(), rows, weights_.final_norm, weights_.final_norm_bias, normed_.data());
  }
  if (config_.logits_scale != 1.0f) {
    for (int64_t i = 0; i < rows * n; ++i) normed_[i] *= config_.logits_scale;
  }
  logits_.resize(rows * config_.vocab_size);
  if (rows == 0) return logits_;
  const float* x = normed_.data();
  if (!weights_.project_out.empty()) {
    projected_.resize(rows * config_.embedding_size());
    Linear(x, rows, weights_.project_out, {}, projected_.data());
    x = projected_.data();
  }
  Linear(x, rows, weights_.lm_head, {}, logits_.data());
  return logits_;
}

}  // namespace lacuna
