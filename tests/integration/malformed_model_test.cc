// A model that is corrupted, truncated or that lies ends the real server with exit code 3 and one
// error line, whatever is wrong with it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "tests/integration/server_process.h"

namespace lacuna {
namespace {

namespace fs = std::filesystem;

std::string ReadAll(const fs::path& path) {
  std::ostringstream contents;
  contents << std::ifstream(path, std::ios::binary).rdbuf();
  return contents.str();
}

void WriteAll(const fs::path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

using Mutation = std::function<void(const fs::path& directory)>;

// Replaces the first `from` of a file; a header keeps its length if `to` is as long.
Mutation Replace(const std::string& file, const std::string& from, const std::string& to) {
  return [=](const fs::path& directory) {
    std::string contents = ReadAll(directory / file);
    const size_t at = contents.find(from);
    ASSERT_NE(at, std::string::npos) << file << " has no " << from;
    WriteAll(directory / file, contents.replace(at, from.size(), to));
  };
}
Mutation Config(const std::string& from, const std::string& to) {
  return Replace("config.json", from, to);
}
Mutation Header(const std::string& from, const std::string& to) {
  return Replace("model.safetensors", from, to);
}
Mutation Truncate(const std::string& file, double share) {
  return [=](const fs::path& directory) {
    const auto size = static_cast<double>(fs::file_size(directory / file));
    fs::resize_file(directory / file, static_cast<uintmax_t>(size * share));
  };
}
Mutation Overwrite(const std::string& file, size_t at, const std::string& bytes) {
  return [=](const fs::path& directory) {
    std::string contents = ReadAll(directory / file);
    WriteAll(directory / file, contents.replace(at, bytes.size(), bytes));
  };
}
Mutation Append(const std::string& file, const std::string& bytes) {
  return [=](const fs::path& directory) {
    WriteAll(directory / file, ReadAll(directory / file) + bytes);
  };
}
Mutation Remove(const std::string& file) {
  return [=](const fs::path& directory) { fs::remove(directory / file); };
}

struct Case {
  const char* name;
  Mutation mutate;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> Cases() {
  const std::string zeros(8, '\0'), ones(8, '\xff');
  return {
      {"NoConfig", Remove("config.json")},
      {"EmptyConfig", Truncate("config.json", 0)},
      {"HalfAConfig", Truncate("config.json", 0.5)},
      {"ConfigIsAnArray", Config("{", "[{")},
      {"ConfigIsBinary", Overwrite("config.json", 0, std::string("\0\1\2\3", 4))},
      {"UnknownArchitecture", Config("SparseLlamaForCausalLM", "NoSuchForCausalLM")},
      {"UnknownActivation", Config("\"fatrelu\"", "\"gelu_new\"")},
      {"ThresholdIsText", Config("\"hidden_act_param\": ", "\"hidden_act_param\": \"x\", \"y\": ")},
      {"NegativeThreshold", Config("\"hidden_act_param\": ", "\"hidden_act_param\": -")},
      {"NoLayers", Config("\"num_hidden_layers\": ", "\"num_hidden_layers\": 0, \"a\": ")},
      {"TooManyLayers", Config("\"num_hidden_layers\": ", "\"num_hidden_layers\": 1000")},
      {"MoreLayersThanTheFileHas", Config("\"num_hidden_layers\": ", "\"num_hidden_layers\": 1")},
      {"NoHeads", Config("\"num_attention_heads\": ", "\"num_attention_heads\": 0, \"a\": ")},
      {"HeadsThatDoNotDivide",
       Config("\"num_attention_heads\": ", "\"num_attention_heads\": 7, \"a\": ")},
      {"NegativeHiddenSize", Config("\"hidden_size\": ", "\"hidden_size\": -")},
      {"HugeHiddenSize", Config("\"hidden_size\": ", "\"hidden_size\": 99999999")},
      {"FractionalFfnSize",
       Config("\"intermediate_size\": ", "\"intermediate_size\": 0.5, \"a\": ")},
      {"WrongFfnSize", Config("\"intermediate_size\": ", "\"intermediate_size\": 1")},
      {"WrongVocabulary", Config("\"vocab_size\": ", "\"vocab_size\": 1")},
      {"ZeroEpsilon", Config("\"rms_norm_eps\": ", "\"rms_norm_eps\": 0, \"a\": ")},
      {"EosOutOfRange", Config("\"eos_token_id\": ", "\"eos_token_id\": 99999")},
      {"DuplicateKey", Config("{", "{\"hidden_size\": 1, ")},
      {"NoWeights", Remove("model.safetensors")},
      {"EmptyWeights", Truncate("model.safetensors", 0)},
      {"WeightsCutInTheHeader", Truncate("model.safetensors", 1e-5)},
      {"HalfTheWeights", Truncate("model.safetensors", 0.5)},
      {"WeightsLackTheLastByte", Truncate("model.safetensors", 0.9999999)},
      {"TrailingByte", Append("model.safetensors", "x")},
      {"HeaderLengthZero", Overwrite("model.safetensors", 0, zeros)},
      {"HeaderLengthHuge", Overwrite("model.safetensors", 0, ones)},
      {"HeaderIsNoJson", Overwrite("model.safetensors", 8, "}}}}")},
      {"HeaderIsNoUtf8", Overwrite("model.safetensors", 12, "\xff\xfe")},
      {"UnknownType", Header("\"BF16\"", "\"XF16\"")},
      {"TypeOfAnotherSize", Header("\"BF16\"", "\"F64\" ")},
      {"NegativeOffset", Header("\"data_offsets\":[0,", "\"data_offsets\":[-,")},
      {"Hole", Header("\"data_offsets\":[0,", "\"data_offsets\":[8,")},
      {"TensorMissing", Header("model.norm.weight", "model.morn.weight")},
      {"ShapeLies", Header("\"shape\":[", "\"shape\":[9")},
      {"NoTokenizer", Remove("tokenizer.model")},
      {"EmptyTokenizer", Truncate("tokenizer.model", 0)},
      {"HalfATokenizer", Truncate("tokenizer.model", 0.5)},
      {"TokenizerIsText", Overwrite("tokenizer.model", 0, "this is not a tokenizer")},
      {"TokenizerOfRandomBytes", Overwrite("tokenizer.model", 100, std::string(400, '\xee'))},
      {"WeightsArePickle",
       [](const fs::path& directory) {
         fs::rename(directory / "model.safetensors", directory / "pytorch_model.bin");
       }},
  };
}

class MalformedModelTest : public testing::TestWithParam<Case> {};

TEST_P(MalformedModelTest, IsExitCodeThreeAndOneLine) {
  const fs::path original = [] {
    for (const auto& entry : fs::directory_iterator(LACUNA_SOURCE_DIR "/models")) {
      if (fs::exists(entry.path() / "config.json")) return entry.path();
    }
    return fs::path();
  }();
  const fs::path copy = fs::path(testing::TempDir()) / (std::string("lacuna_") + GetParam().name);
  fs::remove_all(copy);
  fs::copy(original, copy);
  GetParam().mutate(copy);
  // Without metrics the process need not wait for the HTTP server to stop.
  ServerProcess server({"--model=broken=" + copy.string(), "--metrics_listen="});
  EXPECT_FALSE(server.WaitListening());
  EXPECT_EQ(server.Wait(), 3);
  const std::string errors = server.Errors();
  const std::vector<std::string> lines = absl::StrSplit(errors, '\n', absl::SkipEmpty());
  const auto is_error = [](const std::string& line) {
    return absl::StrContains(line, "\"level\":\"error\"");
  };
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(), is_error), 1) << errors;
  EXPECT_TRUE(is_error(lines.back())) << "the reason is not the last line: " << errors;
  fs::remove_all(copy);
}

INSTANTIATE_TEST_SUITE_P(Mutations, MalformedModelTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace lacuna
