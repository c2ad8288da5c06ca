#include "tests/integration/server_process.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "lacuna/v1/admin.grpc.pb.h"
#include "lacuna/v1/generation.grpc.pb.h"

namespace lacuna {
namespace {

using testing::HasSubstr;

std::unique_ptr<v1::GenerationService::Stub> Connect(const ServerProcess& server) {
  return v1::GenerationService::NewStub(
      grpc::CreateChannel(server.grpc_address(), grpc::InsecureChannelCredentials()));
}

v1::GenerateRequest MakeRequest(uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text("It was a dark night and");
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_sampling()->set_seed(1);
  return request;
}

std::filesystem::path DefaultModel() {
  for (const auto& entry : std::filesystem::directory_iterator(LACUNA_SOURCE_DIR "/models")) {
    if (std::filesystem::exists(entry.path() / "config.json")) return entry.path();
  }
  return {};
}

TEST(ServerProcessTest, TheEmbeddedModelGeneratesTheSameTextTwice) {
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const auto stub = Connect(server);
  v1::GenerateResponse first, second;
  grpc::ClientContext context1, context2;
  ASSERT_TRUE(stub->Generate(&context1, MakeRequest(24), &first).ok());
  ASSERT_TRUE(stub->Generate(&context2, MakeRequest(24), &second).ok());
  EXPECT_EQ(first.choices(0).finished().usage().completion_tokens(), 24u);
  EXPECT_FALSE(first.choices(0).text().empty());
  EXPECT_EQ(first.choices(0).text(), second.choices(0).text());
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
}

TEST(ServerProcessTest, SigtermWhileStreamingCompletesTheStream) {
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const auto stub = Connect(server);
  grpc::ClientContext context;
  const auto stream = stub->GenerateStream(&context, MakeRequest(200));
  v1::GenerateStreamResponse message;
  ASSERT_TRUE(stream->Read(&message));  // started
  ASSERT_TRUE(stream->Read(&message));  // first delta
  server.Signal(SIGTERM);
  uint32_t tokens = 0;
  while (stream->Read(&message)) {
    if (message.has_finished()) tokens = message.finished().usage().completion_tokens();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(tokens, 200u);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
}

// Lines of metrics_contract.txt as "# TYPE name type".
std::vector<std::string> ContractTypeLines() {
  std::ifstream file(LACUNA_SOURCE_DIR "/tests/integration/metrics_contract.txt");
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line[0] != '#') lines.push_back("# TYPE " + line);
  }
  return lines;
}

TEST(ServerProcessTest, AScrapeShowsEveryMetricOfTheContractBeforeAndAfterARequest) {
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const std::vector<std::string> contract = ContractTypeLines();
  ASSERT_GE(contract.size(), 43u);
  for (const std::string& line : contract) {
    EXPECT_THAT(HttpGet(server.metrics_address(), "/metrics"), HasSubstr(line + "\n"));
  }
  v1::GenerateResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(Connect(server)->Generate(&context, MakeRequest(8), &response).ok());
  const std::string scrape = HttpGet(server.metrics_address(), "/metrics");
  for (const std::string& line : contract) EXPECT_THAT(scrape, HasSubstr(line + "\n"));
  const std::string model = response.started().model();
  EXPECT_THAT(scrape, HasSubstr("lacuna_generation_tokens_total{model=\"" + model + "\"} 8"));
  EXPECT_THAT(scrape, HasSubstr("lacuna_ffn_neurons_total{layer=\"0\",model=\"" + model + "\""));
}

TEST(ServerProcessTest, PromtoolFindsNothingButTheColonsOfTheAliases) {
  if (std::system("command -v promtool > /dev/null") != 0) {
    GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  }
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const std::string path = testing::TempDir() + "/lacuna_scrape.txt";
  std::ofstream(path) << HttpGet(server.metrics_address(), "/metrics");
  FILE* const promtool = popen(("promtool check metrics 2>&1 < " + path).c_str(), "r");
  ASSERT_NE(promtool, nullptr);
  char line[512];
  while (std::fgets(line, sizeof(line), promtool) != nullptr) {
    EXPECT_TRUE(absl::StartsWith(line, "vllm:") && absl::StrContains(line, "contain ':'")) << line;
  }
  pclose(promtool);
  std::remove(path.c_str());
}

TEST(ServerProcessTest, WithoutAliasesPromtoolFindsNothing) {
  if (std::system("command -v promtool > /dev/null") != 0) {
    GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  }
  ServerProcess server({"--vllm_metrics=false"});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const std::string path = testing::TempDir() + "/lacuna_scrape_lacuna.txt";
  std::ofstream(path) << HttpGet(server.metrics_address(), "/metrics");
  EXPECT_EQ(std::system(("promtool check metrics < " + path).c_str()), 0);
  std::remove(path.c_str());
}

TEST(ServerProcessTest, ATruncatedModelIsExitCodeThreeAndOneLine) {
  const std::filesystem::path copy = testing::TempDir() + "/lacuna_truncated_model";
  std::filesystem::remove_all(copy);
  std::filesystem::copy(DefaultModel(), copy);
  std::filesystem::resize_file(copy / "model.safetensors", 100'000);
  ServerProcess server({"--model=broken=" + copy.string()});
  EXPECT_FALSE(server.WaitListening());
  EXPECT_EQ(server.Wait(), 3);
  const std::string errors = server.Errors();
  const auto count = [&errors](const char* text) {
    const std::vector<std::string> lines = absl::StrSplit(errors, '\n');
    return std::count_if(lines.begin(), lines.end(),
                         [text](const std::string& line) { return absl::StrContains(line, text); });
  };
  EXPECT_EQ(count("\"level\":\"error\""), 1) << errors;
  EXPECT_EQ(count("cannot be loaded"), 1) << errors;
  EXPECT_THAT(errors, HasSubstr("model.safetensors"));
  std::filesystem::remove_all(copy);
}

TEST(ServerProcessTest, AMissingModelIsExitCodeThree) {
  ServerProcess server({"--model=/no/such/model"});
  EXPECT_FALSE(server.WaitListening());
  EXPECT_EQ(server.Wait(), 3) << server.Errors();
}

TEST(ServerProcessTest, BadUsageIsExitCodeTwo) {
  for (const char* bad : {"--no_such_flag", "--max_queue=lots", "--tls_cert=/only/one"}) {
    ServerProcess server({bad});
    EXPECT_FALSE(server.WaitListening());
    EXPECT_EQ(server.Wait(), 2) << bad << server.Errors();
    EXPECT_THAT(server.Errors(), HasSubstr("lacuna-server --help"));
  }
}

TEST(ServerProcessTest, DrainOfTheAdministratorStopsTheProcess) {
  ServerProcess server({"--admin_listen=127.0.0.1:0"});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const std::string errors = server.Errors();
  const std::string key = "\"admin\":\"";
  const size_t start = errors.find(key) + key.size();
  const std::string address = errors.substr(start, errors.find('"', start) - start);
  grpc::ClientContext context;
  v1::DrainResponse response;
  EXPECT_TRUE(
      v1::AdminService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))
          ->Drain(&context, {}, &response)
          .ok());
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
}

