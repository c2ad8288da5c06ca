#include <cstdlib>
#include <random>

#include "runtime/base/file.h"
#include "runtime/tokenizer/sentencepiece_tokenizer.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/tokenizer/sentencepiece_library.h"

namespace lacuna {
namespace {

// What random texts are made of: words that training sees, and what trips tokenizers.
const char* const kParts[] = {"the",
                              "of",
                              "and",
                              "house",
                              "houses",
                              "lacuna",
                              "neuron",
                              "sparse",
                              "in",
                              "to",
                              "a",
                              "e",
                              "s",
                              "ing",
                              "ed",
                              "un",
                              "ion",
                              "The",
                              "I",
                              "0",
                              "1",
                              "42",
                              "1719",
                              ".",
                              ",",
                              "!",
                              "?",
                              "'",
                              "\"",
                              "-",
                              "--",
                              "(",
                              ")",
                              " ",
                              " ",
                              " ",
                              " ",
                              "  ",
                              "   ",
                              "\t",
                              "\n",
                              "\r\n",
                              "\u2581",
                              "\u00A0",
                              "\u3000",
                              "\u200B",
                              "\u00E9",
                              "e\u0301",
                              "\u00C5",
                              "A\u030A",
                              "\uFB01",
                              "\uFF21\uFF11",
                              "\u2460",
                              "\uFDFA",
                              "\u2026",
                              "\u00BD",
                              "\uAC00",
                              "\u1100\u1161",
                              "\u65E5\u672C",
                              "\u0130",
                              "\u00DF",
                              "\U0001F600",
                              "\U0001F468\u200D\U0001F469",
                              "\uFFFD",
                              "\u007F",
                              "\u0001",
                              "<s>",
                              "</s>",
                              "<unk>",
                              "<0x41>",
                              "<user>",
                              "<use",
                              "<user>x",
                              "@@",
                              "@@@",
                              "zzzzzzzz",
                              "aaaaaaaaaaa",
                              "____"};

std::string RandomText(std::mt19937& random, int max_parts) {
  std::string text;
  for (int n = static_cast<int>(random() % max_parts); n > 0; --n) {
    text += kParts[random() % std::size(kParts)];
    if (random() % 2) text += ' ';
  }
  return text;
}

// Our ids and texts must be the library's for random texts and random ids.
void ExpectParity(const std::string& model) {
  const auto library = LoadWithLibrary(model);
  ASSERT_NE(library, nullptr);
  const auto tokenizer = MakeSentencePieceTokenizer(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::mt19937 random(20240913);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(random, 20);
    const std::vector<int> want = library->Encode(text);
    const auto got = (*tokenizer)->Encode(text, /*add_special=*/false);
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_EQ(std::vector<int>(got->begin(), got->end()), want) << "[" << text << "]";
    ASSERT_EQ((*tokenizer)->Decode(*got).value(), library->Decode(want)) << "[" << text << "]";
  }
  for (int i = 0; i < 2000; ++i) {
    // Low ids are control and byte tokens: half of the ids are chosen there.
    std::vector<int> ids(random() % 12);
    for (int& id : ids) {
      id = static_cast<int>(random() % (random() % 2 ? 260 : (*tokenizer)->vocab_size()));
      id = std::min(id, (*tokenizer)->vocab_size() - 1);
    }
    ASSERT_EQ((*tokenizer)->Decode(ids).value(), library->Decode(ids))
        << testing::PrintToString(ids);
  }
}

struct TrainedModel {
  const char* name;
  const char* flags;  // of spm_train
};
std::ostream& operator<<(std::ostream& out, const TrainedModel& model) { return out << model.name; }

class LibraryParity : public testing::TestWithParam<TrainedModel> {};

TEST_P(LibraryParity, SameIdsAndTextsForAFreshlyTrainedModel) {
  const TempDir dir;
  std::mt19937 random(7);
  std::string corpus;
  for (int line = 0; line < 3000; ++line) corpus += RandomText(random, 16) + "\n";
  const std::string model = TrainWithLibrary(dir.Write("corpus", corpus), GetParam().flags);
  ASSERT_FALSE(model.empty());
  ExpectParity(model);
}

INSTANTIATE_TEST_SUITE_P(
    Models, LibraryParity,
    testing::Values(
        TrainedModel{
            "BpeAsLlama",
            "--model_type=bpe --vocab_size=600 --byte_fallback --normalization_rule_name=identity "
            "--remove_extra_whitespaces=false --split_digits --allow_whitespace_only_pieces "
            "--character_coverage=0.99"},
        TrainedModel{"BpeNfkc",
                     "--model_type=bpe --vocab_size=400 --normalization_rule_name=nmt_nfkc "
                     "--user_defined_symbols=<user>,@@,@@@ --add_dummy_prefix=false"},
        TrainedModel{
            "BpeNfkcCaseFoldBytes",
            "--model_type=bpe --vocab_size=700 --byte_fallback --normalization_rule_name=nfkc_cf "
            "--split_by_whitespace=false --user_defined_symbols=\u65E5\u672C"},
        TrainedModel{"UnigramNfkc",
                     "--model_type=unigram --vocab_size=300 --normalization_rule_name=nmt_nfkc"},
        TrainedModel{"UnigramNfkcCaseFoldBytes",
                     "--model_type=unigram --vocab_size=500 --byte_fallback "
                     "--normalization_rule_name=nmt_nfkc_cf --user_defined_symbols=<user>,@@,@@@"},
        TrainedModel{
            "UnigramIdentity",
            "--model_type=unigram --vocab_size=300 --normalization_rule_name=identity "
            "--remove_extra_whitespaces=false --split_by_whitespace=false --unk_surface=?? "
            "--character_coverage=0.98"}));

TEST(LibraryParityOfFiles, DefaultModel) {
  const auto model = ReadFile(
      std::string(LACUNA_SOURCE_DIR) + "/models/lacuna-stories-3m/tokenizer.model", 1 << 24);
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectParity(*model);
}

TEST(LibraryParityOfFiles, Llama2) {
  const char* const path = std::getenv("LACUNA_LLAMA2_TOKENIZER");
  if (path == nullptr) {
    GTEST_SKIP() << "LACUNA_LLAMA2_TOKENIZER does not name LLaMA 2's tokenizer.model, whose "
                    "licence keeps it out of this repository";
  }
  const auto model = ReadFile(path, 1 << 24);
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectParity(*model);
}

}  // namespace
}  // namespace lacuna
