#include "runtime/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/engine/philox.h"

namespace lacuna {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Of loops that run over a whole vocabulary, in forms that compilers make vectors of.
constexpr size_t kLanes = 16;

// The largest logit. INTERNAL if there is none that is finite, or if one is NaN or +inf.
absl::StatusOr<float> MaxLogit(absl::Span<const float> logits) {
  constexpr float kMax = std::numeric_limits<float>::max();
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kLowest);
  int32_t bad[kLanes] = {};
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float logit = logits[i + lane];
      lanes[lane] = logit > lanes[lane] ? logit : lanes[lane];
      bad[lane] |= logit <= kMax ? 0 : 1;
    }
  }
  for (size_t i = whole; i < logits.size(); ++i) {
    lanes[0] = std::max(lanes[0], logits[i]);
    bad[0] |= logits[i] <= kMax ? 0 : 1;
  }
  if (std::any_of(bad, bad + kLanes, [](int32_t b) { return b != 0; })) {
    const auto is_bad = [](float logit) { return !(logit <= kMax); };
    const auto it = std::find_if(logits.begin(), logits.end(), is_bad);
    return absl::InternalError(absl::StrCat("logit of token ", it - logits.begin(), " is ", *it));
  }
  const float max = *std::max_element(lanes, lanes + kLanes);
  if (max == kLowest) {
    return absl::InternalError(absl::StrCat("none of the ", logits.size(), " logits is finite"));
  }
  return max;
}

// out[i] = e^((logits[i] - max) / temperature), and 0 below 2^-126; max is the largest logit. In
// float32: within 4e-7 of the result for exponents above -4, 4e-7 times a quarter of the exponent
// below.
void Exponentiate(absl::Span<const float> logits, float max, float temperature,
                  std::vector<float>* out) {
  out->resize(logits.size());
  const float* const in = logits.data();
  float* const weights = out->data();
  // To powers of 2. Infinite, it would make the best token's 0 a NaN.
  const float scale = std::min(1.44269504f / temperature, std::numeric_limits<float>::max());
  const size_t n = logits.size();
  for (size_t i = 0; i < n; ++i) {
    const float x = (in[i] - max) * scale;
    const float clamped = x > -126.0f ? x : -126.0f;
    const int32_t whole = static_cast<int32_t>(clamped - 0.5f);  // to nearest, of what is negative
    const float f = clamped - static_cast<float>(whole);
    // Taylor series of 2^f for |f| <= 1/2: the first term left out is below 6e-8.
    float power = 1.54035304e-4f;
    power = power * f + 1.33335581e-3f;
    power = power * f + 9.61812911e-3f;
    power = power * f + 5.55041087e-2f;
    power = power * f + 2.40226507e-1f;
    power = power * f + 6.93147181e-1f;
    power = power * f + 1.0f;
    const int32_t bits = (whole + 127) << 23;
    float two_to_whole;
    std::memcpy(&two_to_whole, &bits, sizeof(bits));
    weights[i] = x > -126.0f ? power * two_to_whole : 0.0f;
  }
}

double Sum(const float* values, size_t n) {
  double lanes[kLanes] = {};
  const size_t whole = n / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  for (size_t i = whole; i < n; ++i) lanes[0] += values[i];
  return std::accumulate(lanes, lanes + kLanes, 0.0);
}

// The first index at which the sum of the values exceeds `target`, or the last with a value, should
// rounding leave the sum at the target.
int32_t FindInSums(absl::Span<const float> values, double target) {
  constexpr size_t kBlock = 256;
  double sum = 0;
  size_t begin = 0;
  while (begin + kBlock < values.size()) {
    const double next = sum + Sum(&values[begin], kBlock);
    if (next > target) break;
    sum = next;
    begin += kBlock;
  }
  for (size_t i = begin; i < values.size(); ++i) {
    sum += values[i];
    if (values[i] > 0 && sum > target) return static_cast<int32_t>(i);
  }
  size_t last = values.size() - 1;
  while (last > 0 && values[last] == 0) --last;
  return static_cast<int32_t>(last);
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

int32_t Sampler::Draw(absl::Span<const float> logits, float max, double uniform,
                      SamplerScratch* scratch) const {
  std::vector<float>& weights = scratch->weights;  // by id, 1 for the best
  const bool top_k = params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size();
  const bool top_p = params_.top_p < 1.0f;
  if (!top_k) Exponentiate(logits, max, params_.temperature, &weights);
  if (!top_k && !top_p && params_.min_p <= 0.0f) {
    return FindInSums(weights, uniform * Sum(weights.data(), weights.size()));
  }

  std::vector<int32_t>& ids = scratch->ids;  // candidates
  const auto better = Better(logits);
  ids.resize(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  double mass;
  if (top_k) {
    std::nth_element(ids.begin(), ids.begin() + params_.top_k, ids.end(), better);
    ids.resize(params_.top_k);
    mass = 0;
    weights.resize(logits.size());
    for (const int32_t id : ids) {
      weights[id] = std::exp((logits[id] - max) / params_.temperature);
      mass += weights[id];
    }
  } else {
    mass = Sum(weights.data(), weights.size());
  }
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
  absl::Span<const float> adjusted = logits;
  absl::StatusOr<float> max = model_max;
  if (!seen_.empty() || !params_.logit_bias.empty() || !banned.empty()) {
    Adjust(logits, banned, &scratch->logits);
    adjusted = scratch->logits;
    max = MaxLogit(adjusted);
    if (!max.ok()) return max.status();
  }
  int32_t token;
  if (params_.temperature == 0.0f) {
    token =
        static_cast<int32_t>(std::find(adjusted.begin(), adjusted.end(), *max) - adjusted.begin());
  } else {
    token = Draw(adjusted, *max,
                 PhiloxUniform(params_.seed, static_cast<uint32_t>(choice_), drawn_), scratch);
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
