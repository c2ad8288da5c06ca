#include "runtime/engine/block_allocator.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace lacuna {
namespace {

constexpr int32_t kSize = KvCache::kBlockSize;

std::vector<int32_t> Tokens(int32_t blocks, int32_t first = 0) {
  std::vector<int32_t> tokens(blocks * kSize);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Allocates and registers blocks that hold `tokens`.
std::vector<int32_t> Fill(BlockAllocator* allocator, const std::string& tenant,
                          const std::vector<int32_t>& tokens) {
  std::vector<int32_t> blocks;
  ContentId content = 0;
  for (size_t i = 0; i + kSize <= tokens.size(); i += kSize) {
    blocks.push_back(allocator->Allocate());
    content = allocator->Register(tenant, content, absl::MakeConstSpan(tokens).subspan(i, kSize),
                                  blocks.back());
  }
  return blocks;
}

void Release(BlockAllocator* allocator, const std::vector<int32_t>& blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) allocator->Unref(*it);
}

TEST(BlockAllocatorTest, HandsOutEachBlockOnce) {
  BlockAllocator allocator(5);
  std::set<int32_t> blocks;
  for (int i = 0; i < 5; ++i) blocks.insert(allocator.Allocate());
  EXPECT_EQ(blocks, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(allocator.free_blocks(), 0);
  for (const int32_t block : blocks) allocator.Unref(block);
  EXPECT_EQ(allocator.free_blocks(), 5);
  EXPECT_TRUE(allocator.CheckInvariants().ok());
}

TEST(BlockAllocatorTest, FreesABlockWithItsLastReference) {
  BlockAllocator allocator(1);
  const int32_t block = allocator.Allocate();
  allocator.Ref(block);
  allocator.Unref(block);
  EXPECT_EQ(allocator.free_blocks(), 0);
  allocator.Unref(block);
  EXPECT_EQ(allocator.free_blocks(), 1);
}

TEST(BlockAllocatorTest, FindsTheLongestRegisteredPrefix) {
  BlockAllocator allocator(8);
  const std::vector<int32_t> tokens = Tokens(3);
  const std::vector<int32_t> blocks = Fill(&allocator, "", tokens);

  std::vector<int32_t> query = Tokens(4);
  EXPECT_EQ(allocator.Find("", query, 64).blocks, blocks);
  query[2 * kSize] = 999;  // differs in its third block
  EXPECT_EQ(allocator.Find("", query, 64).blocks, (std::vector<int32_t>{blocks[0], blocks[1]}));
  query[0] = 999;
  EXPECT_TRUE(allocator.Find("", query, 64).blocks.empty());
}

TEST(BlockAllocatorTest, FindsNoMoreThanItMay) {
  BlockAllocator allocator(8);
  const std::vector<int32_t> tokens = Tokens(3);
  Fill(&allocator, "", tokens);
  EXPECT_EQ(allocator.Find("", tokens, 3 * kSize).blocks.size(), 3u);
  // A full hit leaves the last token, and so the last block, to compute.
  EXPECT_EQ(allocator.Find("", tokens, 3 * kSize - 1).blocks.size(), 2u);
  EXPECT_EQ(allocator.Find("", tokens, 0).blocks.size(), 0u);
  EXPECT_EQ(allocator.Find("", absl::MakeConstSpan(tokens).first(kSize - 1), 64).blocks.size(), 0u);
}

TEST(BlockAllocatorTest, DoesNotShareBetweenTenants) {
  BlockAllocator allocator(8);
  const std::vector<int32_t> tokens = Tokens(2);
  const std::vector<int32_t> a = Fill(&allocator, "a", tokens);
  EXPECT_TRUE(allocator.Find("b", tokens, 64).blocks.empty());
  const std::vector<int32_t> b = Fill(&allocator, "b", tokens);
  EXPECT_EQ(allocator.Find("a", tokens, 64).blocks, a);
  EXPECT_EQ(allocator.Find("b", tokens, 64).blocks, b);
}

TEST(BlockAllocatorTest, DoesNotFindABlockAfterAnotherPrefix) {
  BlockAllocator allocator(8);
  Fill(&allocator, "", Tokens(2));
  std::vector<int32_t> other = Tokens(1, 500);
  Fill(&allocator, "", other);
  const std::vector<int32_t> second = Tokens(1, kSize);  // the second block of the first chain
  other.insert(other.end(), second.begin(), second.end());
  EXPECT_EQ(allocator.Find("", other, 64).blocks.size(), 1u);
  EXPECT_TRUE(allocator.Find("", second, 64).blocks.empty());
}

TEST(BlockAllocatorTest, KeepsTheFirstOfTwoBlocksWithEqualContent) {
  BlockAllocator allocator(8);
  const std::vector<int32_t> tokens = Tokens(2);
  const std::vector<int32_t> first = Fill(&allocator, "", tokens);
  const std::vector<int32_t> second = Fill(&allocator, "", tokens);
  EXPECT_EQ(allocator.Find("", tokens, 64).blocks, first);
  Release(&allocator, first);
  Release(&allocator, second);
  EXPECT_EQ(allocator.free_blocks(), 8);
  EXPECT_TRUE(allocator.CheckInvariants().ok());
}

TEST(BlockAllocatorTest, ReleasedBlocksStayFindableUntilTakenLeastRecentlyReleasedFirst) {
  BlockAllocator allocator(4);
  const std::vector<int32_t> a = Tokens(2), b = Tokens(2, 1000);
  const std::vector<int32_t> a_blocks = Fill(&allocator, "", a);
  const std::vector<int32_t> b_blocks = Fill(&allocator, "", b);
  Release(&allocator, a_blocks);
  Release(&allocator, b_blocks);
  EXPECT_EQ(allocator.free_blocks(), 4);
  EXPECT_EQ(allocator.Find("", a, 64).unreferenced, 2);

  // Touching a makes b the least recently released; its tail goes first.
  for (const int32_t block : a_blocks) allocator.Ref(block);
  Release(&allocator, a_blocks);
  EXPECT_EQ(allocator.Allocate(), b_blocks[1]);
  EXPECT_EQ(allocator.Find("", b, 64).blocks, (std::vector<int32_t>{b_blocks[0]}));
  EXPECT_EQ(allocator.Allocate(), b_blocks[0]);
  EXPECT_TRUE(allocator.Find("", b, 64).blocks.empty());
  EXPECT_EQ(allocator.Find("", a, 64).blocks, a_blocks);
  EXPECT_TRUE(allocator.CheckInvariants().ok());
}

TEST(BlockAllocatorTest, TakesBlocksThatHoldNothingBeforeCachedOnes) {
  BlockAllocator allocator(2);
  const std::vector<int32_t> tokens = Tokens(1);
  const std::vector<int32_t> cached = Fill(&allocator, "", tokens);
  const int32_t plain = allocator.Allocate();
  Release(&allocator, cached);
  allocator.Unref(plain);
  EXPECT_EQ(allocator.Allocate(), plain);
  EXPECT_EQ(allocator.Find("", tokens, 64).blocks, cached);
}

TEST(BlockAllocatorTest, DoesNotFindTheSuccessorOfAnEvictedBlockByItsNewContent) {
  BlockAllocator allocator(3);
  const std::vector<int32_t> tokens = Tokens(2);
  const std::vector<int32_t> blocks = Fill(&allocator, "", tokens);
  allocator.Unref(blocks[0]);  // only the parent is free: not how the engine does it
  allocator.Allocate();
  EXPECT_EQ(allocator.Allocate(), blocks[0]);
  // The parent's id and content come back with other tokens, then the query asks for both.
  std::vector<int32_t> other = Tokens(1, 700);
  allocator.Register("", 0, other, blocks[0]);
  const std::vector<int32_t> second = Tokens(1, kSize);
  other.insert(other.end(), second.begin(), second.end());
  EXPECT_EQ(allocator.Find("", other, 64).blocks, (std::vector<int32_t>{blocks[0]}));
}

// Random use against a model that remembers what each block holds.
TEST(BlockAllocatorTest, NeverLosesOrMixesBlocks) {
  std::mt19937 random(7);
  BlockAllocator allocator(24);
  struct Held {
    std::string tenant;
    std::vector<int32_t> tokens, blocks;
  };
  std::vector<Held> held;
  std::vector<Held> content(24);  // by block: tenant and all tokens up to its end
  for (int step = 0; step < 20000; ++step) {
    if (random() % 2 == 0 && !held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      Release(&allocator, held.back().blocks);
      held.pop_back();
    } else {
      Held h{random() % 2 ? "a" : "b", {}, {}};
      const int32_t blocks = 1 + random() % 4;
      for (int32_t i = 0; i < blocks * kSize; ++i) {
        h.tokens.push_back(i % kSize == 0 ? static_cast<int32_t>(random() % 3) : 0);
      }
      const BlockAllocator::Prefix prefix = allocator.Find(h.tenant, h.tokens, blocks * kSize);
      if (blocks - static_cast<int32_t>(prefix.blocks.size()) + prefix.unreferenced >
          allocator.free_blocks()) {
        continue;
      }
      ContentId parent = prefix.content;
      for (int32_t i = 0; i < blocks; ++i) {
        const std::vector<int32_t> upto(h.tokens.begin(), h.tokens.begin() + (i + 1) * kSize);
        if (i < static_cast<int32_t>(prefix.blocks.size())) {
          const int32_t block = prefix.blocks[i];
          ASSERT_EQ(content[block].tenant, h.tenant);
          ASSERT_EQ(content[block].tokens, upto);
          allocator.Ref(block);
          h.blocks.push_back(block);
        }
      }
      for (int32_t i = h.blocks.size(); i < blocks; ++i) {
        const int32_t block = allocator.Allocate();
        const std::vector<int32_t> upto(h.tokens.begin(), h.tokens.begin() + (i + 1) * kSize);
        content[block] = {h.tenant, upto, {}};
        parent = allocator.Register(h.tenant, parent, absl::MakeConstSpan(upto).subspan(i * kSize),
                                    block);
        h.blocks.push_back(block);
      }
      held.push_back(h);
    }
    ASSERT_TRUE(allocator.CheckInvariants().ok()) << allocator.CheckInvariants();
  }
  for (const Held& h : held) Release(&allocator, h.blocks);
  EXPECT_EQ(allocator.free_blocks(), 24);
}

}  // namespace
}  // namespace lacuna
