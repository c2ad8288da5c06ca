// Files of PowerInfer, whose format is known from the programs that write and read it (convert.py,
// gguf-py and llama.cpp of github.com/SJTU-IPADS/PowerInfer).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "runtime/model/load_model.h"
#include "tests/runtime/base/testing.h"
#include "tests/runtime/model/gguf_writer.h"

namespace lacuna {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The small model as PowerInfer writes it: a magic of its own, down_proj transposed, predictors of
// 24 units.
GgufWriter PowerInfer(const std::string& architecture) {
  GgufWriter file = SmallGguf(architecture);
  file.magic = "PWRI";
  file.Set("powerinfer.sparse_threshold", 0.5f);
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    GgufWriter::Tensor& down = file.tensor(layer + "ffn_down.weight");
    const int64_t neurons = down.dimensions[0], hidden = down.dimensions[1];
    std::string transposed(down.data.size(), '\0');
    for (int64_t n = 0; n < neurons; ++n) {
      for (int64_t h = 0; h < hidden; ++h) {
        std::memcpy(&transposed[(n * hidden + h) * 4], &down.data[(h * neurons + n) * 4], 4);
      }
    }
    down = {layer + "ffn_down_t.weight", {hidden, neurons}, 0, transposed};
    file.Add(layer + "fc1.weight", {hidden, 24}, std::vector<float>(hidden * 24));
    file.Add(layer + "fc2.weight", {24, neurons}, std::vector<float>(neurons * 24));
  }
  return file;
}

absl::StatusOr<LoadedModel> Load(const GgufWriter& file, const std::string& activation = "",
                                 const std::string& weights = "auto") {
  const TempDir dir;
  dir.Write("m.gguf", file.Bytes());
  LoadOptions options;
  options.path = dir.File("m.gguf");
  options.activation = activation;
  options.weights = weights;
  options.threads = 1;
  return LoadModel(options);
}

std::vector<float> Logits(const absl::StatusOr<LoadedModel>& loaded) {
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  if (!loaded.ok()) return {};
  const std::vector<int32_t> tokens = {1, 17, 40, 263, 5}, blocks = {0};
  const auto cache =
      KvCache::Create(loaded->model->config(), 1, loaded->model->facts().kv_type).value();
  SequenceChunk chunk;
  chunk.tokens = tokens;
  chunk.block_table = blocks;
  chunk.logits = static_cast<int32_t>(tokens.size());
  const auto out = loaded->model->Forward({chunk}, FfnMode::kAuto, cache.get());
  return {out->logits.begin(), out->logits.end()};
}

TEST(GgufPowerInfer, LlamaIsTheSameModelWithRelu) {
  for (const char* const weights : {"f32", "bf16", "int8"}) {
    const auto loaded = Load(PowerInfer("llama"), "", weights);
    const std::vector<float> logits = Logits(loaded);
    EXPECT_EQ(logits, Logits(Load(SmallGguf(), "relu", weights)));
    EXPECT_NE(logits, Logits(Load(SmallGguf(), "silu", weights)));
    EXPECT_EQ(loaded->model->config().activation.kind, ActivationKind::kRelu);
    EXPECT_THAT(loaded->warnings, ElementsAre(HasSubstr("relu, as PowerInfer computes")));
  }
  const auto fatrelu = Load(PowerInfer("llama"), "fatrelu:0.25");
  EXPECT_EQ(Logits(fatrelu), Logits(Load(SmallGguf(), "fatrelu:0.25")));
  EXPECT_THAT(fatrelu->warnings, IsEmpty());
}

TEST(GgufPowerInfer, BambooIsDRelu) {
  const auto loaded = Load(PowerInfer("bamboo"));
  const std::vector<float> logits = Logits(loaded);
  EXPECT_EQ(logits, Logits(Load(SmallGguf(), "drelu")));
  EXPECT_THAT(loaded->warnings, IsEmpty());
  // As convert-dense.py writes it: the common magic, down_proj as it is.
  EXPECT_EQ(Logits(Load(SmallGguf("bamboo"))), logits);
}

TEST(GgufPowerInfer, ATransposedMatrixMustHaveTheShapeOfOne) {
  GgufWriter file = PowerInfer("llama");
  GgufWriter::Tensor& down = file.tensor("blk.1.ffn_down_t.weight");
  std::swap(down.dimensions[0], down.dimensions[1]);
  EXPECT_TRUE(IsError(Load(file).status(), absl::StatusCode::kInvalidArgument,
                      "mlp.down_proj.weight has shape [32, 64], its configuration calls for [64, "
                      "32]"));
}

}  // namespace
}  // namespace lacuna
