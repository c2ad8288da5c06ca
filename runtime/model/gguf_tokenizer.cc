#include "runtime/model/gguf_tokenizer.h"

#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/base/utf8.h"
#include "runtime/model/gguf_reader.h"
#include "runtime/tokenizer/bpe_tokenizer.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"

namespace lacuna {
namespace {

// tokenizer.ggml.token_type has the numbers of SentencePiece's piece types.
constexpr auto kFirstType = static_cast<int32_t>(PieceType::kNormal);
constexpr auto kLastType = static_cast<int32_t>(PieceType::kByte);

struct Vocabulary {
  std::vector<std::string_view> tokens;  // UTF-8, not empty, without NUL
  std::vector<PieceType> types;
  int32_t bos_id = -1;  // -1: none
  int32_t eos_id = -1;
};

// The errors go to `reader`.
Vocabulary ReadVocabulary(GgufReader& reader) {
  Vocabulary vocabulary;
  vocabulary.tokens = reader.Strings("tokenizer.ggml.tokens");
  const std::vector<int32_t> types = reader.Ints("tokenizer.ggml.token_type");
  if (!reader.status().ok()) return vocabulary;
  const size_t size = vocabulary.tokens.size();
  if (size == 0 || size > kMaxPieces) {
    reader.Fail(absl::StrCat("key \"tokenizer.ggml.tokens\" lists ", size,
                             " tokens, expected 1 to ", kMaxPieces));
  }
  if (!types.empty() && types.size() != size) {
    reader.Fail(absl::StrCat("there are ", types.size(), " types of ", size, " tokens"));
  }
  if (!reader.status().ok()) return vocabulary;
  vocabulary.types.resize(size, PieceType::kNormal);
  for (size_t id = 0; id < size; ++id) {
    const std::string_view token = vocabulary.tokens[id];
    if (token.empty() || token.size() > kMaxTokenBytes || !IsValidUtf8(token) ||
        token.find('\0') != std::string_view::npos) {
      reader.Fail(absl::StrCat("token ", id, " is not UTF-8 without NUL of 1 to ", kMaxTokenBytes,
                               " bytes: ", Quoted(token)));
      return vocabulary;
    }
    if (types.empty()) continue;
    if (types[id] < kFirstType || types[id] > kLastType) {
      reader.Fail(absl::StrCat("token ", id, " has the unknown type ", types[id]));
      return vocabulary;
    }
    vocabulary.types[id] = static_cast<PieceType>(types[id]);
  }
  const int64_t last = static_cast<int64_t>(size) - 1;
  vocabulary.bos_id = reader.Int("tokenizer.ggml.bos_token_id", 0, last, -1);
  vocabulary.eos_id = reader.Int("tokenizer.ggml.eos_token_id", 0, last, -1);
  if (reader.Bool("tokenizer.ggml.add_eos_token", false)) {
    reader.Unimplemented("the end of the text after each prompt (tokenizer.ggml.add_eos_token)");
  }
  return vocabulary;
}

// Whether texts begin with BOS; `missing` if the file does not say.
bool AddsBos(GgufReader& reader, const Vocabulary& vocabulary, bool missing) {
  const bool adds = reader.Bool("tokenizer.ggml.add_bos_token", missing);
  if (adds && vocabulary.bos_id < 0) {
    reader.Fail(
        "there is no key \"tokenizer.ggml.bos_token_id\", but a text is to begin with that token; "
        "add it with: gguf-new-metadata --special-token bos TOKEN FILE NEW_FILE");
  }
  return adds;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeScored(GgufReader& reader,
                                                      const Vocabulary& vocabulary) {
  const std::vector<float> scores = reader.Floats("tokenizer.ggml.scores");
  const size_t size = vocabulary.tokens.size();
  if (reader.status().ok() && scores.size() != size) {
    reader.Fail(absl::StrCat("there are ", scores.size(), " scores of ", size, " tokens"));
  }
  const bool add_bos = AddsBos(reader, vocabulary, true);
  SentencePieceModel model;
  model.algorithm = SentencePieceModel::Algorithm::kBpe;
  model.add_dummy_prefix = reader.Bool("tokenizer.ggml.add_space_prefix", true);
  model.remove_extra_whitespaces = reader.Bool("tokenizer.ggml.remove_extra_whitespaces", false);
  if (reader.Has("tokenizer.ggml.precompiled_charsmap")) {
    reader.Unimplemented("tokenizer.ggml.precompiled_charsmap");
  }
  if (!reader.status().ok()) return reader.status();
  for (size_t id = 0; id < size; ++id) {
    Piece piece{std::string(vocabulary.tokens[id]), scores[id], vocabulary.types[id]};
    // Converters write the spaces of added tokens as such; text has them as symbols by then.
    if (piece.type == PieceType::kUserDefined) {
      absl::StrReplaceAll({{" ", kSpaceSymbol}}, &piece.text);
    }
    if (piece.text.size() > kMaxPieceBytes || !std::isfinite(piece.score)) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " has ", piece.text.size(),
                                                     " bytes, the limit is ", kMaxPieceBytes,
                                                     ", and the score ", piece.score));
    }
    model.byte_fallback |= piece.type == PieceType::kByte;
    model.pieces.push_back(std::move(piece));
  }
  if (absl::Status status = IndexPieces("", "", &model); !status.ok()) return status;
  model.bos_id = vocabulary.bos_id;
  model.eos_id = vocabulary.eos_id;
  return MakeSentencePieceTokenizer(std::move(model), add_bos);
}

