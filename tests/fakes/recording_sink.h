#ifndef LACUNA_TESTS_FAKES_RECORDING_SINK_H_
#define LACUNA_TESTS_FAKES_RECORDING_SINK_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/mutex.h"
#include "runtime/engine/request.h"

namespace lacuna {

// Keeps what it is told, and counts calls that TokenSink forbids. Thread-safe.
class RecordingSink : public TokenSink {
 public:
  void OnPromptLogprobs(std::vector<TokenInfo> tokens) override;
  void OnDelta(TokenDelta delta) override;
  void OnChoiceFinished(const ChoiceResult& result) override;
  void OnDone(const absl::Status& status) override;

  void WaitDone();
  bool done() const;
  // UNKNOWN before OnDone.
  absl::Status status() const;
  int deltas() const;
  // Deltas of a choice, joined.
  std::string text(int32_t choice = 0) const;
  std::vector<int32_t> tokens(int32_t choice = 0) const;
  std::vector<TokenInfo> infos(int32_t choice = 0) const;
  std::vector<TokenInfo> prompt_infos() const;
  // Of the choices that finished, by index.
  std::map<int32_t, ChoiceResult> results() const;
  // Calls after OnDone, a second OnDone or OnPromptLogprobs, deltas of a finished choice.
  int violations() const;

 private:
  mutable Mutex mu_;
  CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_) = absl::UnknownError("not done");
  int deltas_ ABSL_GUARDED_BY(mu_) = 0;
  int violations_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<TokenInfo> prompt_infos_ ABSL_GUARDED_BY(mu_);
  std::map<int32_t, std::string> text_ ABSL_GUARDED_BY(mu_);
  std::map<int32_t, std::vector<TokenInfo>> infos_ ABSL_GUARDED_BY(mu_);
  std::map<int32_t, ChoiceResult> results_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_FAKES_RECORDING_SINK_H_
