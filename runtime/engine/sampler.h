#ifndef LACUNA_RUNTIME_ENGINE_SAMPLER_H_
#define LACUNA_RUNTIME_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/engine/request.h"

namespace lacuna {

// Memory that samplers of one thread share, so that no step allocates.
struct SamplerScratch {
  std::vector<float> logits;
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

// Draws the tokens of one choice, one after the other. A token depends on the logits, the
// parameters, the prompt and the tokens drawn before, never on other sequences or on time.
//
// Order of the steps: repetition penalty, presence and frequency penalty, bias, bans; then the
// most probable token (temperature 0), or temperature, top_k, top_p of what top_k left, min_p
// relative to the most probable token. Ties go to the lower id. One sequence, one thread.
class Sampler {
 public:
  // `logprobs` as in GenerationRequest. The repetition penalty also covers `prompt`.
  Sampler(const SamplingParams& params, int32_t choice, int32_t logprobs,
          absl::Span<const int32_t> prompt);

  // Draws the next token from `logits` [vocabulary] and counts it. Tokens of `banned` are not
  // drawn. INTERNAL if a logit is NaN or +inf, or if no token has a finite logit.
  absl::StatusOr<TokenInfo> Sample(absl::Span<const float> logits, absl::Span<const int32_t> banned,
                                   SamplerScratch* scratch);

 private:
  struct Seen {
    bool in_prompt = false;
    int32_t generated = 0;
  };

  // Copies `logits` to `adjusted` with penalties, bias and bans.
  void Adjust(absl::Span<const float> logits, absl::Span<const int32_t> banned,
              std::vector<float>* adjusted) const;
  // Index of the token that inverse-transform sampling at `uniform` finds; `max` is the largest.
  int32_t Draw(absl::Span<const float> logits, float max, double uniform,
               SamplerScratch* scratch) const;

  const SamplingParams params_;
  const int32_t choice_;
  const int32_t logprobs_;
  const bool penalized_;                     // any penalty is in force
  uint32_t drawn_ = 0;                       // tokens so far
  absl::flat_hash_map<int32_t, Seen> seen_;  // if penalized_
};

// `token` with its log-probability, and the `top` most probable tokens with theirs, under
// softmax(logits), computed in double. INTERNAL as Sampler::Sample.
absl::StatusOr<TokenInfo> DescribeToken(absl::Span<const float> logits, int32_t token, int32_t top,
                                        SamplerScratch* scratch);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_SAMPLER_H_
