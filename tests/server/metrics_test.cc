#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <sstream>

#include "runtime/model/model.h"
#include "server/model_metrics.h"
#include "server/traffic_metrics.h"

namespace lacuna {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Scrape(const Metrics& metrics) {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, metrics.registry()->Collect());
  return text.str();
}

ModelConfig TwoLayers() {
  ModelConfig config;
  config.num_layers = 2;
  return config;
}

TEST(ModelMetricsTest, AStepIsCountedByLayerAndPhase) {
  Metrics metrics(/*vllm_aliases=*/true);
  ModelMetrics model(&metrics, "m", TwoLayers(), /*has_predictor=*/false, 10);
  FfnStepStats ffn;
  ffn.neurons = 100;
  ffn.tokens = {3, 1};
  ffn.layers.resize(2);
  ffn.layers[0].active = {30, 10};
  ffn.layers[1].active = {60, 20};
  for (auto& layer : ffn.layers) {
    layer.groups = 1;
    layer.union_active = 25;
    layer.dispatched[1][2] = 1;  // sparse, cost
  }
  ffn.weight_bytes_read = 1000;
  ffn.weight_bytes_skipped = 3000;
  StepReport report;
  report.duration = absl::Milliseconds(2);
  report.sequences = 2;
  report.prefill_tokens = 3;
  report.decode_tokens = 1;
  report.ffn = &ffn;
  model.OnStep(report);

  const std::string text = Scrape(metrics);
  EXPECT_THAT(text,
              HasSubstr("lacuna_ffn_neurons_total{layer=\"0\",model=\"m\",phase=\"prefill\"} 300"));
  EXPECT_THAT(
      text,
      HasSubstr("lacuna_ffn_neurons_active_total{layer=\"1\",model=\"m\",phase=\"decode\"} 20"));
  EXPECT_THAT(text, HasSubstr("lacuna_ffn_dispatch_total{layer=\"1\",model=\"m\",path=\"sparse\","
                              "phase=\"mixed\",reason=\"cost\"} 1"));
  EXPECT_THAT(text,
              HasSubstr("lacuna_ffn_weight_bytes_skipped_total{model=\"m\",phase=\"mixed\"} 3000"));
  EXPECT_THAT(text, HasSubstr("lacuna_ffn_batch_union_density_ratio_sum{model=\"m\"} 0.25"));
  EXPECT_THAT(text, HasSubstr("lacuna_step_duration_seconds_count{model=\"m\",phase=\"mixed\"} 1"));
  EXPECT_DOUBLE_EQ(model.MeasuredSparsity(), 1.0 - 120.0 / 800.0);
  EXPECT_THAT(text, Not(HasSubstr("lacuna_predictor_"))) << "there is none";
}

TEST(ModelMetricsTest, AuditsOfAPredictorAreCountedByLayer) {
  Metrics metrics(/*vllm_aliases=*/true);
  ModelMetrics model(&metrics, "m", TwoLayers(), /*has_predictor=*/true, 10);
  FfnStepStats ffn;
  ffn.layers.resize(2);
  ffn.layers[0].prediction = {97, 3, 50};
  ffn.layers[1].prediction = {10, 0, 7};
  ffn.audits = 4;
  ffn.audit_mismatches = 1;
  StepReport report;
  report.decode_tokens = 4;
  report.ffn = &ffn;
  model.OnStep(report);
  const std::string text = Scrape(metrics);
  for (const char* sample : {"true_positive_total{layer=\"0\",model=\"m\"} 97",
                             "false_negative_total{layer=\"0\",model=\"m\"} 3",
                             "false_positive_total{layer=\"1\",model=\"m\"} 7"}) {
    EXPECT_THAT(text, HasSubstr(std::string("lacuna_predictor_") + sample));
  }
  EXPECT_THAT(text, HasSubstr("lacuna_sparse_audit_total{model=\"m\"} 4"));
  EXPECT_THAT(text, HasSubstr("lacuna_sparse_audit_argmax_mismatch_total{model=\"m\"} 1"));
}

// What is logged while a model of one layer of 100 neurons computes 8 steps of 64 tokens.
std::string LogOfSteps(ActivationKind kind, int64_t active, int64_t negative) {
  Metrics metrics(/*vllm_aliases=*/true);
  ModelConfig config;
  config.num_layers = 1;
  config.ffn_size = 100;
  config.activation.kind = kind;
  ModelMetrics model(&metrics, "m", config, /*has_predictor=*/false, 10);
  FfnStepStats ffn;
  ffn.neurons = 100;
  ffn.tokens = {64, 0};
  ffn.layers.resize(1);
  ffn.layers[0].active = {64 * active, 0};
  ffn.negative_gates = 64 * negative;
  StepReport report;
  report.prefill_tokens = 64;
  report.ffn = &ffn;
  testing::internal::CaptureStderr();
  for (int step = 0; step < 8; ++step) model.OnStep(report);
  return testing::internal::GetCapturedStderr();
}

