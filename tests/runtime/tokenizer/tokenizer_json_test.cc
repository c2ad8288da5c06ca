#include "runtime/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "runtime/tokenizer/gpt2_files.h"
#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

using Ids = std::vector<int32_t>;
using nlohmann::json;

// A byte-level tokenizer with BOS, as Llama 3's.
json ByteLevel() {
  return json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 5, "content": "<s>", "special": true, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated",
       "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
      "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4}, "merges": ["a b", ["Ġ", "ab"]]}
  })");
}

absl::Status StatusOf(const json& document) {
  absl::StatusOr<BpeTokenizerSpec> spec = ParseTokenizerJson(document.dump(), "t.json");
  return spec.ok() ? MakeBpeTokenizer(*std::move(spec)).status() : spec.status();
}

TEST(TokenizerJson, ReadsMergesOfBothSpellingsAndTheBos) {
  absl::StatusOr<BpeTokenizerSpec> spec = ParseTokenizerJson(ByteLevel().dump(), "t.json");
  ASSERT_TRUE(spec.ok()) << spec.status();
  const auto tokenizer = MakeBpeTokenizer(*std::move(spec));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("ab ab", true).value(), (Ids{5, 3, 4}));
  EXPECT_EQ((*tokenizer)->Decode(Ids{5, 3, 4}).value(), "ab ab");
  EXPECT_EQ((*tokenizer)->vocab_size(), 6);
}

struct BadCase {
  const char* what;
  const char* patch;  // RFC 7386, on ByteLevel()
  absl::StatusCode code;
  const char* phrase;
};

const BadCase kBadCases[] = {
    {"no model", R"({"model": null})", kInvalid, "t.json has no object model"},
    {"model is a list", R"({"model": []})", kInvalid, "no object model"},
    {"WordPiece", R"({"model": {"type": "WordPiece"}})", kUnimplemented, "type \"WordPiece\""},
    {"Unigram", R"({"model": {"type": "Unigram"}})", kUnimplemented, "type \"Unigram\""},
    {"type is a number", R"({"model": {"type": 3}})", kInvalid, "type = 3"},
    {"dropout", R"({"model": {"dropout": 0.1}})", kUnimplemented, "dropout"},
    {"dropout of 2", R"({"model": {"dropout": 2}})", kInvalid, "dropout = 2"},
    {"suffix", R"({"model": {"end_of_word_suffix": "</w>"}})", kUnimplemented,
     "end_of_word_suffix"},
    {"prefix", R"({"model": {"continuing_subword_prefix": "##"}})", kUnimplemented,
     "continuing_subword_prefix"},
    {"no vocab", R"({"model": {"vocab": null}})", kInvalid, "no object vocab"},
    {"vocab is a list", R"({"model": {"vocab": ["a"]}})", kInvalid, "no object vocab"},
    {"id is text", R"({"model": {"vocab": {"a": "0"}}})", kInvalid, "vocab = \"0\""},
    {"id is negative", R"({"model": {"vocab": {"a": -1}}})", kInvalid, "vocab = -1"},
    {"id of 2^64", R"({"model": {"vocab": {"a": 18446744073709551615}}})", kInvalid,
     "vocab = 18446744073709551615"},
    {"id twice", R"({"model": {"vocab": {"a": 1}}})", kInvalid, "two tokens have the id 1"},
    {"empty token", R"({"model": {"vocab": {"": 9}}})", kInvalid, "token 9 has 0 bytes"},
    {"no merges", R"({"model": {"merges": null}})", kInvalid, "no list merges"},
    {"merge of one", R"({"model": {"merges": ["ab"]}})", kInvalid, "the merge \"ab\""},
    {"merge of three", R"({"model": {"merges": ["a b ab"]}})", kInvalid, "expected two tokens"},
    {"merge is a number", R"({"model": {"merges": [1]}})", kInvalid, "merge, number 0"},
    {"merge of three pairs", R"({"model": {"merges": [["a", "b", "c"]]}})", kInvalid, "number 0"},
    {"merge of unknowns", R"({"model": {"merges": ["a c"]}})", kInvalid, "merge 0 names \"c\""},
    {"byte fallback", R"({"model": {"byte_fallback": true}})", kUnimplemented, "byte_fallback"},
    {"added tokens are an object", R"({"added_tokens": {}})", kInvalid, "no list added_tokens"},
    {"added token is text", R"({"added_tokens": ["x"]})", kInvalid, "not an object"},
    {"added token without id", R"({"added_tokens": [{"content": "x"}]})", kInvalid, "has no id"},
    {"added token without text", R"({"added_tokens": [{"id": 7}]})", kInvalid, "1 to 4096 bytes"},
    {"added token moves", R"({"added_tokens": [{"id": 7, "content": "a"}]})", kInvalid,
     "has the ids 0 and 7"},
    {"added token is huge", R"({"added_tokens": [{"id": 99999999, "content": "x"}]})", kInvalid,
     "id = 99999999"},
    {"normalizer", R"({"normalizer": {"type": "Nmt"}})", kUnimplemented, "type \"Nmt\""},
    {"normalizer without type", R"({"normalizer": {}})", kUnimplemented, "type \"\""},
    {"normalizer is text", R"({"normalizer": "NFC"})", kInvalid, "no object normalizer"},
    {"replacement is long",
     R"({"normalizer": {"type": "Prepend", "prepend":
        "0123456789012345678901234567890123456789012345678901234567890123456789"}})",
     kInvalid, "prepend of 70 bytes"},
    {"replace without pattern", R"({"normalizer": {"type": "Replace", "content": "x"}})", kInvalid,
     "has no pattern"},
    {"sequence is no list", R"({"normalizer": {"type": "Sequence", "normalizers": 1}})", kInvalid,
     "no list normalizers"},
    {"pre-tokenizer", R"({"pre_tokenizer": {"type": "UnicodeScripts"}})", kUnimplemented,
     "\"UnicodeScripts\""},
    {"step after bytes",
     R"({"pre_tokenizer": {"pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}})",
     kUnimplemented, "\"Digits\" after ByteLevel"},
    {"broken pattern",
     R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "("}}})",
     kInvalid, "is broken"},
    {"pattern of another kind",
     R"({"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern":
        {"Regex": "[a&&b]"}}})",
     kUnimplemented, "&&"},
    {"behavior", R"({"pre_tokenizer": {"type": "Split", "behavior": "Glued", "pattern":
        {"String": "x"}}})",
     kUnimplemented, "behavior \"Glued\""},
    {"two symbols", R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "__"}})", kInvalid,
     "expected one character"},
    {"prepend scheme", R"({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "last"}})",
     kInvalid, "prepend_scheme = \"last\""},
    {"no decoder", R"({"decoder": null})", kUnimplemented, "no decoder"},
    {"decoder", R"({"decoder": {"type": "WordPiece"}})", kUnimplemented, "\"WordPiece\""},
    {"decoder of bytes only", R"({"pre_tokenizer": null})", kUnimplemented,
     "\"ByteLevel\" for another pre-tokenizer"},
    {"processor", R"({"post_processor": {"type": "RobertaProcessing"}})", kUnimplemented,
     "\"RobertaProcessing\""},
    {"template without ids", R"({"post_processor": {"special_tokens": {"<s>": {"ids": null}}}})",
     kInvalid, "no ids for the special token \"<s>\""},
    {"template without tokens", R"({"post_processor": {"special_tokens": null}})", kInvalid,
     "no object special_tokens"},
    {"template of two texts",
     R"({"post_processor": {"single": [{"Sequence": {}}, {"Sequence": {}}]}})", kInvalid,
     "one sequence"},
    {"template with another id",
     R"({"post_processor": {"special_tokens": {"<s>": {"ids": [77]}}}})", kInvalid,
     "special token id 77"},
};

