#ifndef LACUNA_RUNTIME_ENGINE_BLOCK_ALLOCATOR_H_
#define LACUNA_RUNTIME_ENGINE_BLOCK_ALLOCATOR_H_

#include <array>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/model/kv_cache.h"

namespace lacuna {

// Names what a cached block holds: its tokens and all tokens before them. Never reused, so a block
// that was evicted cannot be mistaken for its successor. 0 is the empty prefix.
using ContentId = uint64_t;

// Which KV block belongs to whom: ids only, the storage is KvCache's.
//
// A block is referenced by any number of sequences, or free. A full block can be registered with
// its content; it then stays findable after the last reference is gone, until Allocate takes it
// (least recently released first, never-registered blocks before all). Matches are exact: whole
// token chains and the tenant are compared, not only hashes.
//
// Not thread-safe: for the engine thread.
class BlockAllocator {
 public:
  // A run of cached blocks, from position 0 on.
  struct Prefix {
    std::vector<int32_t> blocks;
    ContentId content = 0;     // of the last block
    int32_t unreferenced = 0;  // how many of `blocks` are free now
  };

  explicit BlockAllocator(int32_t num_blocks);

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  // Without reference, registered or not: what Allocate can hand out.
  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }
  int32_t references(int32_t block) const { return blocks_[block].references; }

  // Takes a free block with one reference. Needs free_blocks() > 0.
  int32_t Allocate();
  // Adds a reference to a block, free ones from Find included.
  void Ref(int32_t block);
  // Drops a reference. Drop those of a sequence last block first: its tail is evicted first.
  void Unref(int32_t block);

  // Longest registered prefix of `tokens` of this tenant, at most `max_tokens` tokens long. Takes
  // no references.
  Prefix Find(std::string_view tenant, absl::Span<const int32_t> tokens, int32_t max_tokens) const;

  // Makes referenced `block` findable as `tokens` (kBlockSize of them) after `parent`. Returns
  // the content's id; if another block holds the same content, that block's, and `block` is not
  // registered.
  ContentId Register(std::string_view tenant, ContentId parent, absl::Span<const int32_t> tokens,
                     int32_t block);

  // INTERNAL, saying what is wrong, unless every block is in exactly one state. For tests.
  absl::Status CheckInvariants() const;

 private:
  struct Key {
    ContentId parent = 0;
    std::string tenant;  // of a first block; later ones are told apart by their parents
    std::array<int32_t, KvCache::kBlockSize> tokens{};

    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& key) {
      return H::combine(std::move(h), key.parent, key.tenant, key.tokens);
    }
  };
  struct Block {
    int32_t references = 0;
    std::list<int32_t>::iterator free_position;  // if references == 0
    ContentId content = 0;                       // if registered
    std::optional<Key> key;                      // if registered
  };

  static Key MakeKey(std::string_view tenant, ContentId parent, absl::Span<const int32_t> tokens);

  std::vector<Block> blocks_;
  std::list<int32_t> free_;  // the next one to hand out first
  absl::flat_hash_map<Key, int32_t> registered_;
  ContentId last_content_ = 0;
};

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_ENGINE_BLOCK_ALLOCATOR_H_
