#ifndef LACUNA_TESTS_FAKES_FAKE_MODEL_H_
#define LACUNA_TESTS_FAKES_FAKE_MODEL_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/model/model.h"

namespace lacuna {

// A model without weights whose logits depend on every token of the sequence, as it reads them back
// from the KV cache: each position stores its token, its number and a hash of all tokens so far.
// Forward answers INTERNAL if an earlier position does not hold what must be there or if a chunk is
// empty, so a mistake with blocks or the prefix cache shows as an error, and a wrong but consistent
// prefix as wrong tokens.
//
// One layer with kFfnSize ReLU neurons, of which an eighth are said to be active.
class FakeModel : public Model {
 public:
  static constexpr int32_t kFfnSize = 64;

  explicit FakeModel(int32_t vocab_size = 258, int32_t max_context = 1024);

  // Called first by each Forward; an error becomes its result. Set before the first Forward.
  std::function<absl::Status(absl::Span<const SequenceChunk> chunks, FfnMode mode)> on_forward;
  // Logits of the token after `history`; `logits` [vocab_size] are 0. Default: pseudo-random, with
  // letters and the space of FakeTokenizer in front. Set before the first Forward.
  std::function<void(absl::Span<const int32_t> history, absl::Span<float> logits)> logits_after;

  ModelConfig& mutable_config() { return config_; }
  ModelFacts& mutable_facts() { return facts_; }
  const ModelConfig& config() const override { return config_; }
  const ModelFacts& facts() const override { return facts_; }
  absl::StatusOr<ForwardOutput> Forward(absl::Span<const SequenceChunk> chunks, FfnMode mode,
                                        KvCache* cache) override;

 private:
  ModelConfig config_;
  ModelFacts facts_;
  std::vector<float> logits_;
};

// Sets logits_after of a FakeModel such that the model says `script`, token by token, after any
// prompt of `prompt_tokens` tokens, and then repeats its last token.
void SayAfter(FakeModel* model, int32_t prompt_tokens, std::vector<int32_t> script);

}  // namespace lacuna

#endif  // LACUNA_TESTS_FAKES_FAKE_MODEL_H_
