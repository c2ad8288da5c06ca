#include "runtime/engine/output_text.h"

#include <utility>

namespace lacuna {

OutputText::OutputText(const Tokenizer* tokenizer, const StoppingParams* stopping)
    : stopping_(stopping), decoder_(tokenizer), matcher_(stopping->stop_strings) {}

bool OutputText::Append(int32_t token, bool may_stop) {
  return AppendText(decoder_.Append(token), may_stop);
}

bool OutputText::AppendText(std::string_view text, bool may_stop) {
  for (const char byte : text) {
    pending_.push_back(byte);
    const int stop = matcher_.Advance(byte);
    if (stop < 0 || !may_stop) continue;
    matched_stop_ = stopping_->stop_strings[stop];
    if (!stopping_->include_stop) pending_.resize(pending_.size() - matched_stop_.size());
    released_ = pending_.size();
    return true;
  }
  released_ = pending_.size() - matcher_.held();
  return false;
}

void OutputText::Finish() {
  pending_ += decoder_.Flush();
  released_ = pending_.size();
}

std::string OutputText::Take() {
  std::string text = pending_.substr(0, released_);
  pending_.erase(0, released_);
  released_ = 0;
  return text;
}

}  // namespace lacuna
