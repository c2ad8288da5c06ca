#include "client/load/load_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/status.h"

namespace lacuna {
namespace {

LatencySummary Summarize(std::vector<double> ms) {
  LatencySummary summary;
  if (ms.empty()) return summary;
  std::sort(ms.begin(), ms.end());
  double sum = 0;
  for (double value : ms) sum += value;
  summary.count = ms.size();
  summary.mean_ms = sum / static_cast<double>(ms.size());
  summary.p50_ms = Quantile(ms, 0.50);
  summary.p90_ms = Quantile(ms, 0.90);
  summary.p95_ms = Quantile(ms, 0.95);
  summary.p99_ms = Quantile(ms, 0.99);
  summary.max_ms = ms.back();
  return summary;
}

bool Meets(const Objectives& objectives, const RequestRecord& record) {
  if (record.code != absl::StatusCode::kOk) return false;
  if (objectives.ttft.has_value() && record.first_text > *objectives.ttft) return false;
  const std::optional<absl::Duration> tpot = TimePerOutputToken(record);
  return !objectives.tpot.has_value() || !tpot.has_value() || *tpot <= *objectives.tpot;
}

nlohmann::ordered_json LatencyJson(const LatencySummary& summary) {
  return {{"count", summary.count},   {"mean_ms", summary.mean_ms}, {"p50_ms", summary.p50_ms},
          {"p90_ms", summary.p90_ms}, {"p95_ms", summary.p95_ms},   {"p99_ms", summary.p99_ms},
          {"max_ms", summary.max_ms}};
}

void AppendLatency(std::string* text, absl::string_view name, const LatencySummary& summary) {
  absl::StrAppendFormat(text, "%-22s %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, summary.mean_ms,
                        summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms,
                        summary.max_ms);
}

nlohmann::ordered_json ObjectiveJson(const std::optional<absl::Duration>& objective) {
  if (!objective.has_value()) return nullptr;
  return absl::ToDoubleMilliseconds(*objective);
}

}  // namespace

double Quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return 0;
  const double rank = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(rank));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - std::floor(rank)) * (sorted[above] - sorted[below]);
}

std::optional<absl::Duration> TimePerOutputToken(const RequestRecord& record) {
  if (record.completion_tokens < 2) return std::nullopt;
  return (record.total - record.first_text) / (record.completion_tokens - 1);
}

LoadReport MakeLoadReport(const std::vector<RequestRecord>& records, absl::Duration elapsed,
                          const Objectives& objectives) {
  LoadReport report;
  report.elapsed_s = absl::ToDoubleSeconds(elapsed);
  report.requests = records.size();
  report.objectives = objectives;
  std::vector<double> ttft, tpot, total;
  uint64_t good = 0;
  for (const RequestRecord& record : records) {
    report.max_lag_ms = std::max(report.max_lag_ms, absl::ToDoubleMilliseconds(record.lag));
    if (record.cut) ++report.cut;
    if (record.code != absl::StatusCode::kOk) {
      ++report.errors_by_code[std::string(StatusCodeName(record.code))];
      continue;
    }
    ++report.ok;
    if (Meets(objectives, record)) ++good;
    report.prompt_tokens += record.prompt_tokens;
    report.completion_tokens += record.completion_tokens;
    ttft.push_back(absl::ToDoubleMilliseconds(record.first_text));
    total.push_back(absl::ToDoubleMilliseconds(record.total));
    if (const auto per_token = TimePerOutputToken(record)) {
      tpot.push_back(absl::ToDoubleMilliseconds(*per_token));
    }
  }
  report.ttft = Summarize(std::move(ttft));
  report.tpot = Summarize(std::move(tpot));
  report.total = Summarize(std::move(total));
  if (report.elapsed_s > 0) {
    report.requests_per_s = static_cast<double>(report.ok) / report.elapsed_s;
    report.completion_tokens_per_s =
        static_cast<double>(report.completion_tokens) / report.elapsed_s;
    report.goodput_per_s = static_cast<double>(good) / report.elapsed_s;
  }
  if (report.requests > 0) {
    report.goodput_ratio = static_cast<double>(good) / static_cast<double>(report.requests);
  }
  return report;
}

std::string ToText(const LoadReport& report) {
  std::string text;
  absl::StrAppendFormat(&text, "%d requests in %.2f s: %d ok, %d failed\n", report.requests,
                        report.elapsed_s, report.ok, report.requests - report.ok);
  for (const auto& [code, count] : report.errors_by_code) {
    absl::StrAppendFormat(&text, "  %-20s %d\n", code, count);
  }
  absl::StrAppendFormat(&text, "throughput             %.2f requests/s, %.1f tokens/s out\n",
                        report.requests_per_s, report.completion_tokens_per_s);
  absl::StrAppendFormat(&text, "tokens                 %d in, %d out\n", report.prompt_tokens,
                        report.completion_tokens);
  absl::StrAppendFormat(&text, "\n%-22s %9s %9s %9s %9s %9s %9s\n", "milliseconds", "mean", "p50",
                        "p90", "p95", "p99", "max");
  AppendLatency(&text, "time to first token", report.ttft);
  AppendLatency(&text, "time per output token", report.tpot);
  AppendLatency(&text, "end to end", report.total);
  absl::StrAppend(&text, "\n");
  std::string objectives;
  if (report.objectives.ttft.has_value()) {
    absl::StrAppend(&objectives, "TTFT <= ", absl::FormatDuration(*report.objectives.ttft));
  }
  if (report.objectives.tpot.has_value()) {
    absl::StrAppend(&objectives, objectives.empty() ? "" : ", ",
                    "TPOT <= ", absl::FormatDuration(*report.objectives.tpot));
  }
  if (!objectives.empty()) {
    absl::StrAppendFormat(&text, "goodput                %.2f requests/s, %.1f %% of all (%s)\n",
                          report.goodput_per_s, 100 * report.goodput_ratio, objectives);
  }
  if (report.max_lag_ms >= 1) {
    absl::StrAppendFormat(&text, "requests left up to %.1f ms late; times count from when due\n",
                          report.max_lag_ms);
  }
  if (report.cut > 0) {
    absl::StrAppendFormat(&text, "%d of %d requests were cut to fit the model's context\n",
                          report.cut, report.requests);
  }
  return text;
}

std::string ToJson(const LoadReport& report) {
  const nlohmann::ordered_json json = {
      {"elapsed_s", report.elapsed_s},
      {"requests", report.requests},
      {"ok", report.ok},
      {"errors_by_code", report.errors_by_code},
      {"prompt_tokens", report.prompt_tokens},
      {"completion_tokens", report.completion_tokens},
      {"requests_per_s", report.requests_per_s},
      {"completion_tokens_per_s", report.completion_tokens_per_s},
      {"ttft", LatencyJson(report.ttft)},
      {"tpot", LatencyJson(report.tpot)},
      {"total", LatencyJson(report.total)},
      {"max_lag_ms", report.max_lag_ms},
      {"cut", report.cut},
      {"slo_ttft_ms", ObjectiveJson(report.objectives.ttft)},
      {"slo_tpot_ms", ObjectiveJson(report.objectives.tpot)},
      {"goodput_per_s", report.goodput_per_s},
      {"goodput_ratio", report.goodput_ratio},
  };
  return json.dump(2);
}

}  // namespace lacuna
