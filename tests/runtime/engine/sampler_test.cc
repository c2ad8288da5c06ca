#include "runtime/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/engine/philox.h"

namespace lacuna {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class SamplerTest : public testing::Test {
 protected:
  // The first token that a new sampler draws.
  int32_t Next(const std::vector<float>& logits, const std::vector<int32_t>& prompt = {},
               const std::vector<int32_t>& banned = {}) {
    Sampler sampler(params_, 0, -1, prompt);
    return sampler.Sample(logits, banned, &scratch_).value().token_id;
  }

  // Counts of `draws` independent first tokens.
  std::map<int32_t, int> Histogram(const std::vector<float>& logits, int draws) {
    std::map<int32_t, int> counts;
    for (int i = 0; i < draws; ++i) {
      params_.seed = 1000 + i;
      ++counts[Next(logits)];
    }
    return counts;
  }

  std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
    std::vector<double> p;
    double sum = 0;
    for (const float l : logits) sum += p.emplace_back(std::exp(l / temperature));
    for (double& x : p) x /= sum;
    return p;
  }

  // Chi-squared distance of the counts from `p`, over the tokens with p > 0; others must not occur.
  double ChiSquared(const std::map<int32_t, int>& counts, const std::vector<double>& p, int draws) {
    double chi = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const auto it = counts.find(static_cast<int32_t>(i));
      const double seen = it == counts.end() ? 0 : it->second;
      if (p[i] == 0) {
        EXPECT_EQ(seen, 0) << "token " << i;
      } else {
        chi += (seen - p[i] * draws) * (seen - p[i] * draws) / (p[i] * draws);
      }
    }
    return chi;
  }

  SamplingParams params_;
  SamplerScratch scratch_;
};

TEST_F(SamplerTest, PhiloxMatchesThePublishedVectors) {
  using Four = std::array<uint32_t, 4>;
  // Random123 1.14, tests/kat_vectors, philox4x32 10.
  EXPECT_EQ(Philox4x32({0, 0}, {0, 0, 0, 0}),
            (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}),
            (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST_F(SamplerTest, GreedyTakesTheLowerIdOfATie) {
  params_.temperature = 0;
  EXPECT_EQ(Next({1, 5, 2, 5}), 1);
  EXPECT_EQ(Next({-3, -1, -2}), 1);
  EXPECT_EQ(Next({-kInf, -kInf, -7}), 2);
}

TEST_F(SamplerTest, TopKTakesTheLowerIdsOfATie) {
  params_.top_k = 2;
  for (const auto& [token, count] : Histogram({1, 1, 1, 1}, 100)) EXPECT_LT(token, 2);
}

// With 6 or fewer degrees of freedom, chi-squared exceeds 22.5 once in a thousand; seeds are fixed.
constexpr double kChiLimit = 22.5;
constexpr int kDraws = 20000;

TEST_F(SamplerTest, DrawsFromTheSoftmax) {
  const std::vector<float> logits = {0.5, 2, -1, 1, 0, 1.5, -kInf};
  std::vector<double> p = Softmax(logits, 1);
  EXPECT_LT(ChiSquared(Histogram(logits, kDraws), p, kDraws), kChiLimit);
  // The test is able to fail.
  std::swap(p[0], p[1]);
  EXPECT_GT(ChiSquared(Histogram(logits, kDraws), p, kDraws), 100 * kChiLimit);
}

TEST_F(SamplerTest, TemperatureDividesTheLogits) {
  const std::vector<float> logits = {0.5, 2, -1, 1};
  for (const float t : {0.3f, 2.0f}) {
    params_.temperature = t;
    EXPECT_LT(ChiSquared(Histogram(logits, kDraws), Softmax(logits, t), kDraws), kChiLimit);
  }
  for (const float t : {1e-30f, 1e-39f}) {  // the inverse of the second one is infinite
    params_.temperature = t;
    for (const float top_p : {1.0f, 0.9f}) {
      params_.top_p = top_p;
      EXPECT_EQ(Histogram(logits, 50), (std::map<int32_t, int>{{1, 50}})) << t << ", " << top_p;
    }
  }
}

TEST_F(SamplerTest, TopKKeepsTheBestAndRenormalises) {
  params_.top_k = 3;
  const std::vector<float> logits = {0.5, 2, -1, 1, 0, 1.5};
  std::vector<double> p = Softmax({-kInf, 2, -kInf, 1, -kInf, 1.5}, 1);
  EXPECT_LT(ChiSquared(Histogram(logits, kDraws), p, kDraws), kChiLimit);
}

TEST_F(SamplerTest, ATopKThatKeepsEveryTokenIsNone) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(500);
  for (float& logit : logits) logit = normal(random);
  for (params_.seed = 0; params_.seed < 200; ++params_.seed) {
    params_.top_k = 0;
    const int32_t token = Next(logits);
    for (params_.top_k = 500; params_.top_k <= 501; ++params_.top_k) {
      ASSERT_EQ(Next(logits), token) << params_.top_k << " with seed " << params_.seed;
    }
  }
}

TEST_F(SamplerTest, TopPKeepsTheSmallestSetThatReachesIt) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.3f),
                                     std::log(0.2f)};
  params_.top_p = 0.65f;
  EXPECT_LT(ChiSquared(Histogram(logits, kDraws), {0, 4.0 / 7, 3.0 / 7, 0}, kDraws), kChiLimit);
  params_.top_p = 0.75f;
  EXPECT_LT(ChiSquared(Histogram(logits, kDraws), {0, 4.0 / 9, 3.0 / 9, 2.0 / 9}, kDraws),
            kChiLimit);
  params_.top_p = 1e-6f;  // the best one always stays
  EXPECT_EQ(Histogram(logits, 50), (std::map<int32_t, int>{{1, 50}}));
}

