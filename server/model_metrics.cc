#include "server/model_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model/activation_name.h"
#include "runtime/model/kv_cache.h"
#include "server/logger.h"

namespace lacuna {
namespace {

// The declared activation is judged by the first tokens that are served: prompts and outputs alike.
constexpr int64_t kTokensToJudge = 256;
// Models trained with ReLU have 67 % zeros (ReluLLaMA-7B) to 97 %, random weights 50 %.
constexpr double kFewestZeros = 0.3;
// Of a SiLU model's gates 62 % to 66 % are negative (SmolLM2-135M on a novel and on code); of a
// ProSparse model's as many as it has zeros, 88 % and more. ReluLLaMA lies too low to be told
// apart.
constexpr double kMostNegativeGates = 0.85;

constexpr std::array<const char*, kNumStepPhases> kStepPhaseNames = {"prefill", "decode", "mixed"};
constexpr std::array<const char*, kNumPhases> kPhaseNames = {"prefill", "decode"};

StepPhase PhaseOf(const StepReport& report) {
  if (report.prefill_tokens == 0) return StepPhase::kDecode;
  return report.decode_tokens == 0 ? StepPhase::kPrefill : StepPhase::kMixed;
}

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

}  // namespace

ModelMetrics::ModelMetrics(Metrics* metrics, const std::string& model, const ModelConfig& config,
                           bool has_predictor, int32_t kv_blocks)
    : time_to_first_token_(metrics->time_to_first_token.Add({{"model", model}}, LatencyBuckets())),
      inter_token_latency_(metrics->inter_token_latency.Add({{"model", model}}, LatencyBuckets())),
      time_per_output_token_(
          metrics->time_per_output_token.Add({{"model", model}}, LatencyBuckets())),
      queue_time_(metrics->queue_time.Add({{"model", model}}, LatencyBuckets())),
      prefill_(metrics->prefill.Add({{"model", model}}, LatencyBuckets())),
      decode_(metrics->decode.Add({{"model", model}}, LatencyBuckets())),
      prompt_computed_(metrics->prompt_tokens.Add({{"model", model}, {"source", "computed"}})),
      prompt_cached_(metrics->prompt_tokens.Add({{"model", model}, {"source", "cached"}})),
      generation_tokens_(metrics->generation_tokens.Add({{"model", model}})),
      batch_size_(metrics->batch_size.Add({{"model", model}}, CountBuckets())),
      step_tokens_(metrics->step_tokens.Add({{"model", model}}, CountBuckets())),
      preemptions_(metrics->preemptions.Add({{"model", model}})),
      prefix_queries_(metrics->prefix_cache_queries.Add({{"model", model}})),
      prefix_hits_(metrics->prefix_cache_hits.Add({{"model", model}})),
      running_(metrics->requests_running.Add({{"model", model}})),
      waiting_(metrics->requests_waiting.Add({{"model", model}})),
      queue_capacity_(metrics->queue_capacity.Add({{"model", model}})),
      running_capacity_(metrics->running_capacity.Add({{"model", model}})),
      kv_usage_(metrics->kv_cache_usage.Add({{"model", model}})),
      last_step_(metrics->engine_last_step.Add({{"model", model}})),
      stalled_(metrics->engine_stalled.Add({{"model", model}})),
      sparsity_(metrics->ffn_activation_sparsity.Add({{"model", model}}, RatioBuckets())),
      union_density_(metrics->ffn_batch_union_density.Add({{"model", model}}, RatioBuckets())),
      audits_(metrics->sparse_audit.Add({{"model", model}})),
      audit_mismatches_(metrics->sparse_audit_argmax_mismatch.Add({{"model", model}})),
      metrics_(metrics),
      model_(model),
      activation_(config.activation),
      neurons_per_token_(int64_t{config.num_layers} * config.ffn_size) {
  for (int i = 0; i < kNumStepPhases; ++i) {
    const prometheus::Labels labels = {{"model", model}, {"phase", kStepPhaseNames[i]}};
    step_duration_[i] = &metrics->step_duration.Add(labels, LatencyBuckets());
    bytes_read_[i] = &metrics->ffn_weight_bytes_read.Add(labels);
    bytes_skipped_[i] = &metrics->ffn_weight_bytes_skipped.Add(labels);
  }
  AddLayers(metrics, model, config.num_layers, has_predictor);
  if (metrics->vllm_requests_running != nullptr) {
    const prometheus::Labels labels = {{"model_name", model}};
    vllm_running_ = &metrics->vllm_requests_running->Add(labels);
    vllm_waiting_ = &metrics->vllm_requests_waiting->Add(labels);
    vllm_kv_usage_ = &metrics->vllm_kv_cache_usage->Add(labels);
    vllm_cache_config_ =
        &metrics->vllm_cache_config->Add({{"model_name", model},
                                          {"block_size", absl::StrCat(KvCache::kBlockSize)},
                                          {"num_gpu_blocks", absl::StrCat(kv_blocks)}});
    vllm_cache_config_->Set(1);
  }
}

ModelMetrics::~ModelMetrics() {
  metrics_->requests_running.Remove(&running_);
  metrics_->requests_waiting.Remove(&waiting_);
  metrics_->queue_capacity.Remove(&queue_capacity_);
  metrics_->running_capacity.Remove(&running_capacity_);
  metrics_->kv_cache_usage.Remove(&kv_usage_);
  metrics_->engine_last_step.Remove(&last_step_);
  metrics_->engine_stalled.Remove(&stalled_);
  if (vllm_running_ == nullptr) return;
  metrics_->vllm_requests_running->Remove(vllm_running_);
  metrics_->vllm_requests_waiting->Remove(vllm_waiting_);
  metrics_->vllm_kv_cache_usage->Remove(vllm_kv_usage_);
  metrics_->vllm_cache_config->Remove(vllm_cache_config_);
}

void ModelMetrics::AddLayers(Metrics* metrics, const std::string& model, int32_t layers,
                             bool has_predictor) {
  layers_.resize(layers);
  for (int32_t l = 0; l < layers; ++l) {
    const std::string layer = absl::StrCat(l);
    for (int p = 0; p < kNumPhases; ++p) {
      const prometheus::Labels labels = {
          {"model", model}, {"layer", layer}, {"phase", kPhaseNames[p]}};
      layers_[l].neurons[p] = &metrics->ffn_neurons.Add(labels);
      layers_[l].active[p] = &metrics->ffn_neurons_active.Add(labels);
    }
    if (has_predictor) {
      const prometheus::Labels labels = {{"model", model}, {"layer", layer}};
      layers_[l].true_positive = &metrics->predictor_true_positive.Add(labels);
      layers_[l].false_negative = &metrics->predictor_false_negative.Add(labels);
      layers_[l].false_positive = &metrics->predictor_false_positive.Add(labels);
    }
    for (int path = 0; path < kNumFfnPaths; ++path) {
      for (int reason = 0; reason < kNumFfnReasons; ++reason) {
        for (int p = 0; p < kNumStepPhases; ++p) {
          layers_[l].dispatch[path][reason][p] =
              &metrics->ffn_dispatch.Add({{"model", model},
                                          {"layer", layer},
                                          {"path", FfnPathName(FfnPath(path))},
                                          {"reason", FfnReasonName(FfnReason(reason))},
                                          {"phase", kStepPhaseNames[p]}});
        }
      }
    }
  }
}

void ModelMetrics::OnStep(const StepReport& report) {
  const StepPhase phase = PhaseOf(report);
  step_duration_[static_cast<int>(phase)]->Observe(Seconds(report.duration));
  batch_size_.Observe(report.sequences);
  step_tokens_.Observe(report.prefill_tokens + report.decode_tokens);
  if (report.ffn != nullptr) RecordFfn(*report.ffn, phase);
}

void ModelMetrics::RecordFfn(const FfnStepStats& ffn, StepPhase phase) {
  const int p = static_cast<int>(phase);
  bytes_read_[p]->Increment(static_cast<double>(ffn.weight_bytes_read));
  bytes_skipped_[p]->Increment(static_cast<double>(ffn.weight_bytes_skipped));
  int64_t neurons = 0, active = 0, union_active = 0, union_neurons = 0;
  const size_t layers = std::min(layers_.size(), ffn.layers.size());
  for (size_t l = 0; l < layers; ++l) {
    const FfnLayerStats& stats = ffn.layers[l];
    for (int i = 0; i < kNumPhases; ++i) {
      layers_[l].neurons[i]->Increment(static_cast<double>(ffn.neurons * ffn.tokens[i]));
      layers_[l].active[i]->Increment(static_cast<double>(stats.active[i]));
      neurons += ffn.neurons * ffn.tokens[i];
      active += stats.active[i];
    }
    if (layers_[l].true_positive != nullptr) {
      layers_[l].true_positive->Increment(static_cast<double>(stats.prediction.true_positive));
      layers_[l].false_negative->Increment(static_cast<double>(stats.prediction.false_negative));
      layers_[l].false_positive->Increment(static_cast<double>(stats.prediction.false_positive));
    }
    union_active += stats.union_active;
    union_neurons += ffn.neurons * stats.groups;
    for (int path = 0; path < kNumFfnPaths; ++path) {
      for (int reason = 0; reason < kNumFfnReasons; ++reason) {
        const int32_t count = stats.dispatched[path][reason];
        if (count != 0) layers_[l].dispatch[path][reason][p]->Increment(count);
      }
    }
  }
  audits_.Increment(static_cast<double>(ffn.audits));
  audit_mismatches_.Increment(static_cast<double>(ffn.audit_mismatches));
  if (neurons > 0) sparsity_.Observe(1.0 - static_cast<double>(active) / neurons);
  if (union_neurons > 0) union_density_.Observe(static_cast<double>(union_active) / union_neurons);
  neurons_.fetch_add(neurons, std::memory_order_relaxed);
  active_.fetch_add(active, std::memory_order_relaxed);
  negative_gates_ += ffn.negative_gates;
  if (!judged_) JudgeActivation();
}

void ModelMetrics::JudgeActivation() {
  const int64_t neurons = neurons_.load(std::memory_order_relaxed);
  if (neurons < kTokensToJudge * neurons_per_token_) return;
  judged_ = true;
  const double zeros = MeasuredSparsity();
  const double negative = static_cast<double>(negative_gates_) / neurons;
  const char* doubt = nullptr;
  if (activation_.has_zeros() && zeros < kFewestZeros) {
    doubt = "so few FFN neurons are zero that the model was hardly trained with this activation";
  } else if (!activation_.has_zeros() && negative > kMostNegativeGates) {
    doubt = "so many FFN gates are negative that the model was probably trained with relu";
  }
  if (doubt == nullptr) return;
  Log(LogLevel::kWarning, "activation_doubtful",
      {{"model", model_},
       {"activation", ActivationName(activation_)},
       {"zeros", zeros},
       {"negative_gates", negative},
       {"tokens", neurons / neurons_per_token_},
       {"message", absl::StrCat(doubt, "; if its files are wrong, set --activation")}});
}

void ModelMetrics::OnScheduled(absl::Duration queue_time) {
  queue_time_.Observe(Seconds(queue_time));
}

void ModelMetrics::OnFirstToken(absl::Duration since_arrival, absl::Duration prefill) {
  time_to_first_token_.Observe(Seconds(since_arrival));
  prefill_.Observe(Seconds(prefill));
  generation_tokens_.Increment();
}

void ModelMetrics::OnNextToken(absl::Duration since_previous) {
  inter_token_latency_.Observe(Seconds(since_previous));
  generation_tokens_.Increment();
}

void ModelMetrics::OnChoiceFinished(absl::Duration decode, int32_t completion_tokens) {
  decode_.Observe(Seconds(decode));
  if (completion_tokens > 1) {
    time_per_output_token_.Observe(Seconds(decode) / (completion_tokens - 1));
  }
}

void ModelMetrics::OnPrompt(int32_t computed_tokens, int32_t cached_tokens, bool looked_up) {
  prompt_computed_.Increment(computed_tokens);
  prompt_cached_.Increment(cached_tokens);
  if (looked_up) prefix_queries_.Increment(computed_tokens + cached_tokens);
  prefix_hits_.Increment(cached_tokens);
}

void ModelMetrics::OnLoad(const EngineLoad& load) {
  const double usage = load.kv_blocks_total > 0
                           ? static_cast<double>(load.kv_blocks_used) / load.kv_blocks_total
                           : 0.0;
  running_.Set(load.running);
  waiting_.Set(load.waiting);
  queue_capacity_.Set(load.max_queue);
  running_capacity_.Set(load.max_concurrent);
  kv_usage_.Set(usage);
  if (load.last_step > absl::UnixEpoch()) {
    last_step_.Set(absl::ToUnixMicros(load.last_step) * 1e-6);
  }
  if (vllm_running_ != nullptr) {
    vllm_running_->Set(load.running);
    vllm_waiting_->Set(load.waiting);
    vllm_kv_usage_->Set(usage);
  }
}

double ModelMetrics::MeasuredSparsity() const {
  const int64_t neurons = neurons_.load(std::memory_order_relaxed);
  if (neurons == 0) return 0.0;
  return 1.0 - static_cast<double>(active_.load(std::memory_order_relaxed)) / neurons;
}

}  // namespace lacuna
