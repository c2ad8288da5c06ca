#include "bench/bench_model.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

namespace lacuna {
namespace {

// Tokens of one prefill step, the server's default for --max_step_tokens.
constexpr int kPrefillChunk = 512;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

BenchModel::BenchModel(Model* model, std::vector<int32_t> prompt, const BenchShape& shape)
    : model_(model), prompt_(std::move(prompt)), shape_(shape), block_tables_(shape.batch) {}

absl::Status BenchModel::Prepare() {
  const int32_t blocks = KvCache::BlocksFor(shape_.prompt_tokens + shape_.generate_tokens);
  absl::StatusOr<std::unique_ptr<KvCache>> cache = model_->CreateKvCache(blocks * shape_.batch);
  if (!cache.ok()) return cache.status();
  cache_ = *std::move(cache);
  for (int s = 0; s < shape_.batch; ++s) {
    for (int32_t b = 0; b < blocks; ++b) block_tables_[s].push_back(s * blocks + b);
  }
  return absl::OkStatus();
}

absl::StatusOr<BenchRun> BenchModel::Run(FfnMode mode, uint64_t seed) {
  const int32_t vocab = model_->config().vocab_size;
  std::mt19937_64 random(seed);
  const auto random_id = [&] { return static_cast<int32_t>(random() % vocab); };
  BenchRun run;

  std::vector<int32_t> next(shape_.batch);
  auto start = std::chrono::steady_clock::now();
  for (int s = 0; s < shape_.batch; ++s) {
    std::vector<int32_t> prompt(shape_.prompt_tokens);
    for (size_t i = 0; i < prompt.size(); ++i) {
      prompt[i] = prompt_.empty() ? random_id() : prompt_[(i + s * 31) % prompt_.size()];
    }
    for (int first = 0; first < shape_.prompt_tokens; first += kPrefillChunk) {
      SequenceChunk chunk;
      chunk.tokens = absl::MakeConstSpan(prompt).subspan(first, kPrefillChunk);
      chunk.first_position = first;
      chunk.block_table = block_tables_[s];
      chunk.logits = 1;
      absl::StatusOr<ForwardOutput> out = model_->Forward({chunk}, mode, cache_.get());
      if (!out.ok()) return out.status();
      next[s] = static_cast<int32_t>(std::max_element(out->logits.begin(), out->logits.end()) -
                                     out->logits.begin());
    }
  }
  run.prefill_seconds = SecondsSince(start);

  start = std::chrono::steady_clock::now();
  for (int step = 0; step < shape_.generate_tokens; ++step) {
    std::vector<SequenceChunk> chunks(shape_.batch);
    for (int s = 0; s < shape_.batch; ++s) {
      if (prompt_.empty()) next[s] = random_id();
      chunks[s].tokens = absl::MakeConstSpan(&next[s], 1);
      chunks[s].first_position = shape_.prompt_tokens + step;
      chunks[s].block_table = block_tables_[s];
      chunks[s].logits = 1;
      chunks[s].phase = Phase::kDecode;
    }
    absl::StatusOr<ForwardOutput> out = model_->Forward(chunks, mode, cache_.get());
    if (!out.ok()) return out.status();
    for (int s = 0; s < shape_.batch; ++s) {
      const auto row = out->logits.subspan(static_cast<size_t>(s) * vocab, vocab);
      next[s] = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    }
    run.decode_times.ffn += out->times.ffn;
    run.decode_times.attention += out->times.attention;
    run.decode_times.other += out->times.other;
    run.ffn_bytes += out->ffn.weight_bytes_read;
    run.audits += out->ffn.audits;
    run.audit_mismatches += out->ffn.audit_mismatches;
    for (const FfnLayerStats& layer : out->ffn.layers) {
      run.active += layer.active[static_cast<int>(Phase::kDecode)];
      run.union_active += layer.union_active;
      run.groups += layer.groups;
      run.prediction += layer.prediction;
    }
    run.tokens += shape_.batch;
    run.decode_steps += 1;
  }
  run.decode_seconds = SecondsSince(start);
  return run;
}

}  // namespace lacuna
