#include "client/cli/transcript.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lacuna {

void Transcript::AddLine(absl::string_view line) {
  turns_.push_back(absl::StrCat(user_prefix_, line, "\n", reply_prefix_));
}

void Transcript::AddReply(absl::string_view reply) { absl::StrAppend(&turns_.back(), reply, "\n"); }

void Transcript::RemoveLastTurn() {
  if (!turns_.empty()) turns_.pop_back();
}

absl::StatusOr<std::vector<uint32_t>> Transcript::Tokens(uint32_t max_tokens, Tokenizer tokenize) {
  while (true) {
    absl::StatusOr<std::vector<uint32_t>> ids = tokenize(absl::StrJoin(turns_, ""));
    if (!ids.ok() || ids->size() <= max_tokens) return ids;
    if (turns_.size() <= 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("this has ", ids->size(), " tokens, and there is room for ", max_tokens));
    }
    turns_.pop_front();
  }
}

}  // namespace lacuna
