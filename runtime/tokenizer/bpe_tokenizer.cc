#include "runtime/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/base/utf8.h"

namespace lacuna {
namespace {

// The tokens that are looked for in the text as it is, or in the normalized text. Control tokens
// are never normalized, so that what is theirs in a text does not depend on what is around them.
absl::StatusOr<std::vector<AddedToken>> Select(const BpeTokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> selected;
  absl::flat_hash_map<std::string, int32_t> seen;
  for (AddedToken token : spec.added_tokens) {
    if ((token.normalized && !token.special) != normalized) continue;
    if (normalized) {
      absl::StatusOr<std::string> content = Normalize(spec.normalizers, token.content);
      if (!content.ok()) return content.status();
      token.content = *std::move(content);
    }
    if (token.content.empty() || !seen.emplace(token.content, token.id).second) continue;
    selected.push_back(std::move(token));
  }
  return selected;
}

class BpeTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(BpeTokenizerSpec spec) {
    absl::StatusOr<BpeModel> model = BpeModel::Create(spec.bpe);
    if (!model.ok()) return model.status();
    absl::StatusOr<std::vector<AddedToken>> raw = Select(spec, /*normalized=*/false);
    if (!raw.ok()) return raw.status();
    absl::StatusOr<std::vector<AddedToken>> normalized = Select(spec, /*normalized=*/true);
    if (!normalized.ok()) return normalized.status();
    std::unique_ptr<BpeTokenizer> tokenizer(
        new BpeTokenizer(*std::move(model), *std::move(raw), *std::move(normalized)));
    if (absl::Status status = tokenizer->AddTokens(spec); !status.ok()) return status;
    tokenizer->byte_level_ = spec.bpe.byte_level;
    spec.bpe = {};
    tokenizer->spec_ = std::move(spec);
    return tokenizer;
  }

  const char* kind() const override { return byte_level_ ? "byte-level BPE" : "BPE"; }
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  int32_t bos_id() const override { return spec_.bos_id; }
  int32_t eos_id() const override { return spec_.eos_id; }
  std::string_view TokenBytes(int32_t id) const override { return tokens_[id].bytes; }
  bool IsControl(int32_t id) const override { return tokens_[id].control; }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special) const override {
    const ByteRange all = {0, text.size()};
    absl::StatusOr<std::vector<int32_t>> ids = EncodeMarkup(text, {all});
    if (!ids.ok() || !add_special) return ids;
    ids->insert(ids->begin(), spec_.prefix_ids.begin(), spec_.prefix_ids.end());
    ids->insert(ids->end(), spec_.suffix_ids.begin(), spec_.suffix_ids.end());
    return ids;
  }

