#include "runtime/tokenizer/sentencepiece_tokenizer.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/base/file.h"
#include "runtime/base/utf8.h"
#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/prefix_index.h"
#include "runtime/tokenizer/segmenter.h"
#include "runtime/tokenizer/sentencepiece_model.h"
#include "runtime/tokenizer/text_normalizer.h"

namespace lacuna {
namespace {

std::vector<PrefixIndex::Entry> UserDefinedSymbols(const SentencePieceModel& model) {
  std::vector<PrefixIndex::Entry> entries;
  for (int32_t id = 0; id < static_cast<int32_t>(model.pieces.size()); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type == PieceType::kUserDefined) entries.emplace_back(piece.text, id);
  }
  return entries;
}

std::vector<AddedToken> ControlTokens(const SentencePieceModel& model) {
  std::vector<AddedToken> tokens;
  for (int32_t id = 0; id < static_cast<int32_t>(model.pieces.size()); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type != PieceType::kControl) continue;
    tokens.push_back({.content = piece.text, .id = id, .special = true});
  }
  return tokens;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, bool add_bos)
      : model_(std::move(model)),
        add_bos_(add_bos),
        user_defined_(UserDefinedSymbols(model_)),
        control_(ControlTokens(model_)) {
    segmenter_ = model_.algorithm == SentencePieceModel::Algorithm::kBpe
                     ? MakeBpeSegmenter(model_, user_defined_)
                     : MakeUnigramSegmenter(model_);
    token_bytes_.reserve(model_.pieces.size());
    for (const Piece& piece : model_.pieces) {
      token_bytes_.push_back(absl::StrReplaceAll(piece.text, {{kSpaceSymbol, " "}}));
      if (piece.type == PieceType::kControl) token_bytes_.back().clear();
      if (piece.type == PieceType::kUnknown) token_bytes_.back() = model_.unk_surface;
    }
    if (!model_.byte_fallback) return;
    for (int byte = 0; byte < 256; ++byte) {
      token_bytes_[model_.byte_ids[byte]] = std::string(1, static_cast<char>(byte));
    }
  }

  // To be called once, before anything else.
  absl::Status Init() {
    absl::StatusOr<TextNormalizer> normalizer = TextNormalizer::Create(model_, &user_defined_);
    if (normalizer.ok()) normalizer_ = std::make_unique<TextNormalizer>(*std::move(normalizer));
    return normalizer.status();
  }

  const char* kind() const override {
    return model_.algorithm == SentencePieceModel::Algorithm::kBpe ? "SentencePiece BPE"
                                                                   : "SentencePiece unigram";
  }
  int32_t vocab_size() const override { return static_cast<int32_t>(model_.pieces.size()); }
  int32_t bos_id() const override { return model_.bos_id; }
  int32_t eos_id() const override { return model_.eos_id; }
  std::string_view TokenBytes(int32_t id) const override { return token_bytes_[id]; }
  bool IsControl(int32_t id) const override {
    return model_.pieces[id].type == PieceType::kControl;
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special) const override {
    if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
    std::vector<int32_t> ids;
    if (add_special && add_bos_ && model_.bos_id >= 0) ids.push_back(model_.bos_id);
    const absl::StatusOr<std::string> normalized = normalizer_->Normalize(text);
    if (!normalized.ok()) return normalized.status();
    bool after_unknown = false;
    for (const Segment& segment : segmenter_->Cut(*normalized)) {
      const bool unknown = segment.id == model_.unk_id;
      if (unknown && model_.byte_fallback) {
        for (const char c : segment.text) {
          ids.push_back(model_.byte_ids[static_cast<unsigned char>(c)]);
        }
      } else if (!unknown || !after_unknown) {  // a run of unknown text is one token
        ids.push_back(segment.id);
      }
      after_unknown = unknown;
    }
    return ids;
  }

  absl::StatusOr<std::vector<int32_t>> EncodeMarkup(
      std::string_view text, absl::Span<const ByteRange> literal) const override {
    if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
    std::vector<int32_t> ids;
    for (const auto& [range, id] : control_.Split(text, literal)) {
      if (id >= 0) {
        ids.push_back(id);
        continue;
      }
      const auto part = Encode(text.substr(range.begin, range.end - range.begin), false);
      if (!part.ok()) return part.status();
      ids.insert(ids.end(), part->begin(), part->end());
    }
    return ids;
  }

  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const override {
    std::string text;
    std::string bytes;  // of a run of byte tokens
    // Until the first text, a leading space is the one that Encode put there.
    bool at_start = model_.add_dummy_prefix || model_.remove_extra_whitespaces;
    bool space_removed = false;
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("token id ", id, " is not in [0, ", vocab_size(), ")"));
      }
      const PieceType type = model_.pieces[id].type;
      if (type == PieceType::kByte) {
        bytes += token_bytes_[id];
        continue;
      }
      MoveUtf8(&bytes, &text, /*more_follows=*/false);
      if (space_removed || !text.empty()) at_start = false;
      std::string_view part = token_bytes_[id];
      const bool has_space = at_start && type != PieceType::kControl &&
                             type != PieceType::kUnknown && part.starts_with(' ');
      if (has_space) part.remove_prefix(1);
      // Where spaces were trimmed, all that lead are artificial.
      space_removed = has_space && !model_.remove_extra_whitespaces;
      text += part;
    }
    MoveUtf8(&bytes, &text, /*more_follows=*/false);
    return text;
  }

 private:
  const SentencePieceModel model_;
  const bool add_bos_;
  const PrefixIndex user_defined_;  // refers to model_
  const AddedTokens control_;
  std::unique_ptr<Segmenter> segmenter_;
  std::unique_ptr<TextNormalizer> normalizer_;
  std::vector<std::string> token_bytes_;  // by id
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(std::string_view serialized,
                                                                      bool add_bos) {
  absl::StatusOr<SentencePieceModel> model = ParseSentencePieceModel(serialized);
  if (!model.ok()) return model.status();
  return MakeSentencePieceTokenizer(*std::move(model), add_bos);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeSentencePieceTokenizer(SentencePieceModel model,
                                                                      bool add_bos) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(std::move(model), add_bos);
  if (absl::Status status = tokenizer->Init(); !status.ok()) return status;
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(
    const std::string& path, bool add_bos, const absl::flat_hash_set<std::string>& control) {
  const absl::StatusOr<std::string> contents = ReadFile(path, kMaxSentencePieceFile);
  if (!contents.ok()) return contents.status();
  const auto named = [&path](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  };
  absl::StatusOr<SentencePieceModel> model = ParseSentencePieceModel(*contents);
  if (!model.ok()) return named(model.status());
  for (Piece& piece : model->pieces) {
    const bool spelt = piece.type == PieceType::kNormal || piece.type == PieceType::kUserDefined;
    if (spelt && control.contains(piece.text)) piece.type = PieceType::kControl;
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      MakeSentencePieceTokenizer(*std::move(model), add_bos);
  if (!tokenizer.ok()) return named(tokenizer.status());
  return tokenizer;
}

}  // namespace lacuna
