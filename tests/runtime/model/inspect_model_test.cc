#include "runtime/model/inspect_model.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "tests/runtime/base/testing.h"

namespace lacuna {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kGolden[] = LACUNA_SOURCE_DIR "/tests/data/golden/";

// A golden checkpoint, which has no tokenizer, with one of three ids.
class GoldenCopy {
 public:
  explicit GoldenCopy(const std::string& name) {
    fs::copy(kGolden + name, dir_.path(), fs::copy_options::recursive);
    dir_.Write("vocab.json", R"({"a": 0, "b": 1, "<|endoftext|>": 2})");
    dir_.Write("merges.txt", "#version: 0.2\n");
  }
  const TempDir& dir() const { return dir_; }
  LoadOptions Options(const std::string& weights = "auto") const {
    LoadOptions options;
    options.path = dir_.path();
    options.weights = weights;
    options.threads = 2;
    return options;
  }

 private:
  TempDir dir_;
};

ModelInspection Inspect(const std::string& golden) {
  const absl::StatusOr<ModelInspection> inspection = InspectModel(GoldenCopy(golden).Options());
  EXPECT_TRUE(inspection.ok()) << golden << ": " << inspection.status();
  return inspection.ok() ? *inspection : ModelInspection();
}

TEST(InspectModel, SaysOfEveryArchitectureWhatLoadingThenDoes) {
  int checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(kGolden)) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path());
    ++checkpoints;
    const GoldenCopy copy(entry.path().filename());
    const absl::StatusOr<ModelInspection> inspection = InspectModel(copy.Options());
    ASSERT_TRUE(inspection.ok()) << inspection.status();
    for (const MemoryNeed& need : inspection->memory) {
      const absl::StatusOr<LoadedModel> loaded = LoadModel(copy.Options(DTypeName(need.weights)));
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      const ModelFacts& facts = loaded->model->facts();
      EXPECT_EQ(inspection->parameters, facts.parameters);
      EXPECT_EQ(need.weight_bytes, facts.weight_bytes);
      EXPECT_EQ(need.loading_bytes > need.weight_bytes, IsQuantized(need.weights));
      EXPECT_EQ(need.kv_bytes_per_1000_tokens,
                KvCache::BytesPerBlock(inspection->config, facts.kv_type) * 63);
      EXPECT_EQ(inspection->warnings, loaded->warnings);
    }
    EXPECT_EQ(LoadModel(copy.Options())->model->facts().weights,
              DTypeName(inspection->auto_weights));
  }
  EXPECT_GE(checkpoints, 16);
}

TEST(InspectModel, WarnsOfWhatFilesDoNotMean) {
  EXPECT_THAT(Inspect("relu_mha_untied").warnings, IsEmpty());
  EXPECT_THAT(Inspect("minicpm_mup").warnings, IsEmpty());
  EXPECT_THAT(Inspect("bamboo_drelu").warnings,
              ElementsAre(HasSubstr("hidden_act is \"relu\", but a BambooForCausalLM computes "
                                    "dReLU")));
  EXPECT_THAT(Inspect("llama_sparse_relu").warnings,
              ElementsAre(HasSubstr("hidden_act is \"silu\", but models of this model_type "
                                    "compute ReLU")));
  EXPECT_THAT(Inspect("minicpm_llama_format").warnings,
              ElementsAre(HasSubstr("mean nothing in this architecture")));
  EXPECT_THAT(Inspect("silu_gqa_tied").warnings, ElementsAre(HasSubstr("served dense")));
}

TEST(InspectModel, WarnsOfAnUnusedLmHeadAndABrokenChatTemplate) {
  const GoldenCopy copy("relu_mha_untied");
  std::ifstream file(copy.dir().File("config.json"));
  std::string config((std::istreambuf_iterator<char>(file)), {});
  const std::string untied = "\"tie_word_embeddings\": false";
  ASSERT_NE(config.find(untied), std::string::npos);
  config.replace(config.find(untied), untied.size(), "\"tie_word_embeddings\": true");
  copy.dir().Write("config.json", config);
  copy.dir().Write("chat_template.jinja", "{% for");
  const absl::StatusOr<ModelInspection> inspection = InspectModel(copy.Options());
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  EXPECT_FALSE(inspection->has_chat_template);
  EXPECT_THAT(inspection->warnings,
              ElementsAre(HasSubstr("lm_head"), HasSubstr("its chat template cannot be used")));
}

TEST(InspectModel, SaysNothingOfADeclaredActivationThatIsReplaced) {
  const GoldenCopy copy("bamboo_drelu");
  LoadOptions options = copy.Options();
  options.activation = "fatrelu:0.5";
  const absl::StatusOr<ModelInspection> inspection = InspectModel(options);
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  EXPECT_EQ(inspection->config.activation.threshold, 0.5f);
  EXPECT_THAT(inspection->warnings, IsEmpty());
}

TEST(InspectModel, ReadsGgufFiles) {
  LoadOptions options;
  options.path = std::string(kGolden) + "gguf/tiny.gguf";
  const absl::StatusOr<ModelInspection> inspection = InspectModel(options);
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  EXPECT_EQ(inspection->config.architecture, "llama");
  EXPECT_EQ(inspection->tokenizer_kind, "SentencePiece BPE");
  EXPECT_EQ(inspection->tokenizer_ids, 300);
  EXPECT_EQ(inspection->stored_bytes,
            (std::map<std::string, int64_t>{{"F32", 4 * inspection->parameters}}));
  EXPECT_THAT(inspection->warnings,
              ElementsAre(HasSubstr("does not say which activation"), HasSubstr("served dense")));
}

TEST(InspectModel, ReadsNoWeights) {
  const GoldenCopy copy("relu_mha_untied");
  const std::string path = copy.dir().File("model.safetensors");
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(fs::file_size(path)) - 4096);
  file << std::string(4096, '\xFF');  // NaNs
  file.close();
  EXPECT_TRUE(InspectModel(copy.Options()).ok());
  EXPECT_TRUE(IsError(LoadModel(copy.Options()).status(), absl::StatusCode::kInvalidArgument,
                      "holds an infinity or a NaN"));
}

TEST(InspectModel, RefusesWhatLoadingRefuses) {
  const auto refusal = [](const GoldenCopy& copy) {
    const absl::Status status = InspectModel(copy.Options()).status();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(status, LoadModel(copy.Options()).status());
    return std::string(status.message());
  };
  const GoldenCopy truncated("relu_mha_untied");
  fs::resize_file(truncated.dir().File("model.safetensors"), 20'000);
  EXPECT_THAT(refusal(truncated), HasSubstr("model.safetensors"));
  const GoldenCopy shard("relu_gqa_untied_sharded");
  fs::remove(shard.dir().File("model-00002-of-00002.safetensors"));
  EXPECT_THAT(refusal(shard), HasSubstr("model-00002-of-00002.safetensors"));
  const GoldenCopy tokenizer("opt");
  fs::remove(tokenizer.dir().File("merges.txt"));
  EXPECT_THAT(refusal(tokenizer), HasSubstr("has no tokenizer.model"));
  const GoldenCopy empty("opt");
  empty.dir().Write("config.json", "{}");
  EXPECT_THAT(refusal(empty), HasSubstr("neither architectures nor model_type"));
}

}  // namespace
}  // namespace lacuna
