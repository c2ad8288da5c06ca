#include "runtime/engine/sequence.h"

#include <string>

#include "gtest/gtest.h"
#include "tests/runtime/engine/engine_harness.h"

namespace lacuna {
namespace {

TEST(SequenceTest, OnlyTokensWhosePromptLogitsAreWantedLimitAChunk) {
  const FakeTokenizer tokenizer;
  GenerationRequest spec = GreedyRequest(std::string(100, 'q'), 4);
  spec.prompt_logprobs = 0;
  ActiveRequest request(1, spec, &tokenizer);
  Sequence& sequence = *request.choices[0];
  int32_t rows = 32;
  EXPECT_EQ(sequence.ChunkLimit(0, &rows), 32);
  EXPECT_EQ(sequence.wanted_logits(32), 32);
  EXPECT_EQ(rows, 0);
  EXPECT_EQ(sequence.ChunkLimit(0, &rows), 1);  // it always gets on

  request.prompt_infos.resize(61);  // was preempted: 60 positions have given their logits
  rows = 32;
  EXPECT_EQ(sequence.ChunkLimit(0, &rows), 60 + 32);
  EXPECT_EQ(sequence.wanted_logits(60 + 32), 32);
  EXPECT_EQ(rows, 0);
  rows = 32;
  EXPECT_EQ(sequence.ChunkLimit(48, &rows), 12 + 32);
  rows = 100;
  EXPECT_EQ(sequence.ChunkLimit(48, &rows), 100 - 48);
  EXPECT_EQ(rows, 100 - 40);

  request.prompt_infos.resize(100);
  rows = 0;
  EXPECT_EQ(sequence.ChunkLimit(0, &rows), 100);
  EXPECT_EQ(rows, 0);
}

}  // namespace
}  // namespace lacuna
