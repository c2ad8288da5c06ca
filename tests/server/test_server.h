#ifndef LACUNA_TESTS_SERVER_TEST_SERVER_H_
#define LACUNA_TESTS_SERVER_TEST_SERVER_H_

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "kernels/base/mutex.h"
#include "lacuna/v1/generation.grpc.pb.h"
#include "server/server.h"
#include "tests/fakes/fake_model.h"

namespace lacuna {

// Lets a fake engine run, or holds it before its next step. Thread-safe.
class Gate {
 public:
  void Open();
  void Close();
  // A closed gate lets `steps` more through.
  void Allow(int steps);
  // The engine's side: waits until it may pass.
  void Pass();
  // Waits until the engine stands before the closed gate.
  void WaitHeld();

 private:
  Mutex mu_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
  int allowed_ ABSL_GUARDED_BY(mu_) = 0;
  int held_ ABSL_GUARDED_BY(mu_) = 0;
};

// A whole Server on fake models, with ports chosen by the system.
class TestServer {
 public:
  // Small numbers, one model "fake", no drain lead. A model at the path "/chat" has a chat
  // template, which writes "role: content\n" for each message and refuses the content "no".
  static ServerOptions Options();

  // `configure` is called for each model before it is served.
  explicit TestServer(ServerOptions options = Options(),
                      std::function<void(FakeModel*)> configure = {});
  ~TestServer();

  Server& server() { return *server_; }
  Gate& gate() { return gate_; }  // before every Forward of every model
  std::shared_ptr<grpc::Channel> InProcessChannel();
  std::shared_ptr<grpc::Channel> TcpChannel();
  std::unique_ptr<v1::GenerationService::Stub> NewStub();

  // What a scrape would show.
  std::string Scrape();
  // Sum over the series of `name` whose labels contain all of `labels`, such as `code="OK"`.
  double Metric(const std::string& name, const std::vector<std::string>& labels = {});
  // Waits until nothing is open, then expects started = sum of ended, and all blocks free.
  void ExpectQuietAndBalanced();

 private:
  Gate gate_;
  std::unique_ptr<Server> server_;
};

// Polls until `done` or ten seconds have passed; the last value of `done`.
bool Eventually(const std::function<bool()>& done);

// A request that generates exactly `max_tokens` tokens.
v1::GenerateRequest MakeRequest(const std::string& text, uint32_t max_tokens);

// Calls Generate; for those who only want the status, without the response.
absl::Status Generate(TestServer* test, const v1::GenerateRequest& request,
                      v1::GenerateResponse* response);
absl::Status Generate(TestServer* test, const v1::GenerateRequest& request);

}  // namespace lacuna

#endif  // LACUNA_TESTS_SERVER_TEST_SERVER_H_
