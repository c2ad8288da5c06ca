// Scaled rotations in config.json.

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "runtime/model/model_config.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/model_config_json.h"

namespace lacuna {
namespace {

using nlohmann::json;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

// Both spellings: before and since transformers 4.43; and the key of transformers 5.
TEST(ModelConfig, ReadsRopeScaling) {
  for (const char* const spelling : {"type", "rope_type"}) {
    for (const char* const key : {"rope_scaling", "rope_parameters"}) {
      const auto parse = [&](json scaling, const char* type) {
        scaling[spelling] = type;
        return Parse(With({{key, scaling}}));
      };
      const auto linear = parse({{"factor", 4.0}}, "linear");
      ASSERT_TRUE(linear.ok()) << linear.status();
      EXPECT_EQ(linear->rope_scaling.kind, RopeScalingKind::kLinear);
      EXPECT_EQ(linear->rope_scaling.factor, 4.0f);
      EXPECT_EQ(linear->max_context, 4 * 2048) << "the file has the context before scaling";
      const auto dynamic = parse({{"factor", 2}}, "dynamic");
      ASSERT_TRUE(dynamic.ok()) << dynamic.status();
      EXPECT_EQ(dynamic->rope_scaling.kind, RopeScalingKind::kDynamic);
      EXPECT_EQ(dynamic->rope_scaling.trained_context, 2048);
      EXPECT_EQ(dynamic->max_context, 2 * 2048);
      const auto llama3 = parse({{"factor", 8.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 512}},
                                "llama3");
      ASSERT_TRUE(llama3.ok()) << llama3.status();
      EXPECT_EQ(llama3->rope_scaling.kind, RopeScalingKind::kLlama3);
      EXPECT_EQ(llama3->rope_scaling.trained_context, 512);
      EXPECT_EQ(llama3->max_context, 2048) << "the file has the context after scaling";
    }
  }
}

TEST(ModelConfig, ReadsYarn) {
  const auto parse = [](json scaling, int32_t max_positions = 2048) {
    scaling["rope_type"] = "yarn";
    return Parse(With({{"rope_scaling", scaling}, {"max_position_embeddings", max_positions}}));
  };
  const auto plain = parse({{"factor", 4.0}});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->rope_scaling.kind, RopeScalingKind::kYarn);
  EXPECT_EQ(plain->rope_scaling.trained_context, 2048);
  EXPECT_EQ(plain->rope_scaling.beta_fast, 32.0f);
  EXPECT_EQ(plain->rope_scaling.beta_slow, 1.0f);
  EXPECT_TRUE(plain->rope_scaling.truncate);
  EXPECT_FLOAT_EQ(plain->rope_scaling.attention_factor, 0.1f * std::log(4.0f) + 1.0f);
  EXPECT_EQ(plain->max_context, 4 * 2048);
  // max_position_embeddings may be the context before scaling, or the one after it.
  for (const int32_t max_positions : {2048, 8192}) {
    const json scaling = {{"factor", 4.0}, {"original_max_position_embeddings", 2048}};
    EXPECT_EQ(parse(scaling, max_positions)->max_context, 8192);
    EXPECT_EQ(parse(scaling, max_positions)->rope_scaling.trained_context, 2048);
  }
  const auto attention = [&](const json& scaling) {
    json keys = scaling;
    keys["factor"] = 4.0;
    return parse(keys)->rope_scaling.attention_factor;
  };
  EXPECT_EQ(attention({{"attention_factor", 1.5}, {"mscale", 2}, {"mscale_all_dim", 1}}), 1.5f);
  EXPECT_EQ(attention({{"mscale", 0.707}, {"mscale_all_dim", 0.707}}), 1.0f);
  EXPECT_FLOAT_EQ(attention({{"mscale", 2}, {"mscale_all_dim", 1}}),
                  (0.2f * std::log(4.0f) + 1.0f) / (0.1f * std::log(4.0f) + 1.0f));
  EXPECT_EQ(attention({{"mscale", 2}}), attention(json::object()))
      << "one alone counts for nothing";
  EXPECT_EQ(parse({{"factor", 1.0}})->rope_scaling.attention_factor, 1.0f);
  EXPECT_TRUE(IsError(parse({{"factor", 4.0}, {"beta_fast", -1}}).status(), kInvalid,
                      "rope_scaling, has beta_fast = -1"));
  EXPECT_TRUE(IsError(parse({{"factor", 4.0}, {"attention_factor", "1"}}).status(), kInvalid,
                      "attention_factor"));
  EXPECT_TRUE(IsError(
      Parse(With({{"rope_theta", 1}, {"rope_scaling", {{"type", "yarn"}, {"factor", 2.0}}}}))
          .status(),
      kInvalid, "has rope_theta = 1, with which yarn has no frequencies"));
}

TEST(ModelConfig, RefusesRopeScalingThatItCannotRun) {
  const auto error = [](const json& scaling) {
    return Parse(With({{"rope_scaling", scaling}})).status();
  };
  for (const char* const type : {"longrope", "su", "mrope"}) {
    EXPECT_TRUE(IsError(error({{"type", type}, {"factor", 2.0}}), kUnimplemented,
                        absl::StrCat("config.json, rope_scaling, asks for rope_type \"", type,
                                     "\"; this build runs linear, dynamic, llama3 and yarn")));
  }
  EXPECT_TRUE(IsError(error({{"type", "linear"}}), kInvalid, "rope_scaling, has no factor"));
  EXPECT_TRUE(IsError(error({{"type", "linear"}, {"factor", 0.5}}), kInvalid, "factor = 0.5"));
  EXPECT_TRUE(IsError(error({{"type", "dynamic"}, {"factor", "2"}}), kInvalid, "factor = \"2\""));
  EXPECT_TRUE(IsError(error({{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}}),
                      kInvalid, "has no high_freq_factor"));
  EXPECT_TRUE(IsError(error({{"rope_type", "llama3"},
                             {"factor", 8.0},
                             {"low_freq_factor", 4.0},
                             {"high_freq_factor", 4.0}}),
                      kInvalid, "high_freq_factor = 4, which is not above low_freq_factor = 4"));
}

}  // namespace
}  // namespace lacuna
