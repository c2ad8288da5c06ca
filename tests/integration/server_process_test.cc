#include "tests/integration/server_process.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
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

// Dense and sparse, with weights that are quantized while loading.
TEST(ServerProcessTest, QuantizedWeightsGiveTheSameTextDenseAndSparse) {
  for (const std::string weights : {"int8", "int4"}) {
    ServerProcess server({"--weights=" + weights});
    ASSERT_TRUE(server.WaitListening()) << server.Errors();
    const auto stub = Connect(server);
    std::string texts[2];
    for (const auto mode : {v1::SparsityParams::DENSE, v1::SparsityParams::SPARSE}) {
      v1::GenerateRequest request = MakeRequest(24);
      request.mutable_sparsity()->set_mode(mode);
      v1::GenerateResponse response;
      grpc::ClientContext context;
      ASSERT_TRUE(stub->Generate(&context, request, &response).ok());
      texts[mode == v1::SparsityParams::SPARSE] = response.choices(0).text();
    }
    EXPECT_FALSE(texts[0].empty());
    EXPECT_EQ(texts[0], texts[1]);
    v1::ListModelsResponse models;
    grpc::ClientContext context;
    ASSERT_TRUE(stub->ListModels(&context, {}, &models).ok());
    EXPECT_EQ(models.models(0).weights(), weights);
    server.Signal(SIGTERM);
    EXPECT_EQ(server.Wait(), 0) << server.Errors();
  }
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

// A line of metrics_contract.txt.
struct ContractLine {
  std::string name, type;
  std::set<std::string> labels;
};

std::vector<ContractLine> ReadContract() {
  std::ifstream file(LACUNA_SOURCE_DIR "/tests/integration/metrics_contract.txt");
  std::vector<ContractLine> contract;
  for (std::string text; std::getline(file, text);) {
    if (text.empty() || text[0] == '#') continue;
    const std::vector<std::string> words = absl::StrSplit(text, ' ');
    contract.push_back({words.at(0), words.at(1), {words.begin() + 2, words.end()}});
  }
  return contract;
}

// Names of the labels of the series of a metric, `le` aside; each series must have the same.
std::set<std::string> LabelsIn(const std::string& scrape, const ContractLine& metric) {
  const std::string sample = metric.name + (metric.type == "histogram" ? "_count" : "");
  std::set<std::set<std::string>> found;
  for (const absl::string_view line : absl::StrSplit(scrape, '\n')) {
    if (!absl::StartsWith(line, sample + "{") && !absl::StartsWith(line, sample + " ")) continue;
    std::set<std::string> names;
    // No value of ours has a quotation mark in it.
    const std::vector<std::string> parts = absl::StrSplit(line, '"');
    for (size_t i = 0; i + 1 < parts.size(); i += 2) {
      const std::string name = parts[i].substr(parts[i].find_first_of("{,") + 1);
      names.insert(name.substr(0, name.find('=')));
    }
    found.insert(names);
  }
  EXPECT_EQ(found.size(), 1u) << metric.name;
  return found.empty() ? std::set<std::string>() : *found.begin();
}

void ExpectContract(const std::string& scrape) {
  for (const ContractLine& metric : ReadContract()) {
    EXPECT_THAT(scrape, HasSubstr("# TYPE " + metric.name + " " + metric.type + "\n"));
    EXPECT_EQ(LabelsIn(scrape, metric), metric.labels) << metric.name;
  }
}

TEST(ServerProcessTest, AScrapeShowsEveryMetricOfTheContractBeforeAndAfterARequest) {
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  ASSERT_GE(ReadContract().size(), 43u);
  ExpectContract(HttpGet(server.metrics_address(), "/metrics"));
  v1::GenerateResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(Connect(server)->Generate(&context, MakeRequest(8), &response).ok());
  const std::string scrape = HttpGet(server.metrics_address(), "/metrics");
  ExpectContract(scrape);
  const std::string model = response.started().model();
  EXPECT_THAT(scrape, HasSubstr("lacuna_generation_tokens_total{model=\"" + model + "\"} 8"));
  EXPECT_THAT(scrape, HasSubstr("lacuna_ffn_neurons_total{layer=\"0\",model=\"" + model + "\""));
}

// What `promtool check metrics` says about a scrape of `server`, by line, and its exit code.
struct PromtoolResult {
  int exit_code = -1;
  std::vector<std::string> lines;
};

PromtoolResult CheckMetrics(const ServerProcess& server) {
  PromtoolResult result;
  const std::string path = testing::TempDir() + "/lacuna_scrape_" + server.metrics_address();
  std::ofstream(path) << HttpGet(server.metrics_address(), "/metrics");
  FILE* const promtool = popen(("promtool check metrics 2>&1 < " + path).c_str(), "r");
  if (promtool == nullptr) return result;
  char line[512];
  while (std::fgets(line, sizeof(line), promtool) != nullptr) result.lines.push_back(line);
  const int status = pclose(promtool);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  std::remove(path.c_str());
  return result;
}

bool HasPromtool() { return std::system("command -v promtool > /dev/null") == 0; }

TEST(ServerProcessTest, PromtoolFindsNothingButTheColonsOfTheAliases) {
  if (!HasPromtool()) GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const PromtoolResult result = CheckMetrics(server);
  EXPECT_EQ(result.exit_code, 3);  // "linting issues"
  const auto colon_in = [](const std::string& name) {
    return testing::AllOf(testing::StartsWith(name + " "), HasSubstr("contain ':'"));
  };
  EXPECT_THAT(result.lines, testing::UnorderedElementsAre(colon_in("vllm:num_requests_running"),
                                                          colon_in("vllm:num_requests_waiting"),
                                                          colon_in("vllm:kv_cache_usage_perc"),
                                                          colon_in("vllm:cache_config_info")));
}

TEST(ServerProcessTest, WithoutAliasesPromtoolFindsNothing) {
  if (!HasPromtool()) GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  ServerProcess server({"--vllm_metrics=false"});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const PromtoolResult result = CheckMetrics(server);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.lines, testing::IsEmpty());
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

TEST(ServerProcessTest, FilesThatCannotBeUsedAreExitCodeTwoAndNamed) {
  const std::string text = testing::TempDir() + "/lacuna_not_a_pem_file";
  std::ofstream(text) << "no PEM\n";
  const std::vector<std::vector<std::string>> cases = {
      {"--auth_token_file=/no/such/file"},
      {"--auth_token_file=" + testing::TempDir()},
      {"--tls_cert=/no/such/file", "--tls_key=" + text},
      {"--tls_cert=" + testing::TempDir(), "--tls_key=" + text},
      {"--tls_cert=" + text, "--tls_key=" + text},
  };
  for (const std::vector<std::string>& args : cases) {
    ServerProcess server(args);
    EXPECT_FALSE(server.WaitListening());
    EXPECT_EQ(server.Wait(), 2) << server.Errors();
    EXPECT_THAT(server.Errors(), HasSubstr(args[0].substr(args[0].find('=') + 1)));
  }
  std::remove(text.c_str());
}

TEST(ServerProcessTest, WithoutItsEmbeddedModelItIsExitCodeThree) {
  const std::string copy = testing::TempDir() + "/lacuna-server-alone";
  std::filesystem::copy_file(LACUNA_SERVER_BINARY, copy,
                             std::filesystem::copy_options::overwrite_existing);
  const int status = std::system((copy + " 2> /dev/null").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 3);
  std::remove(copy.c_str());
}

TEST(ServerProcessTest, OtherPeoplesSignalsDoNotDeafenIt) {
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  server.Signal(SIGUSR1);
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
}

TEST(ServerProcessTest, DrainsOfTheAdministratorAreNotSignals) {
  constexpr absl::Duration kLead = absl::Seconds(2);  // a second signal would cut it to one
  ServerProcess server(
      {"--admin_listen=127.0.0.1:0", "--drain_lead=" + absl::FormatDuration(kLead)});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  const std::string errors = server.Errors();
  const std::string key = "\"admin\":\"";
  const size_t start = errors.find(key) + key.size();
  const std::string address = errors.substr(start, errors.find('"', start) - start);
  const auto stub =
      v1::AdminService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  const absl::Time asked = absl::Now();
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    v1::DrainResponse response;
    EXPECT_TRUE(stub->Drain(&context, {}, &response).ok());
  }
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0) << server.Errors();
  EXPECT_GE(absl::Now() - asked, kLead);
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

