#ifndef LACUNA_RUNTIME_ENGINE_SEQUENCE_H_
#define LACUNA_RUNTIME_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/engine/block_allocator.h"
#include "runtime/engine/output_text.h"
#include "runtime/engine/request.h"
#include "runtime/engine/sampler.h"
#include "runtime/engine/scheduler.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

struct Sequence;

// A request in flight and its choices. Owned by the Engine.
struct ActiveRequest {
  ActiveRequest(RequestId id, GenerationRequest spec, const Tokenizer* tokenizer);
  ~ActiveRequest();

  const RequestId id;
  const GenerationRequest spec;
  bool scheduled = false;                          // any choice has been in a batch
  std::vector<TokenInfo> prompt_infos;             // so far, if they were asked for
  std::vector<std::unique_ptr<Sequence>> choices;  // [spec.n]
  int32_t open_choices;                            // that have not finished
  absl::Status status;                             // for OnDone, once it has ended
};

// One choice: a sequence of tokens, the part of it that the KV cache holds, and its output so far.
// After a preemption the cached part is gone; everything else goes on from where it was.
struct Sequence {
  enum class State : uint8_t {
    kHeld,     // waits for choice 0 to compute the prompt, to find it in the prefix cache
    kWaiting,  // in Engine's waiting queue
    kRunning,  // in the batch
    kFinished,
  };

  Sequence(ActiveRequest* request, int32_t index, const Tokenizer* tokenizer);

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  int32_t prompt_length() const { return static_cast<int32_t>(request->spec.prompt.size()); }
  int32_t generated() const { return length() - prompt_length(); }
  int32_t uncomputed() const { return length() - computed; }
  bool decoding() const { return generated() > 0 && uncomputed() == 1; }
  // This choice reports the log-probabilities of the prompt, and has not got them all.
  bool collects_prompt_infos() const;
  // The position whose logits give the next one of these: that of the token before.
  int32_t next_prompt_logits() const {
    return static_cast<int32_t>(request->prompt_infos.size()) - 1;
  }
  // Tokens that may come from the prefix cache: those whose logits are needed may not.
  int32_t max_cached_tokens() const;
  // Tokens that a chunk after `cached` computed ones may have: all, unless the log-probabilities of
  // the prompt need logits of more than `*prompt_rows` of them (or than one). Subtracts those rows.
  int32_t ChunkLimit(int32_t cached, int32_t* prompt_rows) const;
  // How many of the next `chunk_tokens` tokens, the last ones, need logits.
  int32_t wanted_logits(int32_t chunk_tokens) const;
  ChoiceResult Result(FinishReason reason, const ModelConfig& config, absl::Time now) const;

  ActiveRequest* const request;
  const int32_t index;  // choice
  State state = State::kHeld;

  std::vector<int32_t> tokens;  // prompt, then generated
  int32_t computed = 0;         // tokens whose keys and values are in `blocks`
  std::vector<int32_t> blocks;  // one reference each
  int32_t registered = 0;       // full blocks that the allocator knows by content
  ContentId content = 0;        // of the last of these

  Sampler sampler;
  OutputText text;
  TokenDelta pending;  // tokens that stream_interval holds back

  int32_t cached_tokens = 0;  // of the prompt, when first scheduled
  int32_t matched_stop_token = -1;
  absl::Time scheduled = absl::InfiniteFuture();  // first
  absl::Time first_token = absl::InfiniteFuture();
  absl::Time last_token = absl::InfiniteFuture();
  int64_t ffn_tokens = 0;  // computed tokens, recomputed ones again
  int64_t ffn_active = 0;  // their active (token, neuron) pairs over all layers
};

// Higher priority first, then in order of arrival.
struct SchedulingOrder {
  bool operator()(const Sequence* a, const Sequence* b) const;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_SEQUENCE_H_