// How families that llama.cpp names in tokenizer.ggml.pre cut a text into words: by each pattern in
// turn, both what it matches and what it does not. The patterns are those of their tokenizer.json.
struct PreTokenizer {
  const char* name;
  std::vector<std::string_view> patterns;
  bool add_bos = false;        // if the file does not say
  bool ignore_merges = false;  // see BpeSpec
  bool nfc = false;            // Unicode's form C comes first
};

constexpr std::string_view kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kGpt4oPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kTekkenPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const std::vector<PreTokenizer>& PreTokenizers() {
  static const auto& all = *new std::vector<PreTokenizer>{
      {.name = "gpt-2", .patterns = {kGpt2Pattern}},
      {.name = "smollm", .patterns = {"\\p{N}", kGpt2Pattern}},
      {.name = "starcoder", .patterns = {"\\p{N}", kGpt2Pattern}},
      {.name = "llama-bpe", .patterns = {kLlama3Pattern}, .add_bos = true, .ignore_merges = true},
      {.name = "qwen2", .patterns = {kQwen2Pattern}, .nfc = true},
      {.name = "gpt-4o", .patterns = {kGpt4oPattern}},
      {.name = "tekken", .patterns = {kTekkenPattern}, .add_bos = true, .ignore_merges = true},
      // Of no family: what llama.cpp does where a converter knew no better.
      {.name = "default",
       .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", kGpt2Pattern, "\\p{N}+", "[0-9][0-9][0-9]"}},
  };
  return all;
}

const PreTokenizer* FindPreTokenizer(GgufReader& reader) {
  const std::string kKey = "tokenizer.ggml.pre";
  if (!reader.Has(kKey)) {
    reader.Fail(absl::StrCat(
        "there is no key ", Quoted(kKey),
        ", which says how a text is cut into words (converters of 2023 left it out); add it with: "
        "gguf-new-metadata --pre-tokenizer NAME FILE NEW_FILE"));
    return nullptr;
  }
  const std::string_view name = reader.String(kKey, "");
  std::string known;
  for (const PreTokenizer& pre_tokenizer : PreTokenizers()) {
    if (pre_tokenizer.name == name) return &pre_tokenizer;
    absl::StrAppend(&known, known.empty() ? "" : ", ", pre_tokenizer.name);
  }
  reader.Unimplemented(
      absl::StrCat("the pre-tokenizer ", Quoted(name), ", this build knows ", known));
  return nullptr;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeByteLevel(GgufReader& reader,
                                                         const Vocabulary& vocabulary) {
  const PreTokenizer* pre_tokenizer = FindPreTokenizer(reader);
  const std::vector<std::string_view> merges = reader.Strings("tokenizer.ggml.merges");
  if (!reader.status().ok()) return reader.status();
  BpeTokenizerSpec spec;
  spec.bos_id = vocabulary.bos_id;
  spec.eos_id = vocabulary.eos_id;
  if (AddsBos(reader, vocabulary, pre_tokenizer->add_bos)) {
    spec.prefix_ids.push_back(spec.bos_id);
  }
  if (reader.Bool("tokenizer.ggml.add_space_prefix", false)) {
    spec.pre_tokenizers.push_back(AddPrefixSpace());
  }
  if (!reader.status().ok()) return reader.status();
  if (pre_tokenizer->nfc) spec.normalizers.push_back(UnicodeFormStep(UnicodeForm::kNfc));
  for (const std::string_view pattern : pre_tokenizer->patterns) {
    absl::StatusOr<Regex> regex = Regex::Compile(pattern);
    if (!regex.ok()) return regex.status();
    spec.pre_tokenizers.push_back(
        SplitByPattern(*std::move(regex), SplitBehavior::kIsolated, /*invert=*/false));
  }
  spec.bpe.byte_level = true;
  spec.bpe.ignore_merges = pre_tokenizer->ignore_merges;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const int32_t id = static_cast<int32_t>(i);
    std::string token(vocabulary.tokens[i]);
    switch (vocabulary.types[i]) {
      case PieceType::kControl:
      case PieceType::kUnknown:
        spec.added_tokens.push_back({.content = std::move(token), .id = id, .special = true});
        break;
      case PieceType::kUserDefined:
        spec.added_tokens.push_back({.content = std::move(token), .id = id});
        break;
      case PieceType::kUnused:  // fills a hole between ids
        break;
      default:
        spec.bpe.vocab.emplace_back(std::move(token), id);
    }
  }
  for (const std::string_view merge : merges) {
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos || !IsValidUtf8(merge)) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge ", Quoted(merge), " is not two tokens"));
    }
    spec.bpe.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return MakeBpeTokenizer(std::move(spec));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufTokenizer(const GgufHeader& header) {
  GgufReader reader(header);
  const std::string_view model = reader.String("tokenizer.ggml.model", "");
  const Vocabulary vocabulary = ReadVocabulary(reader);
  if (!reader.status().ok()) return reader.status();
  if (model == "llama") return MakeScored(reader, vocabulary);
  if (model == "gpt2") return MakeByteLevel(reader, vocabulary);
  return absl::UnimplementedError(absl::StrCat("the file asks for tokenizer.ggml.model ",
                                               Quoted(model), ", this build knows llama and gpt2"));
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> MakeGgufChatTemplate(const GgufHeader& header) {
  GgufReader reader(header);
  if (!reader.Has("tokenizer.chat_template")) {
    return absl::NotFoundError("there is no chat template");
  }
  const std::string_view source = reader.String("tokenizer.chat_template", "");
  const std::vector<std::string_view> tokens = reader.Strings("tokenizer.ggml.tokens");
  std::map<std::string, std::string> special_tokens;
  const int64_t last = static_cast<int64_t>(tokens.size()) - 1;
  for (const auto& [variable, key] :
       {std::pair("bos_token", "bos"), std::pair("eos_token", "eos"),
        std::pair("unk_token", "unknown"), std::pair("pad_token", "padding")}) {
    const int32_t id = reader.Int(absl::StrCat("tokenizer.ggml.", key, "_token_id"), 0, last, -1);
    if (id >= 0 && reader.status().ok()) special_tokens.emplace(variable, tokens[id]);
  }
  if (!reader.status().ok()) return reader.status();
  return ChatTemplate::Create(source, std::move(special_tokens));
}

}  // namespace lacuna
