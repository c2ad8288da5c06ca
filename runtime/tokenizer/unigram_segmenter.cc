#include <algorithm>
#include <limits>

#include "runtime/base/utf8.h"
#include "runtime/tokenizer/segmenter.h"

namespace lacuna {
namespace {

// The library takes this from the least score for a character that no piece is.
constexpr float kUnknownPenalty = 10.0f;

// The best way to cut the text up to here.
struct Best {
  float score = 0.0f;
  int32_t id = -1;     // of the last piece
  int64_t begin = -1;  // where the last piece begins; -1: not reached yet
};

class UnigramSegmenter : public Segmenter {
 public:
  explicit UnigramSegmenter(const SentencePieceModel& model)
      : model_(model), index_(TextPieces(model)) {
    float least = std::numeric_limits<float>::max();
    for (const Piece& piece : model.pieces) {
      if (piece.type != PieceType::kNormal) continue;
      least = std::min(least, piece.score);
      largest_ = std::max(largest_, piece.score);
    }
    unknown_score_ = least - kUnknownPenalty;
  }

  std::vector<Segment> Cut(std::string_view text) const override {
    std::vector<Best> best(text.size() + 1);
    for (size_t begin = 0; begin < text.size();) {
      const float before = best[begin].score;
      const size_t char_end = begin + Utf8CharLength(text.substr(begin));
      // Scores are added as the library adds them: in double where a user-defined symbol's bonus
      // makes it so, kept as float.
      const auto offer = [&](size_t end, int32_t id, double score) {
        Best& target = best[end];
        if (target.begin >= 0 && score <= target.score) return;
        target = {static_cast<float>(score), id, static_cast<int64_t>(begin)};
      };
      bool has_char = false;
      PrefixIndex::Cursor cursor(index_);
      for (size_t end = begin; end < text.size() && cursor.Advance(text[end]);) {
        ++end;
        const int32_t id = cursor.id();
        if (id < 0) continue;
        offer(end, id, Score(id, end - begin) + before);
        has_char |= end == char_end;
      }
      if (!has_char) offer(char_end, model_.unk_id, unknown_score_ + before);
      begin = char_end;
    }

    std::vector<Segment> segments;
    for (size_t end = text.size(); end > 0;) {
      const auto begin = static_cast<size_t>(best[end].begin);
      segments.push_back({text.substr(begin, end - begin), best[end].id});
      end = begin;
    }
    std::reverse(segments.begin(), segments.end());
    return segments;
  }

 private:
  static std::vector<PrefixIndex::Entry> TextPieces(const SentencePieceModel& model) {
    std::vector<PrefixIndex::Entry> entries;
    for (int32_t id = 0; id < static_cast<int32_t>(model.pieces.size()); ++id) {
      const Piece& piece = model.pieces[id];
      if (piece.is_text() && piece.type != PieceType::kUnused) entries.emplace_back(piece.text, id);
    }
    return entries;
  }

  // A user-defined symbol scores more than any cut of its bytes.
  double Score(int32_t id, size_t bytes) const {
    const Piece& piece = model_.pieces[id];
    if (piece.type != PieceType::kUserDefined) return piece.score;
    return static_cast<float>(bytes) * largest_ - 0.1;
  }

  const SentencePieceModel& model_;
  const PrefixIndex index_;
  float largest_ = std::numeric_limits<float>::min();
  float unknown_score_ = 0.0f;
};

}  // namespace

std::unique_ptr<Segmenter> MakeUnigramSegmenter(const SentencePieceModel& model) {
  return std::make_unique<UnigramSegmenter>(model);
}

}  // namespace lacuna