// Sends `bytes` to a server, no more than these, and waits until it has closed the connection.
void SendRaw(const std::string& address, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  ASSERT_EQ(send(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  shutdown(fd, SHUT_WR);
  char answer[256];
  while (recv(fd, answer, sizeof(answer), 0) > 0) {
  }
  close(fd);
}

TEST(ServerProcessTest, HeadersThatCannotBeParsedAreNotLogged) {
  ServerProcess server({});
  ASSERT_TRUE(server.WaitListening()) << server.Errors();
  // HPACK (RFC 7541): :method POST, :scheme http, :path /, then content-type as a literal.
  const std::string value = "secret-of-a-client";
  const std::string headers =
      std::string("\x83\x86\x84\x0f\x10") + static_cast<char>(value.size()) + value;
  const auto frame = [](char type, char flags, char stream, const std::string& payload) {
    return std::string({0, 0, static_cast<char>(payload.size()), type, flags, 0, 0, 0, stream}) +
           payload;
  };
  constexpr char kHeaders = 1, kSettings = 4, kGoAway = 7, kEnd = 5;  // of stream and of headers
  SendRaw(server.grpc_address(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(kSettings, 0, 0, "") +
                                     frame(kHeaders, kEnd, 1, headers) +
                                     frame(kGoAway, 0, 0, std::string(8, '\0')));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.Errors(), HasSubstr("key=content-type"));
  EXPECT_THAT(server.Errors(), testing::Not(HasSubstr(value)));
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
