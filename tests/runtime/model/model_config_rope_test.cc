// Scaled rotations in config.json.

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

TEST(ModelConfig, RefusesRopeScalingThatItCannotRun) {
  const auto error = [](const json& scaling) {
    return Parse(With({{"rope_scaling", scaling}})).status();
  };
  for (const char* const type : {"yarn", "longrope", "su", "mrope"}) {
    EXPECT_TRUE(IsError(error({{"type", type}, {"factor", 2.0}}), kUnimplemented,
                        absl::StrCat("config.json, rope_scaling, asks for rope_type \"", type,
                                     "\"; this build runs linear, dynamic and llama3")));
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
