#include "server/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

namespace lacuna {
namespace {

using testing::HasSubstr;

class OptionsTest : public testing::Test {
 protected:
  absl::StatusOr<std::optional<ServerOptions>> Parse(std::vector<std::string> args) {
    return ParseServerOptions(
        std::move(args),
        [this](const char* name) {
          const auto it = environment_.find(name);
          return it == environment_.end() ? nullptr : it->second.c_str();
        },
        &out_);
  }
  ServerOptions Good(std::vector<std::string> args) {
    const auto options = Parse(std::move(args));
    EXPECT_TRUE(options.ok()) << options.status();
    return options.ok() && options->has_value() ? **options : ServerOptions();
  }

  std::map<std::string, std::string> environment_;
  std::ostringstream out_;
};

TEST_F(OptionsTest, DefaultsAreThoseOfTheContract) {
  const ServerOptions options = Good({"--model=/m/some-model"});
  EXPECT_EQ(options.listen, "127.0.0.1:50051");
  EXPECT_EQ(options.metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(options.admin_listen, "");
  EXPECT_EQ(options.max_concurrent, 64);
  EXPECT_EQ(options.max_queue, 256);
  EXPECT_EQ(options.max_step_tokens, 512);
  EXPECT_EQ(options.drain_timeout, absl::Seconds(45));
  EXPECT_EQ(options.ffn, FfnMode::kAuto);
  EXPECT_FALSE(options.reflection);
  ASSERT_EQ(options.models.size(), 1u);
  EXPECT_EQ(options.models[0].name, "some-model");
  EXPECT_EQ(options.models[0].path, "/m/some-model");
}

TEST_F(OptionsTest, ModelsRepeatAndCarryNames) {
  const ServerOptions options = Good({"--model=a=/x/y", "--model", "b=/z", "--model=/q/c/"});
  ASSERT_EQ(options.models.size(), 3u);
  EXPECT_EQ(options.models[0].name, "a");
  EXPECT_EQ(options.models[1].path, "/z");
  EXPECT_EQ(options.models[2].name, "c");
}

TEST_F(OptionsTest, CommandLineWinsOverEnvironmentWinsOverFile) {
  const std::string path = testing::TempDir() + "/lacuna_options_test.conf";
  std::ofstream(path) << "max_queue=1\nmax_concurrent=1\nthreads=1\nffn=\"dense\"\n"
                      << "drain_timeout=\"3s\"\n";
  environment_ = {
      {"LACUNA_MAX_QUEUE", "2"}, {"LACUNA_MAX_CONCURRENT", "2"}, {"LACUNA_CONFIG", path}};
  const ServerOptions options = Good({"--model=/m", "--max_queue=3"});
  EXPECT_EQ(options.max_queue, 3);
  EXPECT_EQ(options.max_concurrent, 2);
  EXPECT_EQ(options.threads, 1);
  EXPECT_EQ(options.ffn, FfnMode::kDense);
  EXPECT_EQ(options.drain_timeout, absl::Seconds(3));
  std::remove(path.c_str());
}

TEST_F(OptionsTest, ModelsOfTheEnvironmentAreReplacedByTheCommandLine) {
  environment_ = {{"LACUNA_MODEL", "a=/a,b=/b"}};
  EXPECT_EQ(Good({}).models.size(), 2u);
  EXPECT_EQ(Good({"--model=/c"}).models.size(), 1u);
}

TEST_F(OptionsTest, HelpAndVersionArePrinted) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help.ok());
  EXPECT_FALSE(help->has_value());
  EXPECT_THAT(out_.str(), HasSubstr("--kv_cache_mb"));
  EXPECT_THAT(out_.str(), HasSubstr("Exit codes"));
  out_.str("");
  ASSERT_TRUE(Parse({"--version"}).ok());
  EXPECT_THAT(out_.str(), HasSubstr("lacuna-server "));
}

TEST_F(OptionsTest, FlagsSwitchOff) {
  const ServerOptions options =
      Good({"--model=/m", "--vllm_metrics=false", "--prefix_cache=false", "--metrics_listen="});
  EXPECT_FALSE(options.vllm_metrics);
  EXPECT_FALSE(options.prefix_cache);
  EXPECT_EQ(options.metrics_listen, "");
}

class BadOptionsTest : public OptionsTest, public testing::WithParamInterface<const char*> {};

TEST_P(BadOptionsTest, AreRefusedByName) {
  const std::string arg = GetParam();
  const auto options = Parse({"--model=/m", arg});
  ASSERT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument) << arg;
  const std::string flag = arg.substr(0, arg.find('='));
  EXPECT_THAT(std::string(options.status().message()), HasSubstr(flag.substr(0, 6)));
}