TEST(TokenizerJson, RefusesATemplateOfManyIds) {
  json document = ByteLevel();
  document["post_processor"]["special_tokens"]["<s>"]["ids"] = std::vector<int>(65, 0);
  EXPECT_TRUE(IsError(StatusOf(document), kInvalid, "more than 64 ids"));
}

class TokenizerJsonBadTest : public testing::TestWithParam<BadCase> {};

TEST_P(TokenizerJsonBadTest, IsRefusedByName) {
  json document = ByteLevel();
  document.merge_patch(json::parse(GetParam().patch));
  EXPECT_TRUE(IsError(StatusOf(document), GetParam().code, GetParam().phrase));
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerJsonBadTest, testing::ValuesIn(kBadCases),
                         [](const auto& info) {
                           std::string name = info.param.what;
                           for (char& c : name) c = std::isalnum(c) ? c : '_';
                           return name;
                         });

TEST(TokenizerJson, RefusesWhatIsNoObject) {
  for (const char* text : {"", "[]", "{", "{\"a\": 1, \"a\": 2}", "\xFF"}) {
    EXPECT_EQ(ParseTokenizerJson(text, "t.json").status().code(), kInvalid) << text;
  }
}

TEST(TokenizerJson, RefusesMoreStepsThanAnyoneNeeds) {
  json document = ByteLevel();
  json steps = json::array();
  for (int i = 0; i < 40; ++i) steps.push_back({{"type", "NFC"}});
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  EXPECT_TRUE(IsError(StatusOf(document), kInvalid, "more than 32 steps"));
}

TEST(TokenizerJson, EveryCutOfAFileIsRefusedOrWorks) {
  const std::string text = ByteLevel().dump();
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_FALSE(ParseTokenizerJson(text.substr(0, size), "t.json").ok()) << size;
  }
}

TEST(Gpt2Files, ReadsLinesWithEitherEnding) {
  const auto spec =
      ParseGpt2Files(R"({"a": 0, "b": 1, "ab": 2})", "#version: 0.2\r\na b\r\n\r\n", false);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->bpe.merges.size(), 1u);
}

TEST(Gpt2Files, BrokenFilesAreNamed) {
  const auto status = [](std::string_view vocab, std::string_view merges) {
    return ParseGpt2Files(vocab, merges, false).status();
  };
  EXPECT_TRUE(IsError(status("[]", ""), kInvalid, "vocab.json"));
  EXPECT_TRUE(IsError(status(R"({"a": 1.5})", ""), kInvalid, "vocab.json has a = 1.5"));
  EXPECT_TRUE(IsError(status("{}", "a b\nab\n"), kInvalid, "merges.txt, line 2: \"ab\""));
  EXPECT_TRUE(IsError(status("{}", "a b c"), kInvalid, "merges.txt, line 1"));
  EXPECT_TRUE(IsError(status("{}", "a \xFF"), kInvalid, "merges.txt, line 1"));
  EXPECT_TRUE(IsError(status("{}", std::string("a\0b", 3)), kInvalid, "line 1"));
}

}  // namespace
}  // namespace lacuna
