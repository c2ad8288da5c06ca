#include "server/metrics.h"

#include "server/version.h"

namespace lacuna {

Metrics::Counters& Metrics::AddCounters(const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_);
}

Metrics::Gauges& Metrics::AddGauges(const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_);
}

Metrics::Histograms& Metrics::AddHistograms(const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_);
}

Metrics::Metrics(bool vllm_aliases)
    : registry_(std::make_shared<prometheus::Registry>()),
      requests_started(AddCounters("lacuna_requests_started_total", "RPCs that arrived")),
      requests(AddCounters("lacuna_requests_total", "RPCs that ended, by outcome")),
      requests_rejected(
          AddCounters("lacuna_requests_rejected_total",
                      "Generate calls refused before the engine saw them, by reason")),
      cancelled(AddCounters("lacuna_cancelled_total",
                            "Generate calls cancelled, disconnected or past their deadline, by "
                            "where they were")),
      slow_consumer(AddCounters("lacuna_slow_consumer_total",
                                "Streams ended because the client read too slowly")),
      requests_running(AddGauges("lacuna_requests_running", "Sequences in the batch")),
      requests_waiting(AddGauges("lacuna_requests_waiting",
                                 "Sequences not in the batch: new, held or preempted")),
      queue_capacity(AddGauges("lacuna_queue_capacity", "Sequences that may wait")),
      running_capacity(AddGauges("lacuna_running_capacity", "Sequences that may run at a time")),
      grpc_streams_open(AddGauges("lacuna_grpc_streams_open", "Generate calls that are open")),
      time_to_first_token(
          AddHistograms("lacuna_time_to_first_token_seconds", "Arrival to first token")),
      inter_token_latency(AddHistograms("lacuna_inter_token_latency_seconds",
                                        "Time between two tokens of a choice")),
      time_per_output_token(
          AddHistograms("lacuna_time_per_output_token_seconds",
                        "Mean time per token after the first, one value per choice")),
      queue_time(AddHistograms("lacuna_queue_time_seconds", "Arrival to first scheduled")),
      prefill(AddHistograms("lacuna_prefill_seconds", "First scheduled to first token")),
      decode(AddHistograms("lacuna_decode_seconds", "First to last token")),
      request_duration(
          AddHistograms("lacuna_request_duration_seconds", "Whole Generate calls, arrival to end")),
      step_duration(AddHistograms("lacuna_step_duration_seconds", "Engine steps")),
      prompt_tokens(AddCounters("lacuna_prompt_tokens_total",
                                "Prompt tokens, computed or found in the prefix cache")),
      generation_tokens(AddCounters("lacuna_generation_tokens_total", "Generated tokens")),
      batch_size(AddHistograms("lacuna_batch_size", "Sequences of a step")),
      step_tokens(AddHistograms("lacuna_step_tokens", "Tokens of a step, prefill included")),
      kv_cache_usage(AddGauges("lacuna_kv_cache_usage_ratio", "Share of KV blocks in use")),
      preemptions(AddCounters("lacuna_preemptions_total",
                              "Sequences sent back to the queue for lack of KV blocks")),
      prefix_cache_queries(AddCounters("lacuna_prefix_cache_queries_total",
                                       "Prompt tokens looked up in the prefix cache")),
      prefix_cache_hits(
          AddCounters("lacuna_prefix_cache_hits_total", "Prompt tokens found in the prefix cache")),
      model_load_seconds(AddGauges("lacuna_model_load_seconds", "Time the model took to load")),
      model_ready(AddGauges("lacuna_model_ready", "1 if the model answers requests")),
      draining(AddGauges("lacuna_draining", "1 if the server takes no new requests")),
      build_info(AddGauges("lacuna_build_info", "1; the labels say what runs")),
      engine_last_step(AddGauges("lacuna_engine_last_step_timestamp_seconds",
                                 "End of the last step, Unix time; 0 before the first")),
      engine_stalled(AddGauges("lacuna_engine_stalled",
                               "1 if the engine has work and makes no steps, or its steps fail")),
      ffn_neurons(AddCounters("lacuna_ffn_neurons_total", "FFN neurons, once per token")),
      ffn_neurons_active(AddCounters("lacuna_ffn_neurons_active_total",
                                     "FFN neurons that were not zero, once per token")),
      ffn_activation_sparsity(AddHistograms("lacuna_ffn_activation_sparsity_ratio",
                                            "Share of zero FFN neurons of a step")),
      ffn_batch_union_density(
          AddHistograms("lacuna_ffn_batch_union_density_ratio",
                        "Share of FFN neurons that any token of a group needs, mean of a step")),
      ffn_dispatch(AddCounters("lacuna_ffn_dispatch_total",
                               "FFN passes by the path taken and why it was taken")),
      ffn_weight_bytes_read(
          AddCounters("lacuna_ffn_weight_bytes_read_total", "FFN weight bytes read")),
      ffn_weight_bytes_skipped(
          AddCounters("lacuna_ffn_weight_bytes_skipped_total",
                      "FFN weight bytes that a dense pass would have read on top")),
      predictor_true_positive(
          AddCounters("lacuna_predictor_true_positive_total",
                      "Active neurons that the predictor named, in audited steps")),
      predictor_false_negative(
          AddCounters("lacuna_predictor_false_negative_total",
                      "Active neurons that the predictor missed, in audited steps")),
      predictor_false_positive(
          AddCounters("lacuna_predictor_false_positive_total",
                      "Neurons that the predictor named for nothing, in audited steps")),
      sparse_audit(AddCounters("lacuna_sparse_audit_total",
                               "Tokens computed both approximately and exactly")),
      sparse_audit_argmax_mismatch(
          AddCounters("lacuna_sparse_audit_argmax_mismatch_total",
                      "Audited tokens after which another token was best")) {
  build_info.Add({{"version", kVersion}, {"compiler", __VERSION__}}).Set(1);
  draining.Add({});
  if (!vllm_aliases) return;
  vllm_requests_running =
      &AddGauges("vllm:num_requests_running", "Alias of lacuna_requests_running");
  vllm_requests_waiting =
      &AddGauges("vllm:num_requests_waiting", "Alias of lacuna_requests_waiting");
  vllm_kv_cache_usage =
      &AddGauges("vllm:kv_cache_usage_perc", "Alias of lacuna_kv_cache_usage_ratio");
  vllm_cache_config = &AddGauges("vllm:cache_config_info", "1; the labels say how the KV cache is");
}

prometheus::Histogram::BucketBoundaries LatencyBuckets() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
          0.25,   0.5,     1,      2.5,   5,      10,    30,   60,    120,  300};
}

prometheus::Histogram::BucketBoundaries CountBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
}

prometheus::Histogram::BucketBoundaries RatioBuckets() {
  return {0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1};
}

}  // namespace lacuna
