#include "runtime/model/cuda_pass.h"

#include <algorithm>

#include "kernels/cuda/attention.h"

namespace lacuna {
namespace {

// Each array begins at a multiple of 16 bytes, as kernels want it.
int64_t Aligned(int64_t n) { return (n + 3) / 4 * 4; }

}  // namespace

CudaPassInputs CudaPassInputs::At(int32_t* base, int64_t max_tokens) {
  CudaPassInputs inputs;
  const auto take = [&](int64_t n) {
    int32_t* const at = base;
    base += Aligned(n);
    return at;
  };
  inputs.ids = take(max_tokens);
  inputs.positions = take(max_tokens);
  inputs.sequences = take(max_tokens);
  inputs.logit_tokens = take(max_tokens);
  inputs.tile_begins = take(max_tokens + 1);
  inputs.block_tables = base;
  return inputs;
}

int64_t CudaPassInputs::Size(int64_t max_tokens, int64_t sequences, int64_t table_stride) {
  return 4 * Aligned(max_tokens) + Aligned(max_tokens + 1) + sequences * table_stride;
}

int BucketIndex(int64_t tokens) {
  int index = 0;
  while ((int64_t{1} << index) < tokens) ++index;
  return index;
}

std::vector<std::vector<CudaPassPart>> CutIntoPasses(absl::Span<const SequenceChunk> chunks,
                                                     int64_t max_tokens) {
  std::vector<std::vector<CudaPassPart>> passes;
  int64_t room = 0;
  for (size_t c = 0; c < chunks.size(); ++c) {
    const auto total = static_cast<int64_t>(chunks[c].tokens.size());
    for (int64_t done = 0; done < total;) {
      if (room == 0) {
        passes.emplace_back();
        room = max_tokens;
      }
      const int64_t count = std::min(room, total - done);
      CudaPassPart part{chunks[c], static_cast<int32_t>(c)};
      part.chunk.tokens = chunks[c].tokens.subspan(done, count);
      part.chunk.first_position = chunks[c].first_position + static_cast<int32_t>(done);
      const int64_t without = total - chunks[c].logits;  // the first tokens, which want none
      part.chunk.logits =
          static_cast<int32_t>(done + count - std::clamp(without, done, done + count));
      passes.back().push_back(part);
      done += count;
      room -= count;
    }
  }
  return passes;
}

CudaPass PlanPass(absl::Span<const CudaPassPart> parts, int64_t table_stride,
                  const CudaPassInputs& inputs) {
  CudaPass pass;
  int64_t begins = 0;  // written to tile_begins
  for (const CudaPassPart& part : parts) {
    const SequenceChunk& chunk = part.chunk;
    const auto count = static_cast<int64_t>(chunk.tokens.size());
    const int64_t sequence = pass.sequences++;
    const bool alone = count == 1;
    if (pass.runs.empty() || alone != (pass.runs.back().tiles == 0)) {
      pass.runs.push_back({.first_token = pass.tokens, .first_tile = begins});
    }
    CudaAttentionRun& run = pass.runs.back();
    run.tokens += count;
    if (!alone) {
      for (int64_t t = 0; t < count; t += kTileTokens) {
        inputs.tile_begins[run.first_tile + run.tiles++] = static_cast<int32_t>(pass.tokens + t);
      }
      begins = run.first_tile + run.tiles;
      inputs.tile_begins[begins++] = static_cast<int32_t>(pass.tokens + count);
    }
    const auto blocks = std::min(static_cast<int64_t>(chunk.block_table.size()), table_stride);
    std::copy_n(chunk.block_table.begin(), blocks, inputs.block_tables + sequence * table_stride);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t at = pass.tokens + t;
      inputs.ids[at] = chunk.tokens[t];
      inputs.positions[at] = chunk.first_position + static_cast<int32_t>(t);
      inputs.sequences[at] = static_cast<int32_t>(sequence);
      if (count - t <= chunk.logits) {
        inputs.logit_tokens[pass.logit_rows++] = static_cast<int32_t>(at);
      }
    }
    pass.tokens += count;
  }
  pass.repeatable = pass.runs.size() == 1 && pass.runs[0].tiles == 0 && pass.tokens <= kMaxBucket;
  if (pass.repeatable) {
    const int64_t bucket = int64_t{1} << BucketIndex(pass.tokens);
    for (int64_t t = pass.tokens; t < bucket; ++t) {
      inputs.ids[t] = 0;
      inputs.positions[t] = -1;
      inputs.sequences[t] = 0;
    }
    for (int64_t r = pass.logit_rows; r < bucket; ++r) inputs.logit_tokens[r] = 0;
    pass.tokens = pass.logit_rows = pass.runs[0].tokens = bucket;
  }
  return pass;
}

}  // namespace lacuna
