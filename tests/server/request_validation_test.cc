#include "server/request_validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "proto/status.h"

namespace lacuna {
namespace {

constexpr RequestLimits kLimits = {/*context=*/64, /*vocab_size=*/100, /*default_max_tokens=*/32,
                                   /*max_prompt_bytes=*/1000};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

v1::GenerateRequest GoodRequest() {
  v1::GenerateRequest request;
  request.set_text("hello");
  return request;
}

using Change = std::function<void(v1::GenerateRequest*)>;

struct Rule {
  const char* name;
  const char* field;
  Change breaks;  // makes a good request bad
  Change keeps;   // goes to the edge of what is allowed
};

void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.name; }

class RuleTest : public testing::TestWithParam<Rule> {};

TEST_P(RuleTest, RefusesWithTheFieldAndAllowsTheEdge) {
  v1::GenerateRequest bad = GoodRequest();
  GetParam().breaks(&bad);
  const auto refused = ValidateGenerate(bad, kLimits, 1);
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  const auto violations = FieldViolations(refused.status());
  ASSERT_EQ(violations.size(), 1u) << refused.status();
  EXPECT_EQ(violations[0].field, GetParam().field);
  EXPECT_FALSE(violations[0].description.empty());

  v1::GenerateRequest good = GoodRequest();
  GetParam().keeps(&good);
  EXPECT_TRUE(ValidateGenerate(good, kLimits, 1).ok());
}

using R = v1::GenerateRequest;

void AddMessages(R* request, int count, const std::string& role, const std::string& content) {
  for (int i = 0; i < count; ++i) {
    v1::ChatMessage* message = request->mutable_messages()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }
}

// A float field: below, above, NaN and infinities; then both edges.
#define FLOAT_RULES(field, low, high, below, above)                            \
  Rule{#field "_below", "sampling." #field,                                    \
       [](R* r) { r->mutable_sampling()->set_##field(below); },                \
       [](R* r) { r->mutable_sampling()->set_##field(low); }},                 \
      Rule{#field "_above", "sampling." #field,                                \
           [](R* r) { r->mutable_sampling()->set_##field(above); },            \
           [](R* r) { r->mutable_sampling()->set_##field(high); }},            \
      Rule{#field "_nan", "sampling." #field,                                  \
           [](R* r) { r->mutable_sampling()->set_##field(kNan); }, [](R*) {}}, \
      Rule{#field "_inf", "sampling." #field,                                  \
           [](R* r) { r->mutable_sampling()->set_##field(kInf); }, [](R*) {}}, \
      Rule {                                                                   \
#field "_minus_inf", "sampling." #field,                                   \
        [](R * r) { r->mutable_sampling()->set_##field(-kInf); }, [](R*) {}    \
  }

const Rule kRules[] = {
    {"prompt_missing", "prompt", [](R* r) { r->clear_text(); }, [](R*) {}},
    {"messages_empty", "prompt.messages", [](R* r) { r->mutable_messages(); },
     [](R* r) { AddMessages(r, 1, "user", ""); }},
    {"messages_too_many", "prompt.messages", [](R* r) { AddMessages(r, 4097, "user", ""); },
     [](R* r) { AddMessages(r, 4096, "assistant", ""); }},
    {"messages_role", "prompt.messages[0].role", [](R* r) { AddMessages(r, 1, "tool", "x"); },
     [](R* r) { AddMessages(r, 1, "system", "x"); }},
    {"messages_bytes", "prompt.messages",
     [](R* r) { AddMessages(r, 2, "user", std::string(501, 'a')); },
     [](R* r) { AddMessages(r, 2, "user", std::string(500, 'a')); }},
    {"prompt_empty", "prompt", [](R* r) { r->set_text(""); }, [](R* r) { r->set_text("a"); }},
    {"prompt_bytes", "prompt", [](R* r) { r->set_text(std::string(1001, 'a')); },
     [](R* r) { r->set_text(std::string(1000, 'a')); }},
    {"token_ids_empty", "prompt", [](R* r) { r->mutable_token_ids(); },
     [](R* r) { r->mutable_token_ids()->add_ids(0); }},
    {"token_ids_too_many", "prompt",
     [](R* r) { r->mutable_token_ids()->mutable_ids()->Resize(64, 1); },
     [](R* r) { r->mutable_token_ids()->mutable_ids()->Resize(63, 1); }},
    {"token_id_range", "prompt.token_ids", [](R* r) { r->mutable_token_ids()->add_ids(100); },
     [](R* r) { r->mutable_token_ids()->add_ids(99); }},
    {"token_id_huge", "prompt.token_ids",
     [](R* r) { r->mutable_token_ids()->add_ids(0xffffffffu); }, [](R*) {}},

    FLOAT_RULES(temperature, 0.0f, 2.0f, -0.01f, 2.01f),
    FLOAT_RULES(top_p, 1e-6f, 1.0f, 0.0f, 1.01f),
    FLOAT_RULES(min_p, 0.0f, 1.0f, -0.01f, 1.01f),
    FLOAT_RULES(presence_penalty, -2.0f, 2.0f, -2.01f, 2.01f),
    FLOAT_RULES(frequency_penalty, -2.0f, 2.0f, -2.01f, 2.01f),
    FLOAT_RULES(repetition_penalty, 0.01f, 10.0f, 0.0f, 10.01f),

    {"n_zero", "sampling.n", [](R* r) { r->mutable_sampling()->set_n(0); },
     [](R* r) { r->mutable_sampling()->set_n(1); }},
    {"n_large", "sampling.n", [](R* r) { r->mutable_sampling()->set_n(17); },
     [](R* r) { r->mutable_sampling()->set_n(16); }},
    {"bias_id", "sampling.logit_bias",
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[100] = 1; },
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[99] = 1; }},
    {"bias_above", "sampling.logit_bias",
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = 100.5f; },
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = 100; }},
    {"bias_below", "sampling.logit_bias",
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = -100.5f; },
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = -100; }},
    {"bias_nan", "sampling.logit_bias",
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = kNan; }, [](R*) {}},
    {"bias_inf", "sampling.logit_bias",
     [](R* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = -kInf; }, [](R*) {}},

    {"max_tokens_zero", "stopping.max_tokens",
     [](R* r) { r->mutable_stopping()->set_max_tokens(0); },
     [](R* r) { r->mutable_stopping()->set_max_tokens(0xffffffffu); }},
    {"min_above_max", "stopping.min_tokens",
     [](R* r) {
       r->mutable_stopping()->set_max_tokens(4);
       r->mutable_stopping()->set_min_tokens(5);
     },
     [](R* r) {
       r->mutable_stopping()->set_max_tokens(4);
       r->mutable_stopping()->set_min_tokens(4);
     }},
    {"min_above_default_max", "stopping.min_tokens",
     [](R* r) { r->mutable_stopping()->set_min_tokens(33); },
     [](R* r) { r->mutable_stopping()->set_min_tokens(32); }},
    {"stop_count", "stopping.stop",
     [](R* r) {
       for (int i = 0; i < 17; ++i) r->mutable_stopping()->add_stop("x");
     },
     [](R* r) {
       for (int i = 0; i < 16; ++i) r->mutable_stopping()->add_stop("x");
     }},
    {"stop_empty", "stopping.stop", [](R* r) { r->mutable_stopping()->add_stop(""); },
     [](R* r) { r->mutable_stopping()->add_stop("x"); }},
    {"stop_long", "stopping.stop",
     [](R* r) { r->mutable_stopping()->add_stop(std::string(257, 'x')); },
     [](R* r) { r->mutable_stopping()->add_stop(std::string(256, 'x')); }},
    {"stop_token_range", "stopping.stop_token_ids",
     [](R* r) { r->mutable_stopping()->add_stop_token_ids(100); },
     [](R* r) { r->mutable_stopping()->add_stop_token_ids(99); }},
    {"stop_token_count", "stopping.stop_token_ids",
     [](R* r) { r->mutable_stopping()->mutable_stop_token_ids()->Resize(65, 1); },
     [](R* r) { r->mutable_stopping()->mutable_stop_token_ids()->Resize(64, 1); }},
    {"time_limit", "stopping.time_limit_ms",
     [](R* r) { r->mutable_stopping()->set_time_limit_ms(0); },
     [](R* r) { r->mutable_stopping()->set_time_limit_ms(1); }},

    {"logprobs", "output.logprobs", [](R* r) { r->mutable_output()->set_logprobs(21); },
     [](R* r) { r->mutable_output()->set_logprobs(20); }},
    {"prompt_logprobs", "output.prompt_logprobs",
     [](R* r) { r->mutable_output()->set_prompt_logprobs(6); },
     [](R* r) { r->mutable_output()->set_prompt_logprobs(5); }},
    {"stream_interval_zero", "output.stream_interval",
     [](R* r) { r->mutable_output()->set_stream_interval(0); },
     [](R* r) { r->mutable_output()->set_stream_interval(1); }},
    {"stream_interval_large", "output.stream_interval",
     [](R* r) { r->mutable_output()->set_stream_interval(1025); },
     [](R* r) { r->mutable_output()->set_stream_interval(1024); }},

    {"priority_above", "priority", [](R* r) { r->set_priority(11); },
     [](R* r) { r->set_priority(10); }},
    {"priority_below", "priority", [](R* r) { r->set_priority(-11); },
     [](R* r) { r->set_priority(-10); }},
    {"priority_lowest", "priority",
     [](R* r) { r->set_priority(std::numeric_limits<int32_t>::min()); }, [](R*) {}},
    {"tenant", "tenant", [](R* r) { r->set_tenant(std::string(129, 't')); },
     [](R* r) { r->set_tenant(std::string(128, 't')); }},
    {"queue_timeout", "queue_timeout_ms", [](R* r) { r->set_queue_timeout_ms(0); },
     [](R* r) { r->set_queue_timeout_ms(1); }},
    {"sparsity_mode", "sparsity.mode",
     [](R* r) { r->mutable_sparsity()->set_mode(static_cast<v1::SparsityParams::Mode>(9)); },
     [](R* r) { r->mutable_sparsity()->set_mode(v1::SparsityParams::SPARSE); }},
};

INSTANTIATE_TEST_SUITE_P(Api, RuleTest, testing::ValuesIn(kRules),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RequestValidationTest, ListsEveryFieldAtFault) {
  v1::GenerateRequest request;
  request.mutable_sampling()->set_temperature(-1);
  request.mutable_stopping()->set_max_tokens(0);
  request.mutable_output()->set_logprobs(99);
  const auto refused = ValidateGenerate(request, kLimits, 1);
  EXPECT_EQ(FieldViolations(refused.status()).size(), 4u) << refused.status();

  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_n(99);
  sampling.set_top_p(-1);
  sampling.set_min_p(-1);
  sampling.set_presence_penalty(-9);
  sampling.set_frequency_penalty(-9);
  sampling.set_repetition_penalty(-9);
  request.mutable_stopping()->set_min_tokens(9);
  request.mutable_stopping()->set_time_limit_ms(0);
  request.mutable_output()->set_prompt_logprobs(99);
  request.mutable_output()->set_stream_interval(0);
  request.mutable_sparsity()->set_mode(static_cast<v1::SparsityParams::Mode>(99));
  request.set_priority(99);
  request.set_queue_timeout_ms(0);
  EXPECT_EQ(FieldViolations(ValidateGenerate(request, kLimits, 1).status()).size(), 17u);
}

TEST(RequestValidationTest, TooManyBiasesAreRefused) {
  RequestLimits limits = kLimits;
  limits.vocab_size = 2000;
  v1::GenerateRequest request = GoodRequest();
  for (int i = 0; i < 1024; ++i) (*request.mutable_sampling()->mutable_logit_bias())[i] = 1;
  EXPECT_TRUE(ValidateGenerate(request, limits, 1).ok());
  (*request.mutable_sampling()->mutable_logit_bias())[1024] = 1;
  const auto refused = ValidateGenerate(request, limits, 1);
  EXPECT_EQ(FieldViolations(refused.status())[0].field, "sampling.logit_bias");
}

TEST(RequestValidationTest, OversizedFieldsAreRefusedBeforeTheOthersAreLookedAt) {
  v1::GenerateRequest request = GoodRequest();
  request.mutable_sampling()->set_temperature(-1);
  for (int i = 0; i < 1025; ++i) (*request.mutable_sampling()->mutable_logit_bias())[i] = kNan;
  request.mutable_stopping()->mutable_stop_token_ids()->Resize(65, 1000);
  for (int i = 0; i < 17; ++i) request.mutable_stopping()->add_stop("");
  const auto violations = FieldViolations(ValidateGenerate(request, kLimits, 1).status());
  ASSERT_EQ(violations.size(), 3u);
  EXPECT_EQ(violations[0].field, "sampling.logit_bias");
  EXPECT_EQ(violations[1].field, "stopping.stop");
  EXPECT_EQ(violations[2].field, "stopping.stop_token_ids");
}

TEST(RequestValidationTest, EffectiveValuesAreTheDefaults) {
  const auto validated = ValidateGenerate(GoodRequest(), kLimits, /*seed=*/42);
  ASSERT_TRUE(validated.ok());
  const v1::EffectiveParams& effective = validated->effective;
  EXPECT_EQ(effective.sampling().temperature(), 1.0f);
  EXPECT_EQ(effective.sampling().top_p(), 1.0f);
  EXPECT_TRUE(effective.sampling().has_top_k());
  EXPECT_EQ(effective.sampling().repetition_penalty(), 1.0f);
  EXPECT_EQ(effective.sampling().seed(), 42u);
  EXPECT_EQ(effective.sampling().n(), 1u);
  EXPECT_EQ(effective.stopping().max_tokens(), 32u);
  EXPECT_TRUE(effective.stopping().has_ignore_eos());
  EXPECT_FALSE(effective.output().has_logprobs());
  EXPECT_EQ(effective.output().stream_interval(), 1u);
  EXPECT_EQ(effective.sparsity().mode(), v1::SparsityParams::AUTO);
  EXPECT_EQ(validated->request.logprobs, -1);
  EXPECT_EQ(validated->prompt_text, "hello");
}

TEST(RequestValidationTest, DeltasWithManyLogprobsAreShort) {
  v1::GenerateRequest in = GoodRequest();
  in.mutable_output()->set_stream_interval(1024);
  const auto interval = [&](uint32_t logprobs) {
    in.mutable_output()->set_logprobs(logprobs);
    const auto validated = ValidateGenerate(in, kLimits, /*seed=*/1);
    return validated.ok() ? validated->effective.output().stream_interval() : 0;
  };
  EXPECT_EQ(interval(0), 1024u);
  EXPECT_EQ(interval(1), 1024u);
  EXPECT_EQ(interval(20), 97u);
  EXPECT_EQ(interval(0xFFFFFFFF), 0u);  // refused
}

TEST(RequestValidationTest, ValuesReachTheEngineRequest) {
  v1::GenerateRequest in = GoodRequest();
  in.mutable_sampling()->set_temperature(0.5f);
  in.mutable_sampling()->set_top_k(7);
  in.mutable_sampling()->set_seed(9);
  in.mutable_sampling()->set_n(3);
  (*in.mutable_sampling()->mutable_logit_bias())[5] = -2;
  in.mutable_stopping()->add_stop("END");
  in.mutable_stopping()->set_time_limit_ms(1500);
  in.mutable_output()->set_logprobs(0);
  in.set_priority(-3);
  in.set_tenant("t");
  in.set_queue_timeout_ms(250);
  in.mutable_sparsity()->set_mode(v1::SparsityParams::DENSE);
  const auto validated = ValidateGenerate(in, kLimits, 1);
  ASSERT_TRUE(validated.ok());
  const GenerationRequest& out = validated->request;
  EXPECT_EQ(out.sampling.temperature, 0.5f);
  EXPECT_EQ(out.sampling.top_k, 7);
  EXPECT_EQ(out.sampling.seed, 9u);
  EXPECT_EQ(out.n, 3);
  EXPECT_THAT(out.sampling.logit_bias, testing::ElementsAre(testing::Pair(5, -2.0f)));
  EXPECT_THAT(out.stopping.stop_strings, testing::ElementsAre("END"));
  EXPECT_EQ(out.stopping.time_limit, absl::Milliseconds(1500));
  EXPECT_EQ(out.logprobs, 0);
  EXPECT_EQ(out.priority, -3);
  EXPECT_EQ(out.tenant, "t");
  EXPECT_EQ(validated->queue_timeout, absl::Milliseconds(250));
  EXPECT_EQ(out.ffn_mode, FfnMode::kDense);
}

TEST(RequestValidationTest, AnswersMustFitAMessage) {
  v1::EffectiveParams effective;
  effective.mutable_sampling()->set_n(16);
  effective.mutable_stopping()->set_max_tokens(1000);
  EXPECT_TRUE(CheckAnswerFits(100000, false, effective).ok());
  effective.mutable_output()->set_logprobs(20);
  EXPECT_TRUE(CheckAnswerFits(100000, true, effective).ok());  // in many messages
  const absl::Status unary = CheckAnswerFits(100000, false, effective);
  EXPECT_EQ(FieldViolations(unary)[0].field, "output.logprobs");
  effective.mutable_sampling()->set_n(1);
  EXPECT_TRUE(CheckAnswerFits(100000, false, effective).ok());
  effective.mutable_output()->set_prompt_logprobs(5);
  const absl::Status prompt = CheckAnswerFits(100000, true, effective);
  EXPECT_EQ(FieldViolations(prompt)[0].field, "output.prompt_logprobs");
  EXPECT_TRUE(CheckAnswerFits(10000, true, effective).ok());
  // Neither is too much by itself, but both are in one message.
  effective.mutable_stopping()->set_max_tokens(8000);
  effective.mutable_output()->clear_prompt_logprobs();
  EXPECT_TRUE(CheckAnswerFits(25000, false, effective).ok());
  effective.mutable_output()->set_prompt_logprobs(5);
  EXPECT_TRUE(CheckAnswerFits(25000, true, effective).ok());
  EXPECT_FALSE(CheckAnswerFits(25000, false, effective).ok());
  // Text alone.
  effective.clear_output();
  effective.mutable_stopping()->set_max_tokens(130000);
  EXPECT_TRUE(CheckAnswerFits(10, false, effective).ok());
  effective.mutable_sampling()->set_n(16);
  EXPECT_EQ(FieldViolations(CheckAnswerFits(10, false, effective))[0].field, "stopping.max_tokens");
  EXPECT_TRUE(CheckAnswerFits(10, true, effective).ok());
  effective.mutable_stopping()->set_max_tokens(60000);
  EXPECT_TRUE(CheckAnswerFits(10, false, effective).ok());
  effective.mutable_output()->set_return_token_ids(true);
  EXPECT_FALSE(CheckAnswerFits(10, false, effective).ok());
}

TEST(RequestValidationTest, MaxTokensIsBoundedByTheContextAndPromptMustFit) {
  v1::EffectiveParams effective;
  effective.mutable_stopping()->set_max_tokens(1000);
  ASSERT_TRUE(BoundByContext(63, kLimits, &effective).ok());
  EXPECT_EQ(effective.stopping().max_tokens(), 1u);
  const absl::Status refused = BoundByContext(64, kLimits, &effective);
  EXPECT_EQ(FieldViolations(refused)[0].field, "prompt");
  EXPECT_EQ(refused.message(), "prompt: has 64 tokens, the limit is 63");
}

TEST(RequestValidationTest, RequestIdMustFitMetadata) {
  EXPECT_TRUE(CheckRequestId("request_id", std::string(128, 'a')).ok());
  EXPECT_FALSE(CheckRequestId("request_id", std::string(129, 'a')).ok());
  EXPECT_FALSE(CheckRequestId("request_id", "a\nb").ok());
  EXPECT_FALSE(CheckRequestId("request_id", "\xc3\xa9").ok());
}

}  // namespace
}  // namespace lacuna
