#ifndef LACUNA_RUNTIME_TOKENIZER_SEGMENTER_H_
#define LACUNA_RUNTIME_TOKENIZER_SEGMENTER_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/prefix_index.h"
#include "runtime/tokenizer/sentencepiece_model.h"

namespace lacuna {

// A piece of a normalised text; `id` is the unknown piece's if no piece is spelt like `text`.
struct Segment {
  std::string_view text;
  int32_t id;
};

// Cuts normalised UTF-8 into pieces, as the SentencePiece library does. Immutable and thread-safe;
// keeps references to the arguments of the factory, which must outlive it.
class Segmenter {
 public:
  virtual ~Segmenter() = default;
  virtual std::vector<Segment> Cut(std::string_view normalized) const = 0;
};

// Byte-pair encoding (Sennrich et al., arXiv 1508.07909): of all neighbours that join to a piece,
// the pair with the best score, then the leftmost, is joined until none is left. O(n log n).
// `user_defined` symbols are never cut or joined.
std::unique_ptr<Segmenter> MakeBpeSegmenter(const SentencePieceModel& model,
                                            const PrefixIndex& user_defined);

// Unigram language model (Kudo, arXiv 1804.10959): the cut with the largest sum of scores, by
// Viterbi's algorithm. O(n * longest piece).
std::unique_ptr<Segmenter> MakeUnigramSegmenter(const SentencePieceModel& model);

}  // namespace lacuna

#endif  // LACUNA_RUNTIME_TOKENIZER_SEGMENTER_H_