  absl::StatusOr<std::vector<int32_t>> EncodeMarkup(
      std::string_view text, absl::Span<const ByteRange> literal) const override {
    if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
    std::vector<int32_t> ids;
    for (const auto& [range, id] : raw_tokens_.Split(text, literal)) {
      if (id >= 0) {
        ids.push_back(id);
        continue;
      }
      const absl::Status status = EncodeText(text.substr(range.begin, range.end - range.begin),
                                             /*at_start=*/range.begin == 0, &ids);
      if (!status.ok()) return status;
      if (absl::Status grown = CheckGrowth(text.size(), ids.size()); !grown.ok()) return grown;
    }
    return ids;
  }

  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids) const override {
    std::string text;
    std::string bytes;
    bool at_start = true;
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("token id ", id, " is not in [0, ", vocab_size(), ")"));
      }
      const Token& token = tokens_[id];
      if (!token.control) {
        bytes += at_start ? AtStart(token.bytes) : token.bytes;
        at_start = false;
      }
      // Bytes on both sides of a control token are no character.
      MoveUtf8(&bytes, &text, /*more_follows=*/!token.control);
    }
    MoveUtf8(&bytes, &text, /*more_follows=*/false);
    return text;
  }

 private:
  struct Token {
    std::string bytes;
    bool control = true;  // an id without a token prints nothing either
  };

  BpeTokenizer(BpeModel model, std::vector<AddedToken> raw, std::vector<AddedToken> normalized)
      : model_(std::move(model)),
        raw_tokens_(std::move(raw)),
        normalized_tokens_(std::move(normalized)) {}

  absl::Status AddTokens(const BpeTokenizerSpec& spec) {
    absl::flat_hash_map<std::string_view, int32_t> ids;
    absl::flat_hash_set<int32_t> taken;
    for (const auto& [text, id] : spec.bpe.vocab) {
      ids.emplace(text, id);
      taken.insert(id);
      if (id >= vocab_size()) tokens_.resize(id + 1);
      tokens_[id] = {.bytes = Printed(text, spec), .control = false};
    }
    for (const AddedToken& token : spec.added_tokens) {
      if (token.content.empty() || token.content.size() > kMaxTokenBytes || token.id < 0 ||
          token.id > kMaxTokenId) {
        return absl::InvalidArgumentError(absl::StrCat(
            "added token ", Quoted(token.content), " with id ", token.id, ": must have 1 to ",
            kMaxTokenBytes, " bytes and an id in [0, ", kMaxTokenId, "]"));
      }
      const auto [it, is_new] = ids.emplace(token.content, token.id);
      if (it->second != token.id) {
        return absl::InvalidArgumentError(absl::StrCat(
            "token ", Quoted(token.content), " has the ids ", it->second, " and ", token.id));
      }
      if (is_new && !taken.insert(token.id).second) {
        return absl::InvalidArgumentError(absl::StrCat(
            "added token ", Quoted(token.content), " has the id ", token.id, " of another token"));
      }
      if (token.id >= vocab_size()) tokens_.resize(token.id + 1);
      tokens_[token.id].control = token.special;
      tokens_[token.id].bytes = token.special ? "" : Printed(token.content, spec);
    }
    if (tokens_.empty()) return absl::InvalidArgumentError("the vocabulary is empty");
    std::vector<int32_t> used = {std::max(spec.bos_id, 0), std::max(spec.eos_id, 0)};
    used.insert(used.end(), spec.prefix_ids.begin(), spec.prefix_ids.end());
    used.insert(used.end(), spec.suffix_ids.begin(), spec.suffix_ids.end());
    for (const int32_t id : used) {
      if (id >= 0 && id < vocab_size()) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "the special token id ", id, " is not in the vocabulary of ", vocab_size(), " tokens"));
    }
    return absl::OkStatus();
  }

  static std::string Printed(const std::string& token, const BpeTokenizerSpec& spec) {
    if (spec.bpe.byte_level) {
      std::string bytes;
      return FromByteLevel(token, &bytes) ? bytes : token;
    }
    if (const int byte = FallbackByte(token); spec.printing.byte_fallback && byte >= 0) {
      return std::string(1, static_cast<char>(byte));
    }
    std::string text = token;
    for (const auto& [from, to] : spec.printing.replacements) {
      text = absl::StrReplaceAll(text, {{from, to}});
    }
    return text;
  }

  // What the first token of a text prints.
  std::string_view AtStart(std::string_view bytes) const {
    switch (spec_.printing.leading_spaces) {
      case TokenPrinting::LeadingSpaces::kKept:
        break;
      case TokenPrinting::LeadingSpaces::kOneRemoved:
        if (bytes.starts_with(' ')) bytes.remove_prefix(1);
        break;
      case TokenPrinting::LeadingSpaces::kFirstTokenRemoved:
        bytes.remove_prefix(std::min(bytes.find_first_not_of(' '), bytes.size()));
        break;
    }
    return bytes;
  }

  // Text between the tokens that are looked for in the text as it is.
  absl::Status EncodeText(std::string_view text, bool at_start, std::vector<int32_t>* ids) const {
    const absl::StatusOr<std::string> normalized = Normalize(spec_.normalizers, text);
    if (!normalized.ok()) return normalized.status();
    for (const auto& [range, id] : normalized_tokens_.Split(*normalized, {})) {
      if (id >= 0) {
        ids->push_back(id);
        continue;
      }
      std::vector<Word> words = {
          {normalized->substr(range.begin, range.end - range.begin), at_start && range.begin == 0}};
      if (absl::Status status = Split(spec_.pre_tokenizers, &words); !status.ok()) return status;
      for (const Word& word : words) model_.Encode(word.text, ids);
    }
    return absl::OkStatus();
  }

  const BpeModel model_;
  const AddedTokens raw_tokens_;
  const AddedTokens normalized_tokens_;
  std::vector<Token> tokens_;  // by id
  BpeTokenizerSpec spec_;      // without bpe
  bool byte_level_ = false;    // of its bpe
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeBpeTokenizer(BpeTokenizerSpec spec) {
  return BpeTokenizer::Create(std::move(spec));
}

}  // namespace lacuna
