#include "tests/server/test_server.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "proto/status.h"
#include "tests/fakes/fake_tokenizer.h"

namespace lacuna {

void Gate::Open() {
  MutexLock lock(&mu_);
  open_ = true;
  changed_.NotifyAll();
}

void Gate::Close() {
  MutexLock lock(&mu_);
  open_ = false;
  allowed_ = 0;
}

void Gate::Allow(int steps) {
  MutexLock lock(&mu_);
  allowed_ += steps;
  changed_.NotifyAll();
}

void Gate::Pass() {
  MutexLock lock(&mu_);
  ++held_;
  changed_.NotifyAll();
  while (!open_ && allowed_ == 0) changed_.Wait(&mu_);
  --held_;
  if (!open_) --allowed_;
}

void Gate::WaitHeld() {
  MutexLock lock(&mu_);
  while (held_ == 0 || open_ || allowed_ > 0) changed_.Wait(&mu_);
}

ServerOptions TestServer::Options() {
  ServerOptions options;
  options.models = {{"fake", "/nowhere"}};
  options.listen = "127.0.0.1:0";
  options.metrics_listen = "";
  options.max_concurrent = 8;
  options.max_queue = 16;
  options.kv_cache_mb = 1;
  options.drain_timeout = absl::Seconds(10);
  return options;
}

TestServer::TestServer(ServerOptions options, std::function<void(FakeModel*)> configure) {
  const ModelLoader loader = [this, configure = std::move(configure)](const LoadOptions& load) {
    auto model = std::make_unique<FakeModel>();
    model->on_forward = [this](absl::Span<const SequenceChunk>, FfnMode) {
      gate_.Pass();
      return absl::OkStatus();
    };
    if (configure) configure(model.get());
    LoadedModel loaded;
    loaded.model = std::move(model);
    loaded.tokenizer = std::make_unique<FakeTokenizer>();
    if (load.path == "/chat") {
      loaded.chat_template = ChatTemplate::Create(
          "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('no way') }}"
          "{% endif %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}",
          {});
    }
    return absl::StatusOr<LoadedModel>(std::move(loaded));
  };
  server_ = std::make_unique<Server>(options, loader, [] {});
  EXPECT_TRUE(server_->Start().ok());
  EXPECT_TRUE(server_->LoadModels().ok());
}

TestServer::~TestServer() {
  gate_.Open();
  server_.reset();
}

std::shared_ptr<grpc::Channel> TestServer::InProcessChannel() {
  return server_->rpc().grpc_server()->InProcessChannel({});
}

std::shared_ptr<grpc::Channel> TestServer::TcpChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  return grpc::CreateCustomChannel(server_->grpc_address(), grpc::InsecureChannelCredentials(),
                                   arguments);
}

std::unique_ptr<v1::GenerationService::Stub> TestServer::NewStub() {
  return v1::GenerationService::NewStub(InProcessChannel());
}

std::string TestServer::Scrape() {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, server_->metrics().registry()->Collect());
  return text.str();
}

double TestServer::Metric(const std::string& name, const std::vector<std::string>& labels) {
  double sum = 0;
  const std::string text = Scrape();
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, name)) continue;
    const char next = line.size() > name.size() ? line[name.size()] : '\0';
    if (next != '{' && next != ' ') continue;
    bool match = true;
    for (const std::string& label : labels) match = match && absl::StrContains(line, label);
    double value = 0;
    if (match && absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) sum += value;
  }
  return sum;
}

void TestServer::ExpectQuietAndBalanced() {
  EXPECT_TRUE(Eventually([this] { return Metric("lacuna_grpc_streams_open") == 0; }));
  EXPECT_TRUE(server_->models().WaitIdle(absl::Seconds(10)));
  for (const Method method : kMethods) {
    const std::string label = absl::StrCat("method=\"", MethodName(method), "\"");
    EXPECT_EQ(Metric("lacuna_requests_started_total", {label}),
              Metric("lacuna_requests_total", {label}))
        << label;
  }
  for (const ModelRegistry::Entry& entry : server_->models().List()) {
    const EngineLoad load = entry.lease->scheduler().GetLoad();
    EXPECT_EQ(load.running, 0);
    EXPECT_EQ(load.waiting, 0);
    EXPECT_EQ(load.kv_blocks_used, 0);
  }
}

bool Eventually(const std::function<bool()>& done) {
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!done()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

v1::GenerateRequest MakeRequest(const std::string& text, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_sampling()->set_seed(7);
  return request;
}

absl::Status Generate(TestServer* test, const v1::GenerateRequest& request,
                      v1::GenerateResponse* response) {
  grpc::ClientContext context;
  return FromGrpcStatus(test->NewStub()->Generate(&context, request, response));
}

absl::Status Generate(TestServer* test, const v1::GenerateRequest& request) {
  v1::GenerateResponse response;
  return Generate(test, request, &response);
}

}  // namespace lacuna
