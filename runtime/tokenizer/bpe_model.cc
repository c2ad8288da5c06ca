#include "runtime/tokenizer/bpe_model.h"

#include <algorithm>
#include <array>
#include <queue>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

// Abseil's containers know only their own view of a string.
absl::string_view ForAbseil(std::string_view text) { return {text.data(), text.size()}; }

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// Bytes by code point of GPT-2's alphabet; -1: not in it.
std::array<int16_t, 0x144> MakeByteLevelAlphabet() {
  std::array<int16_t, 0x144> bytes;
  bytes.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    bytes[printable ? byte : next++] = static_cast<int16_t>(byte);
  }
  return bytes;
}

}  // namespace

bool FromByteLevel(std::string_view token, std::string* bytes) {
  static const auto alphabet = MakeByteLevelAlphabet();
  bytes->clear();
  while (!token.empty()) {
    const int length = Utf8CharLength(token);
    if (length != 1 && length != 2) return false;
    const auto byte = [&](int i) { return static_cast<uint8_t>(token[i]); };
    const int code_point = length == 1 ? byte(0) : (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    if (code_point >= static_cast<int>(alphabet.size()) || alphabet[code_point] < 0) return false;
    *bytes += static_cast<char>(alphabet[code_point]);
    token.remove_prefix(length);
  }
  return true;
}

int FallbackByte(std::string_view token) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const size_t high = kDigits.find(token[3]);
  const size_t low = kDigits.find(token[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return -1;
  return static_cast<int>(high * 16 + low);
}

absl::StatusOr<BpeModel> BpeModel::Create(const BpeSpec& spec) {
  BpeModel model;
  model.byte_level_ = spec.byte_level;
  model.fuse_unk_ = spec.fuse_unk;
  model.ignore_merges_ = spec.ignore_merges;
  Spellings spellings;
  absl::Status status = model.AddVocab(spec, &spellings);
  if (status.ok()) status = model.AddMerges(spec, spellings);
  if (status.ok()) status = model.AddUnknown(spec, spellings);
  if (!status.ok()) return status;
  return model;
}

absl::Status BpeModel::AddVocab(const BpeSpec& spec, Spellings* spellings) {
  absl::flat_hash_set<int32_t> seen;
  spellings->reserve(spec.vocab.size());
  ids_.reserve(spec.vocab.size());
  std::string bytes;
  for (const auto& [token, id] : spec.vocab) {
    if (token.empty() || token.size() > kMaxTokenBytes) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " has ", token.size(),
                                                     " bytes, must be 1 to ", kMaxTokenBytes));
    }
    if (id < 0 || id > kMaxTokenId) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", Quoted(token), " has id ", id, ", the limit is ", kMaxTokenId));
    }
    if (!seen.insert(id).second) {
      return absl::InvalidArgumentError(absl::StrCat("two tokens have the id ", id));
    }
    if (!spellings->emplace(token, id).second) {
      return absl::InvalidArgumentError(absl::StrCat("token ", Quoted(token), " is there twice"));
    }
    // No text has bytes that are not in the alphabet, so such a token is never made of text.
    if (!spec.byte_level) {
      ids_.emplace(token, id);
    } else if (FromByteLevel(token, &bytes)) {
      ids_.emplace(bytes, id);
    }
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerges(const BpeSpec& spec, const Spellings& spellings) {
  merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    int32_t ids[3];
    const std::string joined = absl::StrCat(left, right);
    const std::string_view tokens[3] = {left, right, joined};
    for (int i = 0; i < 3; ++i) {
      const auto it = spellings.find(tokens[i]);
      if (it == spellings.end()) {
        return absl::InvalidArgumentError(absl::StrCat("merge ", rank, " names ", Quoted(tokens[i]),
                                                       ", which is not in the vocabulary"));
      }
      ids[i] = it->second;
    }
    merges_[PairKey(ids[0], ids[1])] = {.rank = static_cast<int32_t>(rank), .id = ids[2]};
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddUnknown(const BpeSpec& spec, const Spellings& spellings) {
  if (spec.byte_fallback) {
    for (int byte = 0; byte < 256; ++byte) {
      const auto it = spellings.find(absl::StrFormat("<0x%02X>", byte));
      if (it != spellings.end()) byte_ids_.push_back(it->second);
    }
    if (!byte_ids_.empty() && byte_ids_.size() != 256) {
      return absl::InvalidArgumentError(
          absl::StrCat("byte_fallback needs 256 byte tokens, ", byte_ids_.size(), " are there"));
    }
  }
  if (spec.unk_token.empty()) return absl::OkStatus();
  const auto it = spellings.find(spec.unk_token);
  if (it != spellings.end()) {
    unk_id_ = it->second;
  } else if (!spec.byte_level) {  // there, few files have it, and none needs it
    return absl::InvalidArgumentError(
        absl::StrCat("the unknown token ", Quoted(spec.unk_token), " is not in the vocabulary"));
  }
  return absl::OkStatus();
}

std::vector<int32_t> BpeModel::Units(std::string_view word) const {
  std::vector<int32_t> units;
  units.reserve(word.size());
  bool after_unknown = false;
  while (!word.empty()) {
    const std::string_view unit = word.substr(0, byte_level_ ? 1 : Utf8CharLength(word));
    word.remove_prefix(unit.size());
    const auto it = ids_.find(ForAbseil(unit));
    const bool known = it != ids_.end();
    if (known) {
      units.push_back(it->second);
    } else if (!byte_ids_.empty()) {
      for (const char c : unit) units.push_back(byte_ids_[static_cast<uint8_t>(c)]);
    } else if (unk_id_ >= 0 && !(fuse_unk_ && after_unknown)) {
      units.push_back(unk_id_);
    }
    after_unknown = !known;
  }
  return units;
}

const BpeModel::Merge* BpeModel::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

// Neighbours that can merge.
struct BpeModel::Candidate {
  Merge merge;
  int32_t left;  // index of the symbol

  // The best candidate is the largest: by rank, then the leftmost.
  bool operator<(const Candidate& other) const {
    return merge.rank > other.merge.rank || (merge.rank == other.merge.rank && left > other.left);
  }
};

void BpeModel::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    const auto it = ids_.find(ForAbseil(word));
    if (it != ids_.end()) return ids->push_back(it->second);
  }
  std::vector<Symbol> symbols;
  for (const int32_t id : Units(word)) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({.id = id, .previous = index - 1, .next = index + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  std::priority_queue<Candidate> candidates;
  const auto add_candidate = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Merge* merge = FindMerge(symbols[left].id, symbols[right].id);
    if (merge != nullptr) candidates.push({*merge, left});
  };
  for (int32_t i = 1; i < static_cast<int32_t>(symbols.size()); ++i) add_candidate(i - 1, i);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol& left = symbols[best.left];
    if (left.id == kMerged || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // Either has been merged since, unless they still become the same.
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != best.merge.id) continue;
    left.id = merge->id;
    left.next = right.next;
    right.id = kMerged;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    add_candidate(left.previous, best.left);
    add_candidate(best.left, left.next);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace lacuna
