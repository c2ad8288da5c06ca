#include "runtime/model/load_model.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

// The embedded model's configuration and tokenizer of 4,096 ids, with so many embeddings.
absl::Status LoadWithVocabulary(int32_t vocab_size) {
  const std::string model = LACUNA_SOURCE_DIR "/models/lacuna-stories-3m/";
  const TempDir dir;
  std::filesystem::copy(model + "tokenizer.model", dir.File("tokenizer.model"));
  std::ostringstream config;
  config << std::ifstream(model + "config.json").rdbuf();
  dir.Write("config.json",
            absl::StrReplaceAll(config.str(), {{"\"vocab_size\": 4096",
                                                absl::StrCat("\"vocab_size\": ", vocab_size)}}));
  LoadOptions options;
  options.path = dir.path();
  return LoadModel(options).status();
}

TEST(LoadModel, RefusesATokenizerThatCannotBeTheModels) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_TRUE(IsError(LoadWithVocabulary(4095), kInvalid,
                      "the tokenizer has 4096 ids, the model only 4095 embeddings"));
  EXPECT_TRUE(IsError(LoadWithVocabulary(50272), kInvalid,
                      "the tokenizer has 4096 ids, the model 50272 embeddings, which is more than "
                      "padding: they do not belong together; fetch the tokenizer's files"));
  // Padding is not refused: the weights are the next thing that is missing.
  for (const int32_t vocab_size : {4096, 4096 + 1024}) {
    EXPECT_TRUE(IsError(LoadWithVocabulary(vocab_size), absl::StatusCode::kNotFound, "safetensors"))
        << vocab_size;
  }
}

// OPT's configuration, whose texts begin and end with token 2, and a tokenizer of as many ids.
absl::Status LoadOptWithTokens(const char* vocab, const char* special_tokens) {
  const TempDir dir;
  const std::string config = LACUNA_SOURCE_DIR "/tests/data/golden/opt/config.json";
  std::filesystem::copy(config, dir.File("config.json"));
  dir.Write("vocab.json", vocab);
  dir.Write("merges.txt", "#version: 0.2\n");
  dir.Write("special_tokens_map.json", special_tokens);
  LoadOptions options;
  options.path = dir.path();
  return LoadModel(options).status();
}

TEST(LoadModel, RefusesATokenizerOfTheRightSizeWithOtherControlTokens) {
  EXPECT_TRUE(IsError(LoadOptWithTokens(R"({"a": 0, "b": 1, "c": 2, "<|endoftext|>": 130})", "{}"),
                      absl::StatusCode::kInvalidArgument,
                      "the model's texts begin with token 2 and end with 2, no control tokens of "
                      "the tokenizer, whose own are 130 and 130: they do not belong together; "
                      "fetch the tokenizer's files"));
  // Without special_tokens_map.json, OPT's own files say no more than their names.
  const char* const opt = R"({"<s>": 0, "<pad>": 1, "</s>": 2, "a": 130})";
  EXPECT_TRUE(IsError(LoadOptWithTokens(opt, "{}"), absl::StatusCode::kInvalidArgument,
                      "whose files name none (tokenizer_config.json or"));
  // The weights are the next thing that is missing.
  for (const char* const special :
       {R"({"bos_token": "</s>", "eos_token": "</s>"})", R"({"eos_token": "</s>"})"}) {
    EXPECT_TRUE(
        IsError(LoadOptWithTokens(opt, special), absl::StatusCode::kNotFound, "safetensors"));
  }
}

TEST(LoadModel, PathsThatCannotBeLookedAtAreErrors) {
  LoadOptions options;
  options.path = std::string(300, 'x');  // longer than a file system's names
  EXPECT_TRUE(IsError(LoadModel(options).status(), absl::StatusCode::kInvalidArgument, "xxx"));
  const TempDir dir;
  dir.Write("config.json", "{}");
  std::filesystem::create_symlink("generation_config.json", dir.File("generation_config.json"));
  options.path = dir.path();
  EXPECT_TRUE(IsError(LoadModel(options).status(), absl::StatusCode::kUnknown,
                      "generation_config.json: Too many levels of symbolic links"));
}

TEST(LoadModel, AnActivationMayBeReplaced) {
  LoadOptions options;
  options.path = LACUNA_SOURCE_DIR "/models/lacuna-stories-3m";
  options.threads = 1;
  options.activation = "drelu";
  const auto loaded = LoadModel(options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->config().activation.kind, ActivationKind::kDRelu);
  options.activation = "gelu";
  EXPECT_TRUE(IsError(LoadModel(options).status(), absl::StatusCode::kInvalidArgument,
                      "activation \"gelu\": want relu, fatrelu:T"));
}

TEST(LoadModel, ADeviceThatIsNotThereIsNeverReplaced) {
  LoadOptions options;
  options.path = LACUNA_SOURCE_DIR "/models/lacuna-stories-3m";
  options.threads = 1;
  options.device = "cuda:99";
  const absl::Status status = LoadModel(options).status();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(std::string(status.message()).rfind("--device=cuda:99: ", 0), 0u) << status;
  options.device = "cpu";
  const auto loaded = LoadModel(options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->facts().device, "cpu");
  EXPECT_THAT(loaded->warnings, testing::Each(testing::Not(testing::HasSubstr("--device"))));
}

}  // namespace
}  // namespace lacuna
