#include "client/cli/choice_printer.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace lacuna {

ChoicePrinter::ChoicePrinter(uint32_t choices, std::function<bool(absl::string_view)> write)
    : choices_(choices), write_(std::move(write)) {}

bool ChoicePrinter::Add(const v1::GenerateStreamResponse& event) {
  if (event.has_delta() && event.delta().index() < choices_.size()) {
    choices_[event.delta().index()].pending += event.delta().text();
  } else if (event.has_finished() && event.finished().index() < choices_.size()) {
    choices_[event.finished().index()].finished = true;
  }
  while (current_ < choices_.size()) {
    Print(&choices_[current_]);
    if (!choices_[current_].finished) break;
    ++current_;
  }
  return ok_;
}

bool ChoicePrinter::Close() {
  for (; current_ < choices_.size(); ++current_) {
    Choice& choice = choices_[current_];
    if (choice.pending.empty() && !choice.started) continue;
    choice.finished = true;
    Print(&choice);
  }
  return ok_;
}

void ChoicePrinter::Print(Choice* choice) {
  std::string text;
  if (choices_.size() > 1 && !choice->started && (!choice->pending.empty() || choice->finished)) {
    absl::StrAppend(&text, "--- ", current_ + 1, " of ", choices_.size(), " ---\n");
  }
  if (!choice->pending.empty()) choice->last = choice->pending.back();
  choice->started |= !choice->pending.empty() || choice->finished;
  text += std::exchange(choice->pending, {});
  if (choice->finished && choice->last != '\n') text += '\n';
  if (ok_ && !text.empty()) ok_ = write_(text);
}

}  // namespace lacuna
