#include "server/traffic_metrics.h"

#include "proto/status.h"
#include "runtime/engine/request.h"

namespace lacuna {
namespace {

constexpr std::array kCodes = {
    absl::StatusCode::kCancelled,        absl::StatusCode::kInvalidArgument,
    absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kNotFound,
    absl::StatusCode::kPermissionDenied, absl::StatusCode::kResourceExhausted,
    absl::StatusCode::kUnimplemented,    absl::StatusCode::kInternal,
    absl::StatusCode::kUnavailable,      absl::StatusCode::kUnauthenticated};
constexpr std::array kEndReasons = {FinishReason::kEos,          FinishReason::kStopString,
                                    FinishReason::kStopToken,    FinishReason::kLength,
                                    FinishReason::kContextLimit, FinishReason::kTimeLimit};
constexpr std::array kStages = {CallStage::kAdmission, CallStage::kQueue, CallStage::kPrefill,
                                CallStage::kDecode, CallStage::kWrite};
constexpr std::array kRejectReasons = {
    "invalid_argument", "not_found",       "queue_full", "loading",
    "draining",         "unauthenticated", "other"};

bool IsGenerate(Method method) {
  return method == Method::kGenerate || method == Method::kGenerateStream;
}

prometheus::Labels RequestLabels(const std::string& model, Method method, absl::StatusCode code,
                                 const char* finish_reason) {
  return {{"model", model},
          {"method", MethodName(method)},
          {"code", std::string(StatusCodeName(code))},
          {"finish_reason", finish_reason}};
}

}  // namespace

const char* MethodName(Method method) {
  switch (method) {
    case Method::kGenerate:
      return "Generate";
    case Method::kGenerateStream:
      return "GenerateStream";
    case Method::kTokenize:
      return "Tokenize";
    case Method::kDetokenize:
      return "Detokenize";
    case Method::kListModels:
      return "ListModels";
    case Method::kGetModel:
      return "GetModel";
    case Method::kGetLoad:
      return "GetLoad";
  }
  return "?";
}

const char* CallStageName(CallStage stage) {
  switch (stage) {
    case CallStage::kAdmission:
      return "admission";
    case CallStage::kQueue:
      return "queue";
    case CallStage::kPrefill:
      return "prefill";
    case CallStage::kDecode:
      return "decode";
    case CallStage::kWrite:
      return "write";
  }
  return "?";
}

const char* RejectReason(absl::StatusCode code, bool model_found) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return "invalid_argument";
    case absl::StatusCode::kNotFound:
      return "not_found";
    case absl::StatusCode::kResourceExhausted:
      return "queue_full";
    case absl::StatusCode::kUnavailable:
      return model_found ? "draining" : "loading";
    case absl::StatusCode::kUnauthenticated:
      return "unauthenticated";
    default:
      return "other";
  }
}

TrafficMetrics::TrafficMetrics(Metrics* metrics, const std::string& model)
    : metrics_(metrics),
      model_(model),
      slow_consumer_(metrics->slow_consumer.Add({{"model", model}})),
      open_(metrics->grpc_streams_open.Add({{"model", model}})),
      duration_(metrics->request_duration.Add({{"model", model}}, LatencyBuckets())) {
  for (Method method : kMethods) {
    metrics_->requests_started.Add({{"model", model}, {"method", MethodName(method)}});
    for (absl::StatusCode code : kCodes) {
      const bool cancel = IsGenerate(method) && code == absl::StatusCode::kCancelled;
      metrics_->requests.Add(RequestLabels(model, method, code, cancel ? "cancelled" : "none"));
    }
    if (IsGenerate(method)) {
      for (FinishReason reason : kEndReasons) {
        metrics_->requests.Add(
            RequestLabels(model, method, absl::StatusCode::kOk, FinishReasonName(reason)));
      }
    } else {
      metrics_->requests.Add(RequestLabels(model, method, absl::StatusCode::kOk, "none"));
    }
  }
  for (const char* reason : kRejectReasons) {
    metrics_->requests_rejected.Add({{"model", model}, {"reason", reason}});
  }
  for (CallStage stage : kStages) {
    metrics_->cancelled.Add({{"model", model}, {"where", CallStageName(stage)}});
  }
}

void TrafficMetrics::OnStarted(Method method) {
  metrics_->requests_started.Add({{"model", model_}, {"method", MethodName(method)}}).Increment();
}

void TrafficMetrics::OnEnded(Method method, absl::StatusCode code, const char* finish_reason) {
  metrics_->requests.Add(RequestLabels(model_, method, code, finish_reason)).Increment();
}

void TrafficMetrics::OnRejected(const char* reason) {
  metrics_->requests_rejected.Add({{"model", model_}, {"reason", reason}}).Increment();
}

void TrafficMetrics::OnCancelled(CallStage where) {
  metrics_->cancelled.Add({{"model", model_}, {"where", CallStageName(where)}}).Increment();
}

void TrafficMetrics::OnClosed(absl::Duration duration) {
  open_.Decrement();
  duration_.Observe(absl::ToDoubleSeconds(duration));
}

Traffic::Traffic(Metrics* metrics) : metrics_(metrics) {
  AddModel("unknown");
  AddModel("none");
}

void Traffic::AddModel(const std::string& name) {
  MutexLock lock(&mu_);
  auto& model = models_[name];
  if (model == nullptr) model = std::make_unique<TrafficMetrics>(metrics_, name);
}

TrafficMetrics* Traffic::Get(const std::string& name) {
  MutexLock lock(&mu_);
  const auto it = models_.find(name.empty() ? "none" : name);
  return it != models_.end() ? it->second.get() : models_.at("unknown").get();
}

}  // namespace lacuna
