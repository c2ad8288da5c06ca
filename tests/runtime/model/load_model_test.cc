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
  const std::string model = LACUNA_SOURCE_DIR "/models/lacuna-novels-3m/";
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
  options.path = LACUNA_SOURCE_DIR "/models/lacuna-novels-3m";
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
  options.path = LACUNA_SOURCE_DIR "/models/lacuna-novels-3m";
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
