#include "runtime/model/cuda_pass.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention.h"

namespace lacuna {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr int64_t kMaxTokens = 100;
constexpr int64_t kStride = 8;

// Chunks of one step, and the memory of its inputs.
class CudaPassTest : public ::testing::Test {
 protected:
  CudaPassTest() { std::iota(ids_.begin(), ids_.end(), 0); }
  SequenceChunk Chunk(int tokens, int first_position, int logits) {
    SequenceChunk chunk;
    chunk.tokens = absl::MakeConstSpan(ids_).subspan(next_, tokens);
    next_ += tokens;
    chunk.first_position = first_position;
    chunk.block_table = blocks_;
    chunk.logits = logits;
    return chunk;
  }
  CudaPass Plan(const std::vector<SequenceChunk>& chunks) {
    const auto passes = CutIntoPasses(chunks, kMaxTokens);
    EXPECT_EQ(passes.size(), 1u);
    return PlanPass(passes[0], kStride, inputs_);
  }
  static std::vector<int32_t> Values(const int32_t* from, int64_t n) { return {from, from + n}; }

  std::vector<int32_t> ids_ = std::vector<int32_t>(1000);
  const std::vector<int32_t> blocks_ = {7, 3, 5};
  int next_ = 0;
  std::vector<int32_t> memory_ =
      std::vector<int32_t>(CudaPassInputs::Size(kMaxTokens, kMaxTokens, kStride), -77);
  const CudaPassInputs inputs_ = CudaPassInputs::At(memory_.data(), kMaxTokens);
};

TEST_F(CudaPassTest, DecodingTokensArePaddedToABucket) {
  const CudaPass pass = Plan({Chunk(1, 4, 1), Chunk(1, 0, 1), Chunk(1, 33, 1)});
  EXPECT_TRUE(pass.repeatable);
  EXPECT_EQ(pass.tokens, 4);
  EXPECT_EQ(pass.logit_rows, 4);
  EXPECT_EQ(pass.sequences, 3);
  ASSERT_EQ(pass.runs.size(), 1u);
  EXPECT_EQ(pass.runs[0].tokens, 4);
  EXPECT_EQ(pass.runs[0].tiles, 0);
  EXPECT_THAT(Values(inputs_.ids, 4), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(Values(inputs_.positions, 4), ElementsAre(4, 0, 33, -1));
  EXPECT_THAT(Values(inputs_.sequences, 4), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(Values(inputs_.logit_tokens, 4), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(Values(inputs_.block_tables + 2 * kStride, 3), ElementsAreArray(blocks_));
}

TEST_F(CudaPassTest, BucketsArePowersOfTwo) {
  for (int64_t tokens = 1; tokens <= kMaxBucket; ++tokens) {
    const int64_t bucket = int64_t{1} << BucketIndex(tokens);
    EXPECT_GE(bucket, tokens);
    EXPECT_LT(bucket / 2, tokens);
  }
  EXPECT_EQ(BucketIndex(kMaxBucket), kNumBuckets - 1);
}

TEST_F(CudaPassTest, TilesCoverEachPromptByItself) {
  const CudaPass pass =
      Plan({Chunk(1, 9, 1), Chunk(17, 2, 1), Chunk(2, 0, 0), Chunk(1, 5, 0), Chunk(16, 0, 3)});
  EXPECT_FALSE(pass.repeatable);
  EXPECT_EQ(pass.tokens, 37);
  ASSERT_EQ(pass.runs.size(), 4u);
  const auto tiles = [&](const CudaAttentionRun& run) {
    return Values(inputs_.tile_begins + run.first_tile, run.tiles + 1);
  };
  EXPECT_EQ(pass.runs[0].tiles, 0);
  EXPECT_EQ(pass.runs[0].first_token, 0);
  EXPECT_EQ(pass.runs[0].tokens, 1);
  EXPECT_THAT(tiles(pass.runs[1]), ElementsAre(1, 17, 18, 20));
  EXPECT_EQ(pass.runs[2].tiles, 0);
  EXPECT_EQ(pass.runs[2].first_token, 20);
  EXPECT_THAT(tiles(pass.runs[3]), ElementsAre(21, 37));
  EXPECT_EQ(pass.logit_rows, 5);
  EXPECT_THAT(Values(inputs_.logit_tokens, 5), ElementsAre(0, 17, 34, 35, 36));
  EXPECT_EQ(inputs_.positions[17], 18);
  EXPECT_EQ(inputs_.sequences[17], 1);
}

TEST_F(CudaPassTest, LongStepsAreCutAndKeepTheirRowsOfLogits) {
  const std::vector<SequenceChunk> chunks = {Chunk(60, 0, 1), Chunk(150, 10, 100)};
  const auto passes = CutIntoPasses(chunks, kMaxTokens);
  ASSERT_EQ(passes.size(), 3u);
  ASSERT_EQ(passes[0].size(), 2u);
  EXPECT_EQ(passes[0][0].chunk.logits, 1);
  EXPECT_EQ(passes[0][1].index, 1);
  EXPECT_EQ(passes[0][1].chunk.tokens.size(), 40u);
  EXPECT_EQ(passes[0][1].chunk.logits, 0);
  EXPECT_EQ(passes[1][0].chunk.tokens.size(), 100u);
  EXPECT_EQ(passes[1][0].chunk.tokens[0], 100);
  EXPECT_EQ(passes[1][0].chunk.first_position, 50);
  EXPECT_EQ(passes[1][0].chunk.logits, 90) << "the last 100 of 150: all but the first 10 here";
  EXPECT_EQ(passes[2][0].chunk.tokens.size(), 10u);
  EXPECT_EQ(passes[2][0].chunk.logits, 10);
}

}  // namespace
}  // namespace lacuna
