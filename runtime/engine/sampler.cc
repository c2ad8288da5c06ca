#include "runtime/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/engine/philox.h"

namespace lacuna {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The largest logit. INTERNAL if there is none that is finite, or if one is NaN or +inf.
absl::StatusOr<float> MaxLogit(absl::Span<const float> logits) {
  float max = kLowest;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] <= std::numeric_limits<float>::max())) {
      return absl::InternalError(absl::StrCat("logit of token ", i, " is ", logits[i]));
    }
    max = std::max(max, logits[i]);
  }
  if (max == kLowest) {
    return absl::InternalError(absl::StrCat("none of the ", logits.size(), " logits is finite"));
  }
  return max;
}

// Better tokens first: higher logit, then lower id.
auto Better(absl::Span<const float> logits) {
  return [logits](int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
}

}  // namespace

Sampler::Sampler(const SamplingParams& params, int32_t choice, int32_t logprobs,
                 absl::Span<const int32_t> prompt)
    : params_(params),
      choice_(choice),
      logprobs_(logprobs),
      penalized_(params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                 params.frequency_penalty != 0.0f) {
  if (!penalized_) return;
  for (const int32_t token : prompt) seen_[token].in_prompt = true;
}

void Sampler::Adjust(absl::Span<const float> logits, absl::Span<const int32_t> banned,
                     std::vector<float>* adjusted) const {
  adjusted->assign(logits.begin(), logits.end());
  for (const auto& [token, seen] : seen_) {
    if (static_cast<size_t>(token) >= logits.size()) continue;
    float& logit = (*adjusted)[token];
    // Keskar et al., "CTRL", arXiv 1909.05858, section 4.1, with the sign rule of Hugging Face's
    // RepetitionPenaltyLogitsProcessor.
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    if (seen.generated > 0) {
      logit -= params_.presence_penalty;
      logit -= params_.frequency_penalty * static_cast<float>(seen.generated);
    }
    logit = std::min(logit, std::numeric_limits<float>::max());
  }
  for (const auto& [token, bias] : params_.logit_bias) (*adjusted)[token] += bias;
  for (const int32_t token : banned) (*adjusted)[token] = kLowest;
}

int32_t Sampler::Draw(float max, double uniform, SamplerScratch* scratch) const {
  const std::vector<float>& logits = scratch->logits;
  std::vector<int32_t>& ids = scratch->ids;         // candidates
  std::vector<double>& weights = scratch->weights;  // by id, 1 for the best; of candidates only
  const auto better = Better(logits);
  ids.resize(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < ids.size()) {
    std::nth_element(ids.begin(), ids.begin() + params_.top_k, ids.end(), better);
    ids.resize(params_.top_k);
  }
  weights.resize(logits.size());
  double mass = 0;
  for (const int32_t id : ids) {
    weights[id] = std::exp((static_cast<double>(logits[id]) - max) / params_.temperature);
    mass += weights[id];
  }

  if (params_.top_k > 0 || params_.top_p < 1.0f || params_.min_p > 0.0f) {
    const bool top_p = params_.top_p < 1.0f;
    const double enough = top_p ? params_.top_p * mass : std::numeric_limits<double>::infinity();
    // All tokens lighter than (1 - top_p) * mass / ids.size() together weigh less than what top_p
    // leaves out, so none of them is needed. The half keeps rounding away from the border.
    const double light = top_p ? 0.5 * (mass - enough) / static_cast<double>(ids.size()) : 0.0;
    const double lightest = std::max<double>(params_.min_p, light);
    ids.erase(
        std::remove_if(ids.begin(), ids.end(), [&](int32_t id) { return weights[id] < lightest; }),
        ids.end());
    // Sorts only as far as top_p reaches.
    mass = 0;
    size_t kept = 0;
    for (size_t sorted = 0; kept < ids.size() && mass < enough;) {
      if (kept == sorted) {
        const size_t end = std::min(ids.size(), std::max<size_t>(64, 4 * sorted));
        if (end < ids.size()) {
          std::nth_element(ids.begin() + sorted, ids.begin() + end, ids.end(), better);
        }
        std::sort(ids.begin() + sorted, ids.begin() + end, better);
        sorted = end;
      }
      mass += weights[ids[kept++]];
    }
    ids.resize(kept);
  }

  const double target = uniform * mass;
  double sum = 0;
  int32_t drawn = ids.front();
  for (const int32_t id : ids) {
    if (weights[id] == 0) continue;
    drawn = id;  // the last one with weight, should rounding leave `sum` at the target
    sum += weights[id];
    if (sum > target) break;
  }
  return drawn;
}

absl::StatusOr<TokenInfo> Sampler::Sample(absl::Span<const float> logits,
                                          absl::Span<const int32_t> banned,
                                          SamplerScratch* scratch) {
  const absl::StatusOr<float> model_max = MaxLogit(logits);
  if (!model_max.ok()) return model_max.status();
  Adjust(logits, banned, &scratch->logits);
  const absl::StatusOr<float> max = MaxLogit(scratch->logits);
  if (!max.ok()) return max.status();
  int32_t token;
  if (params_.temperature == 0.0f) {
    const std::vector<float>& adjusted = scratch->logits;
    token =
        static_cast<int32_t>(std::find(adjusted.begin(), adjusted.end(), *max) - adjusted.begin());
  } else {
    token =
        Draw(*max, PhiloxUniform(params_.seed, static_cast<uint32_t>(choice_), drawn_), scratch);
  }
  ++drawn_;
  if (penalized_) ++seen_[token].generated;
  if (logprobs_ >= 0) return DescribeToken(logits, token, logprobs_, scratch);
  TokenInfo info;
  info.token_id = token;
  return info;
}

absl::StatusOr<TokenInfo> DescribeToken(absl::Span<const float> logits, int32_t token, int32_t top,
                                        SamplerScratch* scratch) {
  const absl::StatusOr<float> max = MaxLogit(logits);
  if (!max.ok()) return max.status();
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *max);
  const double log_sum = *max + std::log(sum);

  TokenInfo info;
  info.token_id = token;
  info.logprob = static_cast<float>(logits[token] - log_sum);
  const size_t count = std::min<size_t>(std::max(top, 0), logits.size());
  if (count == 0) return info;
  std::vector<int32_t>& ids = scratch->ids;
  ids.resize(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), Better(logits));
  for (size_t i = 0; i < count; ++i) {
    info.top.push_back({ids[i], static_cast<float>(logits[ids[i]] - log_sum)});
  }
  return info;
}

}  // namespace lacuna