INSTANTIATE_TEST_SUITE_P(
    Flags, BadOptionsTest,
    testing::Values("--no_such_flag=1", "--write_stall_timeout=0s", "--engine_stall_timeout=10ms",
                    "--listen=nowhere", "--listen=:1", "--listen=h:70000", "--metrics_listen=x",
                    "--weights=f8", "--ffn=fast", "--device=tpu", "--device=cuda:-1",
                    "--threads=-1", "--max_concurrent=0", "--max_queue=-1",
                    "--max_step_tokens=many", "--drain_timeout=45", "--drain_timeout=-1s",
                    "--kv_cache_mb=-5", "--model=.x=/m", "--model=a b=/m",
                    "--model=x=", "--tls_cert=/c", "--tls_client_ca=/c", "--config=/no/such/file",
                    "--predictor=best", "--predictor_recall=1"));

TEST_F(OptionsTest, APredictorNeedsFfnAuto) {
  EXPECT_EQ(Parse({"--model=/m", "--predictor=sketch"})->value().predictor, "sketch");
  const auto options = Parse({"--model=/m", "--predictor=sketch", "--ffn=sparse"});
  ASSERT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(options.status().message()), HasSubstr("needs --ffn=auto"));
}

TEST_F(OptionsTest, AnActivationIsForAllModelsOrForOne) {
  const ServerOptions all = Good({"--model=a=/x", "--model=b=/y", "--activation=fatrelu:0.01"});
  EXPECT_EQ(all.models[0].activation, "fatrelu:0.01");
  EXPECT_EQ(all.models[1].activation, "fatrelu:0.01");
  const ServerOptions one =
      Good({"--model=a=/x", "--model=b=/y", "--activation=relu", "--activation=b=drelu"});
  EXPECT_EQ(one.models[0].activation, "relu");
  EXPECT_EQ(one.models[1].activation, "drelu");
  EXPECT_EQ(Good({"--model=/m"}).models[0].activation, "");
  for (const char* bad : {"--activation=gelu", "--activation=c=relu", "--activation=fatrelu",
                          "--activation=a=", "--activation=fatrelu:-1"}) {
    const auto options = Parse({"--model=a=/x", bad});
    ASSERT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(options.status().message()), HasSubstr("--activation")) << bad;
  }
}

TEST_F(OptionsTest, TwoModelsOfOneNameAreRefused) {
  EXPECT_EQ(Parse({"--model=/a/m", "--model=/b/m"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(OptionsTest, AGgufFileIsNamedWithoutItsExtension) {
  EXPECT_EQ(Good({"--model=/m/Smol-135M.Q4_1.gguf"}).models[0].name, "Smol-135M.Q4_1");
  EXPECT_EQ(Good({"--model=s=/m/Smol.gguf"}).models[0].path, "/m/Smol.gguf");
}

TEST_F(OptionsTest, OnlyLoopbackAddressesStayOnTheMachine) {
  for (const char* inside : {"127.0.0.1:1", "localhost:1", "[::1]:1", "127.1.2.3:0"}) {
    EXPECT_TRUE(IsLoopback(inside)) << inside;
  }
  for (const char* outside : {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host:1"}) {
    EXPECT_FALSE(IsLoopback(outside)) << outside;
  }
}

TEST_F(OptionsTest, AnErrorSaysWhetherTheFileOrTheFlagIsAtFault) {
  const std::string path = testing::TempDir() + "/lacuna_options_test_value.conf";
  std::ofstream(path) << "max_queue=lots\n";
  const auto in_file = Parse({"--model=/m", "--config=" + path, "--threads=1"});
  EXPECT_THAT(std::string(in_file.status().message()), HasSubstr(path));
  std::ofstream(path) << "max_queue=1\n";
  const auto in_flag = Parse({"--model=/m", "--config=" + path, "--threads=lots"});
  ASSERT_FALSE(in_flag.ok());
  EXPECT_THAT(std::string(in_flag.status().message()), testing::Not(HasSubstr(path)));
  std::remove(path.c_str());
}

TEST_F(OptionsTest, UnknownNamesInTheFileAreRefused) {
  const std::string path = testing::TempDir() + "/lacuna_options_test_bad.conf";
  std::ofstream(path) << "max_queues=1\n";
  EXPECT_EQ(Parse({"--model=/m", "--config=" + path}).status().code(),
            absl::StatusCode::kInvalidArgument);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace lacuna
