#include "client/cli/stats.h"

#include "absl/strings/str_format.h"
#include "client/describe_error.h"

namespace lacuna {

std::string StatsText(const v1::Started& started, const std::vector<v1::Finished>& finished) {
  std::string text = absl::StrFormat("model %s, seed %d, prompt %d tokens\n", started.model(),
                                     started.seed(), started.prompt_tokens());
  for (const v1::Finished& choice : finished) {
    if (finished.size() > 1) absl::StrAppendFormat(&text, "choice %d:\n", choice.index() + 1);
    const uint32_t tokens = choice.usage().completion_tokens();
    const v1::Timings& timings = choice.timings();
    absl::StrAppendFormat(&text, "completion %d tokens, finish reason %s", tokens,
                          v1::FinishReason_Name(choice.reason()));
    if (choice.usage().cached_tokens() > 0) {
      absl::StrAppendFormat(&text, ", %d prompt tokens from the cache",
                            choice.usage().cached_tokens());
    }
    absl::StrAppendFormat(&text, "\ntime to first token %.1f ms (queue %.1f, prefill %.1f)",
                          timings.ttft_ms(), timings.queue_ms(), timings.prefill_ms());
    if (tokens > 1 && timings.decode_ms() > 0) {
      absl::StrAppendFormat(&text, ", then %.1f tokens/s",
                            1000 * (tokens - 1) / timings.decode_ms());
    }
    absl::StrAppendFormat(&text, ", total %.1f ms\n", timings.total_ms());
    if (choice.has_sparsity()) {
      absl::StrAppendFormat(&text, "FFN sparsity %.2f %%\n",
                            100 * choice.sparsity().activation_sparsity());
    }
  }
  return PrintableText(text);
}

}  // namespace lacuna
