#ifndef LACUNA_RUNTIME_ENGINE_OUTPUT_TEXT_H_
#define LACUNA_RUNTIME_ENGINE_OUTPUT_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/engine/request.h"
#include "runtime/engine/stop_matcher.h"
#include "runtime/tokenizer/incremental_decoder.h"
#include "runtime/tokenizer/tokenizer.h"

namespace lacuna {

// The text of one choice: decodes its tokens, finds stop strings, and holds back what may still
// become part of one or of a UTF-8 sequence. What it releases is valid UTF-8 and never taken back.
// One sequence, one thread.
class OutputText {
 public:
  // Both must outlive this object.
  OutputText(const Tokenizer* tokenizer, const StoppingParams* stopping);

  // Adds the text of `token`; true if a stop string ends in it. Then all text before the stop
  // string (and the string itself with include_stop) is released, and nothing may follow.
  // With `may_stop` false a stop string that ends in this token is text like any other.
  bool Append(int32_t token, bool may_stop);
  // Releases what is held back, at the end of a sequence that no stop string ended.
  void Finish();

  // Text released since the last call.
  std::string Take();
  // The stop string that Append found.
  const std::string& matched_stop() const { return matched_stop_; }

 private:
  bool AppendText(std::string_view text, bool may_stop);

  const StoppingParams* const stopping_;
  IncrementalDecoder decoder_;
  StopMatcher matcher_;
  std::string pending_;  // released text that was not taken, then held text
  size_t released_ = 0;  // bytes of pending_ that are released
  std::string matched_stop_;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_OUTPUT_TEXT_H_
