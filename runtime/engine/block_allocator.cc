#include "runtime/engine/block_allocator.h"

#include <algorithm>
#include <cassert>

#include "absl/strings/str_cat.h"

namespace lacuna {

BlockAllocator::BlockAllocator(int32_t num_blocks) : blocks_(num_blocks) {
  for (int32_t block = 0; block < num_blocks; ++block) {
    blocks_[block].free_position = free_.insert(free_.end(), block);
  }
}

int32_t BlockAllocator::Allocate() {
  assert(!free_.empty());
  const int32_t id = free_.front();
  Block& block = blocks_[id];
  if (block.key) {
    registered_.erase(*block.key);
    block.key.reset();
    block.content = 0;
  }
  Ref(id);
  return id;
}

void BlockAllocator::Ref(int32_t block) {
  if (blocks_[block].references++ == 0) free_.erase(blocks_[block].free_position);
}

void BlockAllocator::Unref(int32_t id) {
  Block& block = blocks_[id];
  assert(block.references > 0);
  if (--block.references > 0) return;
  block.free_position = free_.insert(block.key ? free_.end() : free_.begin(), id);
}

BlockAllocator::Key BlockAllocator::MakeKey(std::string_view tenant, ContentId parent,
                                            absl::Span<const int32_t> tokens) {
  Key key;
  key.parent = parent;
  if (parent == 0) key.tenant = tenant;
  std::copy_n(tokens.begin(), KvCache::kBlockSize, key.tokens.begin());
  return key;
}

BlockAllocator::Prefix BlockAllocator::Find(std::string_view tenant,
                                            absl::Span<const int32_t> tokens,
                                            int32_t max_tokens) const {
  Prefix prefix;
  const size_t limit = std::min<size_t>(tokens.size(), std::max(max_tokens, 0));
  for (size_t end = KvCache::kBlockSize; end <= limit; end += KvCache::kBlockSize) {
    const auto it = registered_.find(
        MakeKey(tenant, prefix.content, tokens.subspan(end - KvCache::kBlockSize)));
    if (it == registered_.end()) break;
    const Block& block = blocks_[it->second];
    prefix.blocks.push_back(it->second);
    prefix.content = block.content;
    prefix.unreferenced += block.references == 0;
  }
  return prefix;
}

ContentId BlockAllocator::Register(std::string_view tenant, ContentId parent,
                                   absl::Span<const int32_t> tokens, int32_t id) {
  Block& block = blocks_[id];
  assert(block.references > 0 && !block.key && tokens.size() == KvCache::kBlockSize);
  Key key = MakeKey(tenant, parent, tokens);
  const auto [it, inserted] = registered_.try_emplace(key, id);
  if (!inserted) return blocks_[it->second].content;
  block.key = std::move(key);
  block.content = ++last_content_;
  return block.content;
}

absl::Status BlockAllocator::CheckInvariants() const {
  std::vector<int32_t> in_free(blocks_.size(), 0);
  for (const int32_t block : free_) ++in_free[block];
  size_t keys = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    if (block.references < 0 || in_free[i] != (block.references == 0 ? 1 : 0)) {
      return absl::InternalError(absl::StrCat("block ", i, " has ", block.references,
                                              " references and is ", in_free[i],
                                              " times in the free list"));
    }
    if (!block.key) continue;
    ++keys;
    const auto it = registered_.find(*block.key);
    if (it == registered_.end() || it->second != static_cast<int32_t>(i)) {
      return absl::InternalError(absl::StrCat("block ", i, " is not found by its own key"));
    }
  }
  if (keys != registered_.size()) {
    return absl::InternalError(
        absl::StrCat(registered_.size(), " registered keys for ", keys, " blocks"));
  }
  return absl::OkStatus();
}

}  // namespace lacuna
