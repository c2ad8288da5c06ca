#include "tests/fakes/fake_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/fakes/fake_tokenizer.h"

namespace lacuna {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t Extend(uint64_t hash, int32_t token) {
  return Mix(hash + 0x9E3779B97F4A7C15 + static_cast<uint64_t>(token));
}

// 24 bits, which a float holds exactly.
float Check(uint64_t hash) { return static_cast<float>(hash >> 40); }

void RandomLogits(absl::Span<const int32_t> history, absl::Span<float> logits) {
  uint64_t hash = 0;
  for (const int32_t token : history) hash = Extend(hash, token);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = 4 * static_cast<float>(Mix(hash + i) >> 40) * 0x1p-24f;
  }
  const auto favour = [&logits](int32_t id) {
    if (static_cast<size_t>(id) < logits.size()) logits[id] += 3;
  };
  for (char c = 'a'; c <= 'z'; ++c) favour(FakeTokenizer::Byte(c));
  favour(FakeTokenizer::Byte(' '));
  favour(FakeTokenizer::kEos);
}

}  // namespace

FakeModel::FakeModel(int32_t vocab_size, int32_t max_context) : logits_after(RandomLogits) {
  config_.architecture = "FakeForCausalLM";
  config_.vocab_size = vocab_size;
  config_.hidden_size = 2;
  config_.ffn_size = kFfnSize;
  config_.num_layers = 1;
  config_.num_heads = 1;
  config_.num_kv_heads = 1;
  config_.head_dim = 2;
  config_.max_context = max_context;
  config_.activation.kind = ActivationKind::kRelu;
  config_.bos_id = FakeTokenizer::kBos;
  config_.eos_ids = {FakeTokenizer::kEos};
  facts_.weights = "f32";
  facts_.device = "cpu";
  facts_.isa = "generic";
  facts_.threads = 1;
}

absl::StatusOr<ForwardOutput> FakeModel::Forward(absl::Span<const SequenceChunk> chunks,
                                                 FfnMode mode, KvCache* cache) {
  if (on_forward) {
    if (absl::Status status = on_forward(chunks, mode); !status.ok()) return status;
  }
  const KvView kv = cache->layer(0);
  size_t rows = 0;
  for (const SequenceChunk& chunk : chunks) {
    const size_t wanted = chunk.logits;
    if (chunk.tokens.empty() || wanted > chunk.tokens.size()) {
      return absl::InternalError(absl::StrCat("a chunk of ", chunk.tokens.size(), " tokens wants ",
                                              wanted, " rows of logits"));
    }
    rows += wanted;
  }
  logits_.assign(rows * config_.vocab_size, 0.0f);
  ForwardOutput output;
  output.ffn.neurons = kFfnSize;
  FfnLayerStats& layer = output.ffn.layers.emplace_back();

  float* row = logits_.data();
  for (const SequenceChunk& chunk : chunks) {
    std::vector<int32_t> history;
    uint64_t hash = 0;
    const int32_t end = chunk.first_position + static_cast<int32_t>(chunk.tokens.size());
    for (int32_t p = 0; p < end; ++p) {
      const int32_t block = chunk.block_table[p / KvCache::kBlockSize];
      const int64_t offset = kv.Offset(block, 0, p % KvCache::kBlockSize);
      auto* const key = reinterpret_cast<float*>(kv.keys + offset);      // token, position
      auto* const value = reinterpret_cast<float*>(kv.values + offset);  // hash, unused
      if (p < chunk.first_position) {
        hash = Extend(hash, static_cast<int32_t>(key[0]));
        if (key[1] != static_cast<float>(p) || value[0] != Check(hash)) {
          return absl::InternalError(absl::StrCat("block ", block, " does not hold position ", p,
                                                  ": it holds token ", key[0], " of position ",
                                                  key[1]));
        }
      } else {
        key[0] = static_cast<float>(chunk.tokens[p - chunk.first_position]);
        key[1] = static_cast<float>(p);
        hash = Extend(hash, static_cast<int32_t>(key[0]));
        value[0] = Check(hash);
      }
      history.push_back(static_cast<int32_t>(key[0]));
      if (p >= end - chunk.logits) {
        logits_after(history, absl::MakeSpan(row, config_.vocab_size));
        row += config_.vocab_size;
      }
    }
    const int64_t tokens = static_cast<int64_t>(chunk.tokens.size());
    const int64_t active = tokens * kFfnSize / 8;
    output.ffn.tokens[static_cast<size_t>(chunk.phase)] += tokens;
    output.ffn.active_by_chunk.push_back(active);
    layer.active[static_cast<size_t>(chunk.phase)] += active;
  }
  const FfnPath path = mode == FfnMode::kDense ? FfnPath::kDense : FfnPath::kSparse;
  const FfnReason reason = mode == FfnMode::kAuto ? FfnReason::kCost : FfnReason::kForced;
  layer.union_active = kFfnSize / 4;
  layer.groups = 1;
  layer.dispatched[static_cast<size_t>(path)][static_cast<size_t>(reason)] = 1;
  output.ffn.weight_bytes_read = kFfnSize * 4;
  output.ffn.weight_bytes_skipped = path == FfnPath::kSparse ? kFfnSize * 4 : 0;
  output.logits = logits_;
  return output;
}

void SayAfter(FakeModel* model, int32_t prompt_tokens, std::vector<int32_t> script) {
  model->logits_after = [prompt_tokens, script = std::move(script)](
                            absl::Span<const int32_t> history, absl::Span<float> logits) {
    const size_t said =
        std::max<size_t>(history.size(), prompt_tokens) - static_cast<size_t>(prompt_tokens);
    logits[script[std::min(said, script.size() - 1)]] = 10;
  };
}

}  // namespace lacuna
