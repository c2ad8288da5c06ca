#ifndef LACUNA_SERVER_METRICS_H_
#define LACUNA_SERVER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

namespace lacuna {

// Every metric family of the server, as docs and dashboards name them. Labels take values from the
// configuration and from fixed enums only, never a client's text. Thread-safe.
class Metrics {
 public:
  using Counters = prometheus::Family<prometheus::Counter>;
  using Gauges = prometheus::Family<prometheus::Gauge>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  // `vllm_aliases`: also the vllm: names that gateway endpoint pickers read.
  explicit Metrics(bool vllm_aliases);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  Counters& AddCounters(const char* name, const char* help);
  Gauges& AddGauges(const char* name, const char* help);
  Histograms& AddHistograms(const char* name, const char* help);

 public:
  // Traffic, labels model and as listed.
  Counters& requests_started;   // method
  Counters& requests;           // method, code, finish_reason
  Counters& requests_rejected;  // reason
  Counters& cancelled;          // where
  Counters& slow_consumer;
  Gauges& requests_running;
  Gauges& requests_waiting;
  Gauges& queue_capacity;
  Gauges& running_capacity;
  Gauges& grpc_streams_open;

  // Latency, seconds.
  Histograms& time_to_first_token;
  Histograms& inter_token_latency;
  Histograms& time_per_output_token;
  Histograms& queue_time;
  Histograms& prefill;
  Histograms& decode;
  Histograms& request_duration;
  Histograms& step_duration;  // phase

  // Work.
  Counters& prompt_tokens;  // source
  Counters& generation_tokens;
  Histograms& batch_size;
  Histograms& step_tokens;
  Gauges& kv_cache_usage;
  Counters& preemptions;
  Counters& prefix_cache_queries;
  Counters& prefix_cache_hits;
  Gauges& model_load_seconds;
  Gauges& model_ready;
  Gauges& draining;
  Gauges& build_info;
  Gauges& engine_last_step;
  Gauges& engine_stalled;

  // Sparsity.
  Counters& ffn_neurons;         // layer, phase
  Counters& ffn_neurons_active;  // layer, phase
  Histograms& ffn_activation_sparsity;
  Histograms& ffn_batch_union_density;
  Counters& ffn_dispatch;              // layer, path, reason, phase
  Counters& ffn_weight_bytes_read;     // phase
  Counters& ffn_weight_bytes_skipped;  // phase
  // Where a predictor runs; layer.
  Counters& predictor_true_positive;
  Counters& predictor_false_negative;
  Counters& predictor_false_positive;
  Counters& sparse_audit;
  Counters& sparse_audit_argmax_mismatch;

  // Null if turned off. Label model_name.
  Gauges* vllm_requests_running = nullptr;
  Gauges* vllm_requests_waiting = nullptr;
  Gauges* vllm_kv_cache_usage = nullptr;
  Gauges* vllm_cache_config = nullptr;  // block_size, num_gpu_blocks
};

// From 100 us to 5 min, about three bounds per decade.
prometheus::Histogram::BucketBoundaries LatencyBuckets();
// Powers of two from 1 to 4096.
prometheus::Histogram::BucketBoundaries CountBuckets();
// Shares in [0, 1], finer towards both ends.
prometheus::Histogram::BucketBoundaries RatioBuckets();

}  // namespace lacuna

#endif  // LACUNA_SERVER_METRICS_H_