TEST(ModelMetricsTest, AnActivationThatTheFirstTokensContradictIsDoubtedOnce) {
  const std::string relu = LogOfSteps(ActivationKind::kRelu, 71, 0);
  EXPECT_THAT(relu, HasSubstr("\"event\":\"activation_doubtful\",\"model\":\"m\","
                              "\"activation\":\"relu\",\"zeros\":0.29"));
  EXPECT_THAT(relu, HasSubstr("\"tokens\":256"));
  EXPECT_EQ(relu.find('\n'), relu.size() - 1) << "one line";
  EXPECT_THAT(LogOfSteps(ActivationKind::kSilu, 100, 86),
              HasSubstr("probably trained with relu; if its files are wrong, set --activation"));
  EXPECT_EQ(LogOfSteps(ActivationKind::kRelu, 69, 0), "");
  EXPECT_EQ(LogOfSteps(ActivationKind::kSilu, 100, 84), "");
}

TEST(ModelMetricsTest, AliasesFollowTheirOriginalsOrAreAbsent) {
  Metrics metrics(/*vllm_aliases=*/true);
  ModelMetrics model(&metrics, "m", TwoLayers(), /*has_predictor=*/false, 10);
  EngineLoad load;
  load.running = 3;
  load.waiting = 2;
  load.kv_blocks_used = 5;
  load.kv_blocks_total = 10;
  model.OnLoad(load);
  EXPECT_THAT(Scrape(metrics), HasSubstr("lacuna_requests_running{model=\"m\"} 3"));
  EXPECT_THAT(Scrape(metrics), HasSubstr("vllm:num_requests_running{model_name=\"m\"} 3"));
  EXPECT_THAT(Scrape(metrics), HasSubstr("vllm:kv_cache_usage_perc{model_name=\"m\"} 0.5"));
  EXPECT_THAT(Scrape(metrics), HasSubstr("num_gpu_blocks=\"10\""));

  {
    ModelMetrics other(&metrics, "other", TwoLayers(), /*has_predictor=*/false, 20);
    EXPECT_THAT(Scrape(metrics), HasSubstr("num_gpu_blocks=\"20\""));
  }
  // Gauges of a model that was unloaded are gone; its counters are not.
  EXPECT_THAT(Scrape(metrics), Not(HasSubstr("num_gpu_blocks=\"20\"")));
  EXPECT_THAT(Scrape(metrics), Not(HasSubstr("lacuna_requests_running{model=\"other\"")));
  EXPECT_THAT(Scrape(metrics), HasSubstr("lacuna_generation_tokens_total{model=\"other\"} 0"));

  Metrics without(/*vllm_aliases=*/false);
  ModelMetrics quiet(&without, "m", TwoLayers(), /*has_predictor=*/false, 10);
  quiet.OnLoad(load);
  EXPECT_THAT(Scrape(without), Not(HasSubstr("vllm:")));
}

TEST(TrafficTest, NamesThatAreNotConfiguredShareOneLabel) {
  Metrics metrics(/*vllm_aliases=*/false);
  Traffic traffic(&metrics);
  traffic.AddModel("m");
  const std::string before = Scrape(metrics);
  for (int i = 0; i < 1000; ++i) {
    traffic.Get("client-name-" + std::to_string(i))->OnStarted(Method::kGenerate);
  }
  traffic.Get("")->OnStarted(Method::kListModels);
  const std::string after = Scrape(metrics);
  EXPECT_EQ(std::count(before.begin(), before.end(), '\n'),
            std::count(after.begin(), after.end(), '\n'));
  EXPECT_THAT(after, Not(HasSubstr("client-name")));
  EXPECT_THAT(after,
              HasSubstr("requests_started_total{method=\"Generate\",model=\"unknown\"} 1000"));
  EXPECT_THAT(after, HasSubstr("requests_started_total{method=\"ListModels\",model=\"none\"} 1"));
}

TEST(TrafficTest, RefusalsTellLoadingFromDraining) {
  EXPECT_STREQ(RejectReason(absl::StatusCode::kUnavailable, /*model_found=*/false), "loading");
  EXPECT_STREQ(RejectReason(absl::StatusCode::kUnavailable, /*model_found=*/true), "draining");
  Metrics metrics(/*vllm_aliases=*/false);
  Traffic traffic(&metrics);
  EXPECT_THAT(Scrape(metrics),
              HasSubstr("requests_rejected_total{model=\"none\",reason=\"draining\"} 0"));
}

TEST(BucketsTest, LatencyReachesBelowAMillisecondAndAboveAMinute) {
  EXPECT_LT(LatencyBuckets().front(), 0.001);
  EXPECT_GT(LatencyBuckets().back(), 60);
}

}  // namespace
}  // namespace lacuna
