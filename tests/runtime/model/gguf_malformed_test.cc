// GGUF files that are corrupted, truncated or that lie are refused with a typed error.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>

#include "runtime/model/load_model.h"
#include "tests/runtime/model/gguf_writer.h"

namespace lacuna {
namespace {

using Code = absl::StatusCode;
using testing::HasSubstr;

absl::StatusOr<LoadedModel> Load(const std::string& bytes, const std::string& name) {
  const std::string path = testing::TempDir() + "lacuna_gguf_" + name + ".gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  LoadOptions options;
  options.path = path;
  options.threads = 1;
  absl::StatusOr<LoadedModel> loaded = LoadModel(options);
  std::remove(path.c_str());
  return loaded;
}

TEST(GgufModel, TheFileThatCasesBreakLoads) {
  const absl::StatusOr<LoadedModel> loaded = Load(SmallGguf().Bytes(), "whole");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->config().vocab_size, 264);
  EXPECT_EQ(loaded->tokenizer->Encode("ab", true).value(), (std::vector<int32_t>{1, 263}));
}

struct Case {
  const char* name;
  Code code;
  const char* message;  // a part of it
  std::function<void(GgufWriter&)> change;
  std::function<void(std::string&)> change_bytes = nullptr;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

// Replaces the bytes at `at`.
std::function<void(std::string&)> Put(size_t at, const std::string& bytes) {
  return [=](std::string& file) { file.replace(at, bytes.size(), bytes); };
}
std::function<void(std::string&)> Cut(double share) {
  return [=](std::string& file) { file.resize(static_cast<size_t>(file.size() * share)); };
}
// Replaces the bytes after the first `text`.
std::function<void(std::string&)> PutAfter(const std::string& text, const std::string& bytes) {
  return [=](std::string& file) {
    const size_t at = file.find(text);
    ASSERT_NE(at, std::string::npos);
    file.replace(at + text.size(), bytes.size(), bytes);
  };
}

constexpr uint64_t kHuge = uint64_t{1} << 62;
const auto kRaw64 = [](uint64_t value) { return GgufWriter::Raw(value); };
const auto kNothing = [](GgufWriter&) {};

template <typename T>
std::function<void(GgufWriter&)> Set(const std::string& key, const T& value) {
  return [=](GgufWriter& file) { file.Set(key, value); };
}
std::function<void(GgufWriter&)> Remove(const std::string& key) {
  return [=](GgufWriter& file) { file.Remove(key); };
}
std::function<void(GgufWriter&)> Change(const std::string& tensor,
                                        const std::function<void(GgufWriter::Tensor&)>& change) {
  return [=](GgufWriter& file) { change(file.tensor(tensor)); };
}

const char kUp[] = "blk.1.ffn_up.weight";

std::vector<Case> Cases() {
  using Type = GgufValueType;
  const auto raw = [](const std::string& key, Type type, const std::string& bytes) {
    return [=](GgufWriter& file) { file.SetRaw(key, type, bytes); };
  };
  return {
      // The container.
      {"Empty", Code::kDataLoss, "the file has only 0", kNothing, Cut(0)},
      {"OtherMagic", Code::kInvalidArgument, "not with GGUF",
       [](GgufWriter& f) { f.magic = "GGML"; }},
      {"PowerInfersFalcon", Code::kUnimplemented, "\"falcon\"",
       [](GgufWriter& f) {
         f.magic = "PWRI";
         f.Set("general.architecture", "falcon");
       }},
      {"PredictorOfNoPowerInfer", Code::kUnimplemented, "blk.0.fc1.weight",
       [](GgufWriter& f) { f.Add("blk.0.fc1.weight", {32}, std::vector<float>(32)); }},
      {"VersionZero", Code::kUnimplemented, "version 0", [](GgufWriter& f) { f.version = 0; }},
      {"VersionOne", Code::kUnimplemented, "version 1", [](GgufWriter& f) { f.version = 1; }},
      {"VersionFour", Code::kUnimplemented, "version 4", [](GgufWriter& f) { f.version = 4; }},
      {"BigEndian", Code::kUnimplemented, "big-endian",
       [](GgufWriter& f) { f.version = 0x03000000; }},
      {"CutInTheCounts", Code::kDataLoss, "the file has only", kNothing,
       [](std::string& f) { f.resize(20); }},
      {"CutInTheMetadata", Code::kDataLoss, "the file has only", kNothing,
       [](std::string& f) { f.resize(1000); }},
      {"CutInTheData", Code::kDataLoss, "the file has only", kNothing, Cut(0.5)},
      {"TooManyKeys", Code::kInvalidArgument, "keys, the limit", kNothing, Put(16, kRaw64(kHuge))},
      {"TooManyTensors", Code::kInvalidArgument, "tensors, the limit", kNothing,
       Put(8, kRaw64(~uint64_t{0}))},
      {"OneKeyTooMany", Code::kDataLoss, "the name of tensor 0 takes",
       [](GgufWriter& f) { f.extra_keys = 1; }},
      {"OneTensorTooMany", Code::kInvalidArgument, "the name of tensor 20 has 0 bytes",
       [](GgufWriter& f) { f.extra_tensors = 1; }},
      {"KeyLengthLies", Code::kDataLoss, "key 0 takes", kNothing, Put(24, kRaw64(kHuge))},
      {"KeyTwice", Code::kInvalidArgument, "twice",
       [](GgufWriter& f) { f.Repeat("llama.block_count"); }},
      {"EmptyKey", Code::kInvalidArgument, "has 0 bytes", Set("", 1u)},
      {"LongKey", Code::kInvalidArgument, "has 2000 bytes", Set(std::string(2000, 'k'), 1u)},
      {"KeyOfControlCharacters", Code::kInvalidArgument, "control characters", Set("a\nb", 1u)},
      {"UnknownValueType", Code::kInvalidArgument, "unknown type 13",
       raw("x", static_cast<Type>(13), "")},
      {"StringLengthLies", Code::kDataLoss, "takes", raw("x", Type::kString, kRaw64(kHuge))},
      {"StringLengthOverflows", Code::kDataLoss, "takes",
       raw("x", Type::kString, kRaw64(~uint64_t{0}))},
      {"ArrayCountLies", Code::kDataLoss, "elements",
       [](GgufWriter& f) { f.SetArray("x", Type::kUint64, kHuge, ""); }},
      {"ArrayOfStringsCountLies", Code::kDataLoss, "elements",
       [](GgufWriter& f) { f.SetArray("x", Type::kString, ~uint64_t{0}, ""); }},
      {"ArrayOfArrays", Code::kUnimplemented, "array of arrays",
       [](GgufWriter& f) { f.SetArray("x", Type::kArray, 1, ""); }},
      {"AlignmentZero", Code::kInvalidArgument, "power of two", Set("general.alignment", 0u)},
      {"AlignmentOddly", Code::kInvalidArgument, "power of two", Set("general.alignment", 48u)},
      {"AlignmentHuge", Code::kInvalidArgument, "power of two", Set("general.alignment", 1u << 31)},
      {"AlignmentIsText", Code::kInvalidArgument, "power of two", Set("general.alignment", "32")},
      // Tensors.
      {"TensorTwice", Code::kInvalidArgument, "twice",
       [](GgufWriter& f) { f.tensors.push_back(f.tensor(kUp)); }},
      {"NoDimensions", Code::kInvalidArgument, "0 dimensions",
       Change(kUp, [](auto& t) { t.dimensions.clear(); })},
      {"FiveDimensions", Code::kInvalidArgument, "5 dimensions",
       Change(kUp, [](auto& t) { t.dimensions.assign(5, 1); })},
      {"DimensionZero", Code::kInvalidArgument, "a dimension of 0",
       Change(kUp, [](auto& t) { t.dimensions[1] = 0; })},
      {"DimensionNegative", Code::kInvalidArgument, "a dimension of 18446744073709551615",
       Change(kUp, [](auto& t) { t.dimensions[0] = -1; })},
      {"ProductOverflows", Code::kInvalidArgument, "more than 2^63 bytes",
       Change(kUp,
              [](auto& t) {
                t.dimensions = {int64_t{1} << 32, int64_t{1} << 32};
              })},
      {"BytesOverflow", Code::kInvalidArgument, "more than 2^63 bytes",
       Change(kUp, [](auto& t) { t.dimensions = {int64_t{1} << 62}; })},
      {"LargerThanTheFile", Code::kDataLoss, "the file has only",
       Change(kUp,
              [](auto& t) {
                t.dimensions = {32, 1 << 20};
              })},
      {"UnknownTensorType", Code::kUnimplemented, "type 4,",
       Change(kUp, [](auto& t) { t.type = 4; })},
      {"UnreadTensorType", Code::kUnimplemented,
       "\"blk.1.ffn_up.weight\" is stored as type 16 (IQ2_XXS)",
       Change(kUp, [](auto& t) { t.type = 16; })},
      {"RowIsNoWholeBlock", Code::kInvalidArgument, "blocks of Q4_K have 256",
       Change(kUp, [](auto& t) { t.type = 12; })},
      {"OffsetUnaligned", Code::kInvalidArgument, "no multiple of 32",
       Change(kUp, [](auto& t) { t.offset = 33; })},
      {"OffsetBeyondTheFile", Code::kDataLoss, "the file has only",
       Change(kUp, [](auto& t) { t.offset = int64_t{1} << 40; })},
      {"OffsetOverflows", Code::kDataLoss, "the file has only",
       Change(kUp, [](auto& t) { t.offset = 0x7FFFFFFFFFFFFFE0; })},
      {"TensorsOverlap", Code::kInvalidArgument, "overlap",
       Change(kUp, [](auto& t) { t.offset = 0; })},
      {"DimensionsLie", Code::kInvalidArgument, "4294967295 dimensions", kNothing,
       PutAfter("token_embd.weight", "\xff\xff\xff\xff")},
      // A model that contradicts itself.
      {"NoArchitecture", Code::kUnimplemented, "architecture", Remove("general.architecture")},
      {"OtherArchitecture", Code::kUnimplemented, "\"bert\"", Set("general.architecture", "bert")},
      {"ArchitectureIsANumber", Code::kInvalidArgument, "not a text",
       Set("general.architecture", 3u)},
      {"Adapter", Code::kUnimplemented, "adapter", Set("general.type", "adapter")},
      {"PartWithoutAName", Code::kInvalidArgument, "--merge", Set("split.count", 3u)},
      {"TooManyParts", Code::kInvalidArgument, "split.count", Set("split.count", 513u)},
      {"PartBeyondTheLast", Code::kInvalidArgument, "split.no", Set("split.no", 1u)},
      {"NoLayers", Code::kInvalidArgument, "block_count", Set("llama.block_count", 0u)},
      {"MoreLayersThanThereAre", Code::kInvalidArgument, "no tensor", Set("llama.block_count", 3u)},
      {"FewerLayersThanThereAre", Code::kUnimplemented, "does not use",
       Set("llama.block_count", 1u)},
      {"LayersAreText", Code::kInvalidArgument, "whole number", Set("llama.block_count", "2")},
      {"HugeHiddenSize", Code::kInvalidArgument, "embedding_length",
       Set("llama.embedding_length", 1u << 31)},
      {"HeadsDoNotDivide", Code::kInvalidArgument, "do not divide",
       Set("llama.attention.head_count_kv", 3u)},
      {"HeadsDifferByLayer", Code::kUnimplemented, "layers that differ",
       Set("llama.attention.head_count", std::vector<int32_t>{4, 2})},
      {"NoEpsilon", Code::kInvalidArgument, "epsilon",
       Remove("llama.attention.layer_norm_rms_epsilon")},
      {"EpsilonIsNaN", Code::kInvalidArgument, "epsilon",
       Set("llama.attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN())},
      {"PartialRotation", Code::kUnimplemented, "rotation", Set("llama.rope.dimension_count", 4u)},
      {"LongRotation", Code::kUnimplemented, "\"longrope\"",
       Set("llama.rope.scaling.type", "longrope")},
      {"YarnOfAnotherMeaning", Code::kUnimplemented, "yarn_attn_factor 1.25",
       [](GgufWriter& f) {
         f.Set("llama.rope.scaling.type", "yarn");
         f.Set("llama.rope.scaling.factor", 4.0f);
         f.Set("llama.rope.scaling.yarn_attn_factor", 1.25f);
       }},
      {"YarnWithoutFrequencies", Code::kInvalidArgument, "no frequencies to choose from",
       [](GgufWriter& f) {
         f.Set("llama.rope.scaling.type", "yarn");
         f.Set("llama.rope.scaling.factor", 4.0f);
         f.Set("llama.rope.freq_base", 1.0f);
       }},
      {"Experts", Code::kUnimplemented, "experts", Set("llama.expert_count", 8u)},
      {"UnknownActivation", Code::kUnimplemented, "gelu", Set("llama.hidden_activation", "gelu")},
      {"ShapeOfAnotherModel", Code::kInvalidArgument, "shape",
       Set("llama.feed_forward_length", 65u)},
      {"Bias", Code::kUnimplemented, "attn_q.bias",
       [](GgufWriter& f) { f.Add("blk.0.attn_q.bias", {32}, std::vector<float>(32)); }},
      {"RotationFactorIsZero", Code::kInvalidArgument, "rope_freqs.weight holds 0",
       [](GgufWriter& f) {
         f.Add("rope_freqs.weight", {4}, {1, 2, 0, 1});
       }},
      {"TooManyRotationFactors", Code::kInvalidArgument, "rope_freqs.weight has shape [5]",
       [](GgufWriter& f) { f.Add("rope_freqs.weight", {5}, std::vector<float>(5, 1.0f)); }},
      {"TwoScaledRotations", Code::kUnimplemented, "another scaled rotation",
       [](GgufWriter& f) {
         f.Add("rope_freqs.weight", {4}, std::vector<float>(4, 1.0f));
         f.Set("llama.rope.scaling.factor", 2.0f);
       }},
      {"QueryRowsAreNoHeads", Code::kInvalidArgument, "heads have 8",
       Change("blk.0.attn_q.weight",
              [](auto& t) {
                t.dimensions = {32, 31};
              })},
      {"WeightIsNaN", Code::kInvalidArgument, "NaN",
       Change(kUp, [](auto& t) { t.data.replace(8, 4, "\xff\xff\xff\xff"); })},
      // The vocabulary.
      {"NoTokens", Code::kInvalidArgument, "tokenizer.ggml.tokens",
       Remove("tokenizer.ggml.tokens")},
      {"OneTokenLess", Code::kInvalidArgument, "types",
       Set("tokenizer.ggml.token_type", std::vector<int32_t>(263, 1))},
      {"TokensAreNumbers", Code::kInvalidArgument, "array of texts",
       Set("tokenizer.ggml.tokens", std::vector<int32_t>(264, 1))},
      {"UnknownTokenType", Code::kInvalidArgument, "unknown type 7",
       Set("tokenizer.ggml.token_type", std::vector<int32_t>(264, 7))},
      {"NoScores", Code::kInvalidArgument, "0 scores", Remove("tokenizer.ggml.scores")},
      {"ScoreIsInfinite", Code::kInvalidArgument, "score",
       Set("tokenizer.ggml.scores",
           std::vector<float>(264, std::numeric_limits<float>::infinity()))},
      {"TokenIsNoUtf8", Code::kInvalidArgument, "UTF-8", kNothing, PutAfter("</s", "\xff")},
      {"TokenTwice", Code::kInvalidArgument, "are both", kNothing, PutAfter("<0x4", "1")},
      {"NoUnknownToken", Code::kInvalidArgument, "type unknown",
       [](GgufWriter& f) {
         std::vector<int32_t> types(264, 1);
         f.Set("tokenizer.ggml.token_type", types);
       }},
      {"BosOutOfRange", Code::kInvalidArgument, "bos_token_id",
       Set("tokenizer.ggml.bos_token_id", 264u)},
      {"EosOutOfRange", Code::kInvalidArgument, "eos_token_id",
       Set("tokenizer.ggml.eos_token_id", ~0u)},
      {"OtherVocabulary", Code::kUnimplemented, "\"t5\"", Set("tokenizer.ggml.model", "t5")},
      {"NoPreTokenizer", Code::kInvalidArgument, "--pre-tokenizer",
       Set("tokenizer.ggml.model", "gpt2")},
      {"UnknownPreTokenizer", Code::kUnimplemented, "\"novel\"",
       [](GgufWriter& f) {
         f.Set("tokenizer.ggml.model", "gpt2");
         f.Set("tokenizer.ggml.pre", "novel");
       }},
      {"MergeIsNoPair", Code::kInvalidArgument, "not two tokens",
       [](GgufWriter& f) {
         f.Set("tokenizer.ggml.model", "gpt2");
         f.Set("tokenizer.ggml.pre", "gpt-2");
         f.Set("tokenizer.ggml.merges", std::vector<std::string>{"ab"});
       }},
      {"MergeOfUnknownTokens", Code::kInvalidArgument, "not in the vocabulary",
       [](GgufWriter& f) {
         f.Set("tokenizer.ggml.model", "gpt2");
         f.Set("tokenizer.ggml.pre", "gpt-2");
         f.Set("tokenizer.ggml.merges", std::vector<std::string>{"b c"});
       }},
  };
}

class GgufMalformedTest : public testing::TestWithParam<Case> {};

TEST_P(GgufMalformedTest, IsRefusedWithTheReason) {
  const Case& c = GetParam();
  GgufWriter file = SmallGguf();
  c.change(file);
  std::string bytes = file.Bytes();
  if (c.change_bytes) c.change_bytes(bytes);
  const absl::StatusOr<LoadedModel> loaded = Load(bytes, c.name);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), c.code) << loaded.status();
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr(c.message));
}

INSTANTIATE_TEST_SUITE_P(Cases, GgufMalformedTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

// Whatever byte is wrong: no crash, and what loads has weights.
TEST(GgufModel, EveryByteOfTheHeaderMayBeWrong) {
  const std::string whole = SmallGguf().Bytes();
  const size_t header = whole.find("token_embd.weight") + 2000;
  for (size_t at = 0; at < header; ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
    const absl::StatusOr<GgufHeader> parsed =
        ParseGgufHeader(bytes, static_cast<int64_t>(bytes.size()));
    if (!parsed.ok()) {
      ASSERT_NE(parsed.status().code(), Code::kOutOfRange) << at;
    }
  }
  for (size_t size = 0; size < header; ++size) {
    const auto short_file = ParseGgufHeader(whole.substr(0, size), static_cast<int64_t>(size));
    ASSERT_EQ(short_file.status().code(), Code::kDataLoss) << size;
    if (size > 3500) continue;
    const auto more_follows =
        ParseGgufHeader(whole.substr(0, size), static_cast<int64_t>(whole.size()));
    ASSERT_EQ(more_follows.status().code(), Code::kOutOfRange) << size;
  }
}

}  // namespace
}  // namespace lacuna
