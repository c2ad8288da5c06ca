#ifndef LACUNA_SERVER_TRAFFIC_METRICS_H_
#define LACUNA_SERVER_TRAFFIC_METRICS_H_

#include <array>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/base/mutex.h"
#include "server/metrics.h"

namespace lacuna {

// The methods of GenerationService.
enum class Method {
  kGenerate,
  kGenerateStream,
  kTokenize,
  kDetokenize,
  kListModels,
  kGetModel,
  kGetLoad,
};
inline constexpr std::array kMethods = {
    Method::kGenerate,   Method::kGenerateStream, Method::kTokenize, Method::kDetokenize,
    Method::kListModels, Method::kGetModel,       Method::kGetLoad};
const char* MethodName(Method method);

// Where a Generate call was when it was cancelled.
enum class CallStage {
  kAdmission,  // not submitted to the engine
  kQueue,
  kPrefill,
  kDecode,
  kWrite,  // everything generated, not everything sent
};
const char* CallStageName(CallStage stage);

// Why a Generate call was refused before the engine saw it: a fixed set of names. `model_found`:
// the model is there, though it may refuse.
const char* RejectReason(absl::StatusCode code, bool model_found);

// Traffic counters of one value of the label `model`. Thread-safe.
class TrafficMetrics {
 public:
  TrafficMetrics(Metrics* metrics, const std::string& model);

  void OnStarted(Method method);
  // `finish_reason`: a FinishReasonName, or "none".
  void OnEnded(Method method, absl::StatusCode code, const char* finish_reason);
  // A Generate call that was refused before the engine saw it; a RejectReason.
  void OnRejected(const char* reason);
  void OnCancelled(CallStage where);
  void OnSlowConsumer() { slow_consumer_.Increment(); }
  void OnOpened() { open_.Increment(); }
  void OnClosed(absl::Duration duration);

 private:
  Metrics* const metrics_;
  const std::string model_;
  prometheus::Counter& slow_consumer_;
  prometheus::Gauge& open_;
  prometheus::Histogram& duration_;
};

// TrafficMetrics by model. The values of the label are the names that were configured, "unknown"
// for a name that is not served, and "none" for calls that name no model. Thread-safe.
class Traffic {
 public:
  explicit Traffic(Metrics* metrics);
  // Makes the series of a configured model appear, at zero.
  void AddModel(const std::string& name);
  // The counters of `name`, of "unknown" if it was never added, of "none" if empty.
  // Never deleted before *this.
  TrafficMetrics* Get(const std::string& name);

 private:
  Metrics* const metrics_;
  Mutex mu_;
  absl::flat_hash_map<std::string, std::unique_ptr<TrafficMetrics>> models_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lacuna

#endif  // LACUNA_SERVER_TRAFFIC_METRICS_H_