TEST_F(SamplerTest, TopPIsOfWhatTopKLeft) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.3f),
                                     std::log(0.2f)};
  params_.top_k = 2;      // 4/7, 3/7
  params_.top_p = 0.56f;  // 0.56 < 4/7: one token; of all tokens it would be two
  EXPECT_EQ(Histogram(logits, 50), (std::map<int32_t, int>{{1, 50}}));
}

TEST_F(SamplerTest, MinPIsRelativeToTheMostProbable) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.3f),
                                     std::log(0.2f)};
  params_.min_p = 0.6f;  // 0.24
  EXPECT_LT(ChiSquared(Histogram(logits, kDraws), {0, 4.0 / 7, 3.0 / 7, 0}, kDraws), kChiLimit);
  params_.min_p = 1.0f;
  EXPECT_EQ(Histogram(logits, 50), (std::map<int32_t, int>{{1, 50}}));
}

TEST_F(SamplerTest, TruncationReachesFarIntoALargeVocabulary) {
  // 5000 equal tokens: top_p 0.5 must keep exactly the 2500 of lowest id.
  const std::vector<float> logits(5000, 1.0f);
  params_.top_p = 0.5f;
  int32_t max = 0;
  for (const auto& [token, count] : Histogram(logits, 300)) max = std::max(max, token);
  EXPECT_LT(max, 2500);
  EXPECT_GT(max, 2400);
}

TEST_F(SamplerTest, BiasIsAddedAndBansExclude) {
  params_.temperature = 0;
  params_.logit_bias = {{2, 100.0f}, {1, -100.0f}};
  EXPECT_EQ(Next({0, 5, 0, 0}), 2);
  EXPECT_EQ(Next({0, 5, 0, 1}, {}, {2}), 3);
}

TEST_F(SamplerTest, RepetitionPenaltyCoversPromptAndOutputBySign) {
  params_.temperature = 0;
  params_.repetition_penalty = 2.0f;
  EXPECT_EQ(Next({3, 4, 0}), 1);
  EXPECT_EQ(Next({3, 4, 0}, {1}), 0);        // 4 / 2 < 3
  EXPECT_EQ(Next({-3, -2, -9}, {1}), 0);     // -2 * 2 < -3
  EXPECT_EQ(Next({3, 4, 0}, {1, 1, 0}), 1);  // once, however often it occurs
  Sampler sampler(params_, 0, -1, {});
  EXPECT_EQ(sampler.Sample(std::vector<float>{3, 4, 0}, {}, &scratch_)->token_id, 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{3, 4, 0}, {}, &scratch_)->token_id, 0);
}

TEST_F(SamplerTest, PresenceAndFrequencyPenaltiesCoverTheOutputOnly) {
  params_.temperature = 0;
  params_.presence_penalty = 1.5f;
  EXPECT_EQ(Next({3, 4, 0}, {1}), 1);  // the prompt does not count
  const std::vector<float> logits = {3, 4, 0};
  const auto draw = [&](Sampler* s) { return s->Sample(logits, {}, &scratch_)->token_id; };
  Sampler presence(params_, 0, -1, {});
  std::vector<int32_t> drawn;
  for (int i = 0; i < 4; ++i) drawn.push_back(draw(&presence));
  EXPECT_EQ(drawn, (std::vector<int32_t>{1, 0, 1, 1}));  // 4; 3 > 2.5; 2.5 > 1.5 and stays

  params_.presence_penalty = 0;
  params_.frequency_penalty = 0.75f;
  Sampler frequency(params_, 0, -1, {});
  drawn.clear();
  for (int i = 0; i < 6; ++i) drawn.push_back(draw(&frequency));
  // 1: 4, 3.25, 2.5, 2.5, 1.75, 1.75; 0: 3, 3, 3, 2.25, 2.25, 1.5.
  EXPECT_EQ(drawn, (std::vector<int32_t>{1, 1, 0, 1, 0, 1}));
}

