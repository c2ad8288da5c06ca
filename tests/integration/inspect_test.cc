// `lacuna inspect` and `lacuna-server --inspect` as processes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/client/process.h"

namespace lacuna {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kEmbedded[] = LACUNA_SOURCE_DIR "/models/lacuna-stories-3m";
constexpr char kGguf[] = LACUNA_SOURCE_DIR "/tests/data/golden/gguf/tiny.gguf";

Process::Result Inspect(std::vector<std::string> args) {
  args.insert(args.begin(), {LACUNA_BINARY, "inspect"});
  return Process(args).Wait();
}

TEST(InspectTest, TellsPeopleWhatAModelIs) {
  const Process::Result result = Inspect({kEmbedded});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, IsEmpty());
  for (const char* part :
       {"SparseLlamaForCausalLM", "fatrelu:0.3, gated: sparse", "3.5 M parameters", "BF16 6.7 MiB",
        "SentencePiece BPE, 4096 ids", "no chat template", "int4", "auto"}) {
    EXPECT_THAT(result.out, HasSubstr(part));
  }
  EXPECT_THAT(Inspect({kGguf}).out, HasSubstr("warning"));
  EXPECT_THAT(Inspect({kGguf, "--activation=fatrelu:0.25"}).out, HasSubstr("fatrelu:0.25, gated"));
}

TEST(InspectTest, TellsMachinesOneObjectALine) {
  const Process::Result result = Inspect({"--json", kEmbedded, kGguf});
  EXPECT_EQ(result.exit_code, 0);
  const size_t end = result.out.find('\n');
  ASSERT_NE(end, std::string::npos);
  const json embedded = json::parse(result.out.substr(0, end));
  EXPECT_EQ(embedded.at("path"), kEmbedded);
  EXPECT_EQ(embedded.at("activation"), "fatrelu");
  EXPECT_TRUE(embedded.at("sparse"));
  EXPECT_EQ(embedded.at("parameters"), 3491904);
  EXPECT_EQ(embedded.at("auto_weights"), "bf16");
  for (const char* weights : {"f32", "bf16", "int8", "int4"}) {
    EXPECT_GT(embedded.at("memory").at(weights).at("weight_bytes"), 0) << weights;
  }
  EXPECT_THAT(embedded.at("warnings"), IsEmpty());
  const json gguf = json::parse(result.out.substr(end));
  EXPECT_EQ(gguf.at("architecture"), "llama");
  EXPECT_FALSE(gguf.at("sparse"));
  EXPECT_EQ(gguf.at("warnings").size(), 2);
}

TEST(InspectTest, ARefusalIsExitCodeThreeWithTheReason) {
  const fs::path copy = fs::path(testing::TempDir()) / "lacuna_inspect_broken";
  fs::remove_all(copy);
  fs::copy(kEmbedded, copy);
  fs::resize_file(copy / "model.safetensors", 100'000);
  const Process::Result text = Inspect({copy});
  EXPECT_EQ(text.exit_code, 3);
  EXPECT_THAT(text.out, IsEmpty());
  EXPECT_THAT(text.err, HasSubstr("model.safetensors"));
  const Process::Result object = Inspect({"--json", copy, kGguf});
  EXPECT_EQ(object.exit_code, 3);
  const json broken = json::parse(object.out.substr(0, object.out.find('\n')));
  EXPECT_EQ(broken.at("error").at("code"), "DATA_LOSS");
  EXPECT_THAT(broken.at("error").at("message"), HasSubstr("model.safetensors"));
  EXPECT_THAT(object.out, HasSubstr("\"architecture\":\"llama\""));
  fs::remove_all(copy);
  EXPECT_EQ(Inspect({"/no/such/model"}).exit_code, 3);
}

TEST(InspectTest, BadUsageIsExitCodeTwo) {
  EXPECT_EQ(Inspect({}).exit_code, 2);
  EXPECT_EQ(Inspect({"--no_such_flag", kEmbedded}).exit_code, 2);
  EXPECT_EQ(Inspect({kEmbedded, "--activation=gelu"}).exit_code, 2);
  EXPECT_EQ(Process({LACUNA_SERVER_BINARY, "--inspect=xml"}).Wait().exit_code, 2);
}

TEST(InspectTest, WithoutTheServersBinaryItSaysWhatIsMissing) {
  const fs::path folder = fs::path(testing::TempDir()) / "lacuna_inspect_alone";
  fs::create_directories(folder);
  fs::copy_file(LACUNA_BINARY, folder / "lacuna", fs::copy_options::overwrite_existing);
  const Process::Result result = Process({folder / "lacuna", "inspect", kEmbedded}).Wait();
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr((folder / "lacuna-server").string()));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace lacuna