TEST(ServerProcessTest, MutualTlsLetsInOnlyThoseWithACertificate) {
  const std::string key = testing::TempDir() + "/lacuna_test_key.pem";
  const std::string cert = testing::TempDir() + "/lacuna_test_cert.pem";
  // One self-signed certificate is server, client and root at once.
  if (std::system(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
                   "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -days 2 -keyout " +
                   key + " -out " + cert + " 2> /dev/null")
                      .c_str()) != 0) {
    GTEST_SKIP() << "openssl is not installed";
  }
  ServerProcess server({"--tls_cert=" + cert, "--tls_key=" + key, "--tls_client_ca=" + cert});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const auto read = [](const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  const auto list_models = [&](const grpc::SslCredentialsOptions& options) {
    const auto stub = v1::GenerationService::NewStub(
        grpc::CreateChannel(server.grpc_address(), grpc::SslCredentials(options)));
    grpc::ClientContext context;
    v1::ListModelsResponse models;
    return stub->ListModels(&context, {}, &models).error_code();
  };
  EXPECT_EQ(list_models({read(cert), read(key), read(cert)}), grpc::StatusCode::OK);
  EXPECT_EQ(list_models({read(cert), "", ""}), grpc::StatusCode::UNAVAILABLE);
  std::remove(key.c_str());
  std::remove(cert.c_str());
}

TEST(ServerProcessTest, APortThatIsTakenIsExitCodeOne) {
  ServerProcess first({});
  ASSERT_TRUE(first.WaitListening()) << first.Errors();
  ServerProcess second({"--listen=" + first.grpc_address()});
  EXPECT_FALSE(second.WaitListening());
  EXPECT_EQ(second.Wait(), 1) << second.Errors();
}

}  // namespace
}  // namespace lacuna