TEST_F(SamplerTest, SameSeedSameTokensOtherSeedOrChoiceOthers) {
  const std::vector<float> logits(100, 0.0f);
  const auto draw = [&](uint64_t seed, int32_t choice) {
    params_.seed = seed;
    Sampler sampler(params_, choice, -1, {});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) {
      tokens.push_back(sampler.Sample(logits, {}, &scratch_)->token_id);
    }
    return tokens;
  };
  EXPECT_EQ(draw(7, 0), draw(7, 0));
  EXPECT_NE(draw(7, 0), draw(8, 0));
  EXPECT_NE(draw(7, 0), draw(7, 1));
  EXPECT_NE(draw(7, 0), draw(7 + (uint64_t{1} << 32), 0));
  const std::vector<int32_t> tokens = draw(7, 0);
  EXPECT_NE(tokens, std::vector<int32_t>(20, tokens[0]));
}

TEST_F(SamplerTest, BadLogitsAreAnErrorOfTheRequest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float temperature : {0.0f, 1.0f}) {
    params_.temperature = temperature;
    Sampler sampler(params_, 0, -1, {});
    for (const std::vector<float>& logits :
         {std::vector<float>{0, nan, 1}, {0, kInf, 1}, {-kInf, -kInf, -kInf}}) {
      EXPECT_EQ(sampler.Sample(logits, {}, &scratch_).status().code(), absl::StatusCode::kInternal);
    }
    EXPECT_EQ(sampler.Sample(std::vector<float>{0, -kInf}, {0}, &scratch_).status().code(),
              absl::StatusCode::kInternal);
    EXPECT_TRUE(sampler.Sample(std::vector<float>{0, -kInf}, {}, &scratch_).ok());
  }
}

TEST_F(SamplerTest, ExtremePenaltiesStayFinite) {
  params_.repetition_penalty = 1e-38f;
  EXPECT_EQ(Next({1e30f, 0, 0}, {0}), 0);
}

TEST_F(SamplerTest, LogprobsAreOfTheModelsOwnDistribution) {
  params_.temperature = 0;
  params_.logit_bias = {{3, 100.0f}};
  const std::vector<float> logits = {0.5, 2, -1, 1, 2, 1.5};
  Sampler sampler(params_, 0, 3, {});
  const TokenInfo info = sampler.Sample(logits, {}, &scratch_).value();
  const std::vector<double> p = Softmax(logits, 1);
  EXPECT_EQ(info.token_id, 3);
  EXPECT_FLOAT_EQ(info.logprob, std::log(p[3]));
  ASSERT_EQ(info.top.size(), 3u);
  EXPECT_EQ(info.top[0].token_id, 1);  // ties by lower id
  EXPECT_EQ(info.top[1].token_id, 4);
  EXPECT_EQ(info.top[2].token_id, 5);
  EXPECT_FLOAT_EQ(info.top[2].logprob, std::log(p[5]));
}

TEST_F(SamplerTest, LogprobsStayExactFarFromZero) {
  const std::vector<float> logits = {10000, 9999, -10000};
  const TokenInfo info = DescribeToken(logits, 1, 2, &scratch_).value();
  EXPECT_FLOAT_EQ(info.logprob, -1 - std::log1p(std::exp(-1)));
  EXPECT_FLOAT_EQ(info.top[0].logprob, -std::log1p(std::exp(-1)));
  // `top` larger than the vocabulary gives all of it.
  EXPECT_EQ(DescribeToken(logits, 1, 20, &scratch_)->top.size(), 3u);
}

// Every combination of limits equals a plain full sort.
TEST_F(SamplerTest, EqualsAFullSortOnRandomLogits) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 3);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(1 + random() % 2000);
    for (float& l : logits) l = std::round(normal(random) * 8) / 8;  // with ties
    params_.temperature = 0.25f * (1 + random() % 8);
    params_.top_k = random() % 3 ? static_cast<int32_t>(random() % 700) : 0;
    params_.top_p = random() % 3 ? (1 + random() % 100) / 100.0f : 1.0f;
    params_.min_p = random() % 3 ? 0.0f : (random() % 100) / 1000.0f;
    params_.seed = random();

    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    const bool top_k = params_.top_k > 0 && ids.size() > static_cast<size_t>(params_.top_k);
    const bool truncated = top_k || params_.top_p < 1 || params_.min_p > 0;
    if (truncated) {
      std::stable_sort(ids.begin(), ids.end(),
                       [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    }
    const double max = *std::max_element(logits.begin(), logits.end());
    if (top_k) ids.resize(params_.top_k);
    double total = 0, mass = 0;
    const auto weight = [&](int32_t id) {
      return std::exp((logits[id] - max) / params_.temperature);
    };
    for (const int32_t id : ids) total += weight(id);
    std::vector<int32_t> kept;
    for (const int32_t id : ids) {
      if (weight(id) < params_.min_p) continue;
      if (params_.top_p < 1 && mass >= params_.top_p * total) break;
      mass += weight(id);
      kept.push_back(id);
    }
    const double target = PhiloxUniform(params_.seed, 0, 0) * mass;
    double sum = 0;
    int32_t expected = kept.back();
    for (const int32_t id : kept) {
      sum += weight(id);
      if (sum > target) {
        expected = id;
        break;
      }
    }
    EXPECT_EQ(Next(logits), expected) << "round " << round;
  }
}

}  // namespace
}  // namespace lacuna
