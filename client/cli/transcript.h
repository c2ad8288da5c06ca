#ifndef LACUNA_CLIENT_CLI_TRANSCRIPT_H_
#define LACUNA_CLIENT_CLI_TRANSCRIPT_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lacuna {

// What was said in a chat, as one text that the model continues. Not thread-safe.
class Transcript {
 public:
  using Tokenizer = absl::FunctionRef<absl::StatusOr<std::vector<uint32_t>>(const std::string&)>;

  // A turn is `user_prefix` + line + newline + `reply_prefix` + reply + newline.
  Transcript(std::string user_prefix, std::string reply_prefix)
      : user_prefix_(std::move(user_prefix)), reply_prefix_(std::move(reply_prefix)) {}

  void AddLine(absl::string_view line);
  void AddReply(absl::string_view reply);
  void RemoveLastTurn();  // if there is one
  void Clear() { turns_.clear(); }

  // The tokens of the transcript, after the oldest turns were forgotten so that at most
  // `max_tokens` remain. INVALID_ARGUMENT if the last turn alone is longer.
  absl::StatusOr<std::vector<uint32_t>> Tokens(uint32_t max_tokens, Tokenizer tokenize);

 private:
  const std::string user_prefix_;
  const std::string reply_prefix_;
  std::deque<std::string> turns_;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_TRANSCRIPT_H_
