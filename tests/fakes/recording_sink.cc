#include "tests/fakes/recording_sink.h"

#include <utility>

namespace lacuna {

void RecordingSink::OnPromptLogprobs(std::vector<TokenInfo> tokens) {
  MutexLock lock(&mu_);
  violations_ += done_ || deltas_ > 0 || !prompt_infos_.empty();
  prompt_infos_ = std::move(tokens);
}

void RecordingSink::OnDelta(TokenDelta delta) {
  MutexLock lock(&mu_);
  violations_ += done_ || results_.contains(delta.index);
  ++deltas_;
  text_[delta.index] += delta.text;
  std::vector<TokenInfo>& infos = infos_[delta.index];
  for (TokenInfo& info : delta.tokens) infos.push_back(std::move(info));
}

void RecordingSink::OnChoiceFinished(const ChoiceResult& result) {
  MutexLock lock(&mu_);
  violations_ += done_ || result.reason == FinishReason::kCancelled;
  violations_ += !results_.emplace(result.index, result).second;
}

void RecordingSink::OnDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  violations_ += done_;
  done_ = true;
  status_ = status;
  changed_.NotifyAll();
}

void RecordingSink::WaitDone() {
  MutexLock lock(&mu_);
  while (!done_) changed_.Wait(&mu_);
}

bool RecordingSink::done() const {
  MutexLock lock(&mu_);
  return done_;
}

absl::Status RecordingSink::status() const {
  MutexLock lock(&mu_);
  return status_;
}

int RecordingSink::deltas() const {
  MutexLock lock(&mu_);
  return deltas_;
}

std::string RecordingSink::text(int32_t choice) const {
  MutexLock lock(&mu_);
  const auto it = text_.find(choice);
  return it == text_.end() ? "" : it->second;
}

std::vector<TokenInfo> RecordingSink::infos(int32_t choice) const {
  MutexLock lock(&mu_);
  const auto it = infos_.find(choice);
  return it == infos_.end() ? std::vector<TokenInfo>() : it->second;
}

std::vector<int32_t> RecordingSink::tokens(int32_t choice) const {
  std::vector<int32_t> tokens;
  for (const TokenInfo& info : infos(choice)) tokens.push_back(info.token_id);
  return tokens;
}

std::vector<TokenInfo> RecordingSink::prompt_infos() const {
  MutexLock lock(&mu_);
  return prompt_infos_;
}

std::map<int32_t, ChoiceResult> RecordingSink::results() const {
  MutexLock lock(&mu_);
  return results_;
}

int RecordingSink::violations() const {
  MutexLock lock(&mu_);
  return violations_;
}

}  // namespace lacuna
