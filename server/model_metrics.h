#ifndef LACUNA_SERVER_MODEL_METRICS_H_
#define LACUNA_SERVER_MODEL_METRICS_H_

#include <array>
#include <atomic>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/engine/engine_metrics.h"
#include "runtime/model/model.h"
#include "server/metrics.h"

namespace lacuna {

// What a step did, as the label `phase`: a step that prefills some sequences and decodes others is
// "mixed".
enum class StepPhase { kPrefill, kDecode, kMixed };
inline constexpr int kNumStepPhases = 3;

// Turns what one engine tells into Prometheus series of one model. All series exist from the
// construction on. Gauges go with the object; what counts stays, as rates need.
class ModelMetrics : public EngineMetrics {
 public:
  // `metrics` must outlive this object.
  ModelMetrics(Metrics* metrics, const std::string& model, const ModelConfig& config,
               bool has_predictor, int32_t kv_blocks);
  ~ModelMetrics() override;

  void OnStep(const StepReport& report) override;
  void OnScheduled(absl::Duration queue_time) override;
  void OnFirstToken(absl::Duration since_arrival, absl::Duration prefill) override;
  void OnNextToken(absl::Duration since_previous) override;
  void OnChoiceFinished(absl::Duration decode, int32_t completion_tokens) override;
  void OnPrompt(int32_t computed_tokens, int32_t cached_tokens, bool looked_up) override;
  void OnPreemption() override { preemptions_.Increment(); }
  void OnLoad(const EngineLoad& load) override;

  // Whether the engine is stuck, as the watchdog found. Any thread.
  void SetStalled(bool stalled) { stalled_.Set(stalled); }
  // Share of zero FFN neurons since the start; 0 before the first step. Any thread.
  double MeasuredSparsity() const;

 private:
  using Counter = prometheus::Counter;
  using Histogram = prometheus::Histogram;
  using Gauge = prometheus::Gauge;

  struct Layer {
    std::array<Counter*, kNumPhases> neurons{};
    std::array<Counter*, kNumPhases> active{};
    // [path][reason][step phase]
    Counter* dispatch[kNumFfnPaths][kNumFfnReasons][kNumStepPhases] = {};
    // Null without a predictor.
    Counter* true_positive = nullptr;
    Counter* false_negative = nullptr;
    Counter* false_positive = nullptr;
  };

  // Warns, once, if the first tokens show that the declared activation is not the model's.
  void JudgeActivation();
  void AddLayers(Metrics* metrics, const std::string& model, int32_t layers, bool has_predictor);
  void RecordFfn(const FfnStepStats& ffn, StepPhase phase);

  Histogram& time_to_first_token_;
  Histogram& inter_token_latency_;
  Histogram& time_per_output_token_;
  Histogram& queue_time_;
  Histogram& prefill_;
  Histogram& decode_;
  Counter& prompt_computed_;
  Counter& prompt_cached_;
  Counter& generation_tokens_;
  Histogram& batch_size_;
  Histogram& step_tokens_;
  Counter& preemptions_;
  Counter& prefix_queries_;
  Counter& prefix_hits_;
  Gauge& running_;
  Gauge& waiting_;
  Gauge& queue_capacity_;
  Gauge& running_capacity_;
  Gauge& kv_usage_;
  Gauge& last_step_;
  Gauge& stalled_;
  Histogram& sparsity_;
  Histogram& union_density_;
  Counter& audits_;
  Counter& audit_mismatches_;
  std::array<Histogram*, kNumStepPhases> step_duration_{};
  std::array<Counter*, kNumStepPhases> bytes_read_{};
  std::array<Counter*, kNumStepPhases> bytes_skipped_{};
  std::vector<Layer> layers_;
  Gauge* vllm_running_ = nullptr;  // null: aliases are off
  Gauge* vllm_waiting_ = nullptr;
  Gauge* vllm_kv_usage_ = nullptr;

  Gauge* vllm_cache_config_ = nullptr;

  Metrics* const metrics_;
  const std::string model_;
  const Activation activation_;
  const int64_t neurons_per_token_;
  bool judged_ = false;
  int64_t negative_gates_ = 0;  // until judged
  std::atomic<int64_t> neurons_{0};
  std::atomic<int64_t> active_{0};
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_MODEL_METRICS_H_
