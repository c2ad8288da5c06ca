#ifndef LACUNA_RUNTIME_TOKENIZER_BPE_MODEL_H_
#define LACUNA_RUNTIME_TOKENIZER_BPE_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace lacuna {

// Limits on what a file may bring. The largest vocabularies in use have about 260,000 tokens; the
// longest token seen is 1,024 NUL bytes, spelt in 2,048.
inline constexpr int32_t kMaxTokenId = (1 << 20) - 1;
inline constexpr size_t kMaxTokenBytes = 4096;

// What a BPE model is made of, wherever it was read.
struct BpeSpec {
  // True: tokens are bytes, spelt in GPT-2's alphabet (see FromByteLevel). False: UTF-8 text.
  bool byte_level = false;
  std::vector<std::pair<std::string, int32_t>> vocab;       // tokens and ids
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::string unk_token;                                    // empty: unknown text is left out
  bool fuse_unk = false;  // one unknown token for a run of unknown characters of a word
  bool byte_fallback =
      false;  // unknown characters become tokens <0x00> ... <0xFF>, if there are any
  bool ignore_merges = false;  // a word that is a token needs no merges
};

// Byte-pair encoding by ranked merges (Sennrich et al., arXiv 1508.07909), with the results of
// Hugging Face's `tokenizers`. Immutable and thread-safe.
class BpeModel {
 public:
  // INVALID_ARGUMENT if a token is empty, longer than kMaxTokenBytes or there twice, an id is out
  // of [0, kMaxTokenId] or used twice, a merge or the unknown token names no token, or only some of
  // the 256 byte tokens are there.
  static absl::StatusOr<BpeModel> Create(const BpeSpec& spec);

  // Appends the ids of one word: bytes, or valid UTF-8 if not at byte level. Of all neighbours that
  // merge, the pair of the best rank, then the leftmost, is merged until none is left: O(n log n).
  void Encode(std::string_view word, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t id;  // what the pair becomes
  };
  // A token on its way to longer ones, in a list.
  struct Symbol {
    int32_t id;  // kMerged: part of the one before it
    int32_t previous;
    int32_t next;
  };
  struct Candidate;
  using Spellings = absl::flat_hash_map<std::string_view, int32_t>;

  static constexpr int32_t kMerged = -1;

  BpeModel() = default;
  absl::Status AddVocab(const BpeSpec& spec, Spellings* spellings);
  absl::Status AddMerges(const BpeSpec& spec, const Spellings& spellings);
  absl::Status AddUnknown(const BpeSpec& spec, const Spellings& spellings);

  // The ids of the bytes or characters of a word.
  std::vector<int32_t> Units(std::string_view word) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;

  bool byte_level_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  int32_t unk_id_ = -1;
  std::vector<int32_t> byte_ids_;                  // fallbacks, by byte; empty without them
  absl::flat_hash_map<std::string, int32_t> ids_;  // by bytes or text
  absl::flat_hash_map<uint64_t, Merge> merges_;    // by both ids
};

// GPT-2's alphabet writes each byte as a printable character: printable ASCII and Latin-1 as they
// are, the others, in order, as U+0100 and up; so a space is U+0120. False, and `*bytes` is
// undefined, if `token` has a character that is not in it.
bool FromByteLevel(std::string_view token, std::string* bytes);

// The byte that a token spelt <0x00> to <0xFF> stands for, or -1.
int FallbackByte(std::string_view token);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_BPE_MODEL_H_
