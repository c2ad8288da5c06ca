#include <algorithm>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/segmenter.h"

namespace lacuna {
namespace {

// Text in the list of symbols, which joins shrink. `text` is empty once the symbol is joined to
// the one before it.
struct Symbol {
  std::string_view text;
  int32_t previous;  // -1: none
  int32_t next;      // -1: none
  bool fixed;        // a user-defined symbol
};

// Two neighbours that join to a piece of `size` bytes.
struct Join {
  float score;
  int32_t left;
  int32_t right;
  size_t size;

  // The best join is the largest: by score, then the leftmost.
  bool operator<(const Join& other) const {
    return score < other.score || (score == other.score && left > other.left);
  }
};

class BpeSegmenter : public Segmenter {
 public:
  BpeSegmenter(const SentencePieceModel& model, const PrefixIndex& user_defined)
      : model_(model), user_defined_(user_defined) {
    ids_.reserve(model.pieces.size());
    for (int32_t id = 0; id < static_cast<int32_t>(model.pieces.size()); ++id) {
      const Piece& piece = model.pieces[id];
      if (!piece.is_text()) continue;
      ids_.emplace(piece.text, id);
      longest_ = std::max(longest_, piece.text.size());
    }
  }

  std::vector<Segment> Cut(std::string_view normalized) const override {
    std::vector<Symbol> symbols = Split(normalized);
    std::priority_queue<Join> joins;
    UnusedParts unused_parts;
    const auto add_join = [&](int32_t left, int32_t right) {
      if (left >= 0 && right >= 0) AddJoin(symbols, left, right, &joins, &unused_parts);
    };
    for (int32_t i = 1; i < static_cast<int32_t>(symbols.size()); ++i) add_join(i - 1, i);

    while (!joins.empty()) {
      const Join join = joins.top();
      joins.pop();
      Symbol& left = symbols[join.left];
      Symbol& right = symbols[join.right];
      // Either has been joined to another since.
      if (left.text.empty() || right.text.empty() ||
          left.text.size() + right.text.size() != join.size) {
        continue;
      }
      left.text = std::string_view(left.text.data(), join.size);
      left.next = right.next;
      if (right.next >= 0) symbols[right.next].previous = join.left;
      right.text = {};
      add_join(left.previous, join.left);
      add_join(join.left, left.next);
    }

    std::vector<Segment> segments;
    for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
      Emit(symbols[i].text, unused_parts, &segments);
    }
    return segments;
  }

 private:
  // How a piece of type kUnused was joined, by its text.
  using UnusedParts =
      absl::flat_hash_map<std::string_view, std::pair<std::string_view, std::string_view>>;

  // Characters and user-defined symbols.
  std::vector<Symbol> Split(std::string_view text) const {
    std::vector<Symbol> symbols;
    symbols.reserve(text.size());
    while (!text.empty()) {
      const size_t matched = user_defined_.LongestMatch(text);
      const size_t length = matched > 0 ? matched : Utf8CharLength(text);
      const auto index = static_cast<int32_t>(symbols.size());
      symbols.push_back({.text = text.substr(0, length),
                         .previous = index - 1,
                         .next = length == text.size() ? -1 : index + 1,
                         .fixed = matched > 0});
      text.remove_prefix(length);
    }
    return symbols;
  }

  void AddJoin(const std::vector<Symbol>& symbols, int32_t left, int32_t right,
               std::priority_queue<Join>* joins, UnusedParts* unused_parts) const {
    const Symbol& a = symbols[left];
    const Symbol& b = symbols[right];
    const size_t size = a.text.size() + b.text.size();
    if (a.fixed || b.fixed || size > longest_) return;
    const std::string_view joined(a.text.data(), size);
    const auto it = ids_.find(joined);
    if (it == ids_.end()) return;
    const Piece& piece = model_.pieces[it->second];
    joins->push({.score = piece.score, .left = left, .right = right, .size = size});
    if (piece.type == PieceType::kUnused) (*unused_parts)[joined] = {a.text, b.text};
  }

  // Appends `text` as one segment or, if its piece is of type kUnused, the parts it came from.
  void Emit(std::string_view text, const UnusedParts& unused_parts,
            std::vector<Segment>* segments) const {
    const auto it = ids_.find(text);
    const int32_t id = it == ids_.end() ? model_.unk_id : it->second;
    if (model_.pieces[id].type == PieceType::kUnused) {
      const auto parts = unused_parts.find(text);
      if (parts != unused_parts.end()) {  // each part is shorter: at most kMaxPieceBytes levels
        Emit(parts->second.first, unused_parts, segments);
        Emit(parts->second.second, unused_parts, segments);
        return;
      }
    }
    segments->push_back({text, id});
  }

  const SentencePieceModel& model_;
  const PrefixIndex& user_defined_;
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // of the pieces that are text
  size_t longest_ = 0;                                  // bytes
};

}  // namespace

std::unique_ptr<Segmenter> MakeBpeSegmenter(const SentencePieceModel& model,
                                            const PrefixIndex& user_defined) {
  return std::make_unique<BpeSegmenter>(model, user_defined);
}

}  // namespace lacuna
